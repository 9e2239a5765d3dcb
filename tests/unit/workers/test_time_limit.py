"""The alarm that ends a handler whose time is over."""

import time
from datetime import timedelta
from typing import Any

import pytest

from workers.attempt import TimedOut, time_limit


def _from(module: str, code: str) -> Any:
    """Give a function `call(act)` that is of another module."""
    scope: dict[str, Any] = {"__name__": module}
    exec(code, scope)
    return scope["call"]


def _spin(seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass


def _limited() -> None:
    with time_limit(0.05):
        _spin()


def test_a_handler_that_its_consumer_has_called_is_ended() -> None:
    """A worker without children runs its handlers inside the loop that takes its messages."""
    consume, attempt = (_from(module, "def call(act): act()") for module in ("queues.consumer", "workers.attempt"))
    with pytest.raises(TimedOut):
        consume(lambda: attempt(_limited))


def test_what_the_store_does_for_a_handler_is_brought_to_its_end() -> None:
    ended = []

    def handle() -> None:
        _from("orchestrator.store.pool", "def call(act): act()")(lambda: (_spin(0.2), ended.append(True)))
        _spin()

    with pytest.raises(TimedOut), time_limit(0.05):
        handle()
    assert ended == [True]


def test_a_limit_of_centuries_is_none() -> None:
    with time_limit(timedelta(days=2_900_000).total_seconds()):
        _spin(0.01)
