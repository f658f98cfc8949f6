"""Lets tests and benchmarks that a shell runs in the background be interrupted."""

from __future__ import annotations

import signal


def accept_interrupts() -> None:
    """Let this process and its children receive SIGINT.

    A shell starts its background jobs with SIGINT ignored, and children inherit that. The Pulumi engine ends
    its plugins with SIGINT, and kills those that go on after 5 seconds: each run would take that much longer.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
