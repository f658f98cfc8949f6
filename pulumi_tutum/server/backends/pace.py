"""When to look again at something that takes its time, and tells nobody when it is done."""

from __future__ import annotations

from collections import deque

#: A look too early costs a question, one too late costs time: the first comes when this much of the shortest
#: time has passed, the others when it has gone on for a tenth longer.
_EARLY, _LONGER = 0.8, 0.1
#: Of so many, the shortest counts.
_REMEMBERED = 16


class Pace:
    """The times between looks at things of one kind, learned from how long those took that are done.

    Args:
        least, most: seconds between two looks, once it may be done.
        expected: seconds before which none is done, as long as nothing is learned.
    """

    def __init__(self, least: float, most: float, expected: float = 0.0) -> None:
        self._least, self._most, self._expected = least, most, expected
        self._took: deque[float] = deque(maxlen=_REMEMBERED)

    def learn(self, seconds: float) -> None:
        """How long one took."""
        self._took.append(seconds)

    @property
    def first(self) -> float:
        """Seconds before which none is done."""
        expected = _EARLY * min(self._took) if self._took else self._expected
        return max(self._least, expected)

    def pause(self, age: float) -> float:
        """Seconds until the next look at one that has gone on for `age` seconds."""
        return max(self.first - age, min(max(self._least, _LONGER * age), self._most))
