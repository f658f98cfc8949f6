"""When to look again at a start or an end that the swarm does not report."""

from __future__ import annotations

from collections import deque

#: A look that is too early costs a request. A look that is too late costs time. The first look comes when
#: this share of the shortest known time has passed. Each later look comes when the wait is a tenth longer.
_EARLY, _LONGER = 0.8, 0.1
#: How many of the newest times are remembered.
_REMEMBERED = 16


class Pace:
    """The pauses between looks, learned from how long earlier starts or ends took.

    Args:
        least, most: limits of the pause between two looks, in seconds.
        expected: seconds until the first look, before a time was learned.
    """

    def __init__(self, least: float, most: float, expected: float = 0.0) -> None:
        self._least, self._most, self._expected = least, most, expected
        self._took: deque[float] = deque(maxlen=_REMEMBERED)

    def learn(self, seconds: float) -> None:
        """Remember how many seconds a start or an end took."""
        self._took.append(seconds)

    @property
    def first(self) -> float:
        """Seconds until the first look."""
        expected = _EARLY * min(self._took) if self._took else self._expected
        return max(self._least, expected)

    def pause(self, age: float) -> float:
        """Seconds until the next look, when the start or end began `age` seconds ago."""
        return max(self.first - age, min(max(self._least, _LONGER * age), self._most))
