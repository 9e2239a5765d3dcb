"""Ringing never fails: what hints tell of is committed."""

import threading
from uuid import uuid4

import pytest

from orchestrator.doorbell import Doorbell
from queues.broker import Hint
from tests.support.waiting import wait_until


class _Broker:
    def __init__(self) -> None:
        self.sent: list[Hint] = []

    def publish(self, hints: tuple[Hint, ...]) -> None:
        self.sent += hints

    def publish_at_once(self, _hints: tuple[Hint, ...]) -> bool:
        return False


def _hint() -> Hint:
    return Hint(step_id=uuid4(), attempt=0, queue="default", hint_id=uuid4())


def _no_more(_thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_hints_for_which_there_is_no_thread_are_dropped_and_the_next_ones_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, late = _Broker(), _hint()
    doorbell = Doorbell(broker)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _no_more)
        doorbell([_hint(), _hint()])
    assert doorbell.dropped == 2
    doorbell([late])
    wait_until(lambda: broker.sent == [late], "the hint is not sent")
    doorbell.close()
