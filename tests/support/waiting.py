"""The one way tests wait: ask until the answer is yes, with a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.02


def wait_until(question: Callable[[], T], what: str | Callable[[], str], within: float = 90.0) -> T:
    """Ask until the answer is true-like, and return it.

    Args:
        question: Asked again and again.
        what: Says, in the failure, what did not happen; a callable is asked only then.
        within: Seconds.
    """
    until = time.monotonic() + within
    while True:
        if answer := question():
            return answer
        if time.monotonic() >= until:
            raise AssertionError(f"not within {within:g} s: {what() if callable(what) else what}")
        time.sleep(POLL_SECONDS)
