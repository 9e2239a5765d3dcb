"""Logs go on in a process that was forked while another thread was writing a line."""

import io
import os
import signal
import sys
import threading
import time

import pytest
import structlog

from orchestrator.logs import configure_logging


class Slow(io.StringIO):
    """Standard error that takes no more of this process, and all of its children's."""

    def __init__(self) -> None:
        super().__init__()
        self._owner = os.getpid()
        self.is_being_written = threading.Event()
        self.may_go_on = threading.Event()

    def write(self, text: str) -> int:
        if os.getpid() == self._owner:
            self.is_being_written.set()
            self.may_go_on.wait(30)
        return super().write(text)


@pytest.mark.filterwarnings("ignore:This process")
def test_a_child_that_was_forked_in_the_middle_of_a_line_can_log(monkeypatch: pytest.MonkeyPatch) -> None:
    configure_logging()
    slow = Slow()
    monkeypatch.setattr(sys, "stderr", slow)
    log = structlog.get_logger()
    thread = threading.Thread(target=lambda: log.warning("of_the_parent"))
    thread.start()
    assert slow.is_being_written.wait(30)
    child = os.fork()
    if child == 0:
        log.warning("of_the_child")
        os._exit(7)
    try:
        assert status_of(child) == 7
    finally:
        slow.may_go_on.set()
        thread.join()


def status_of(child: int) -> int | None:
    """Give the exit status of a child; None if it had to be killed because it did not end."""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def test_a_line_is_written_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    stream = io.StringIO()
    monkeypatch.setattr(stream, "write", written.append)
    monkeypatch.setattr(sys, "stderr", stream)
    structlog.get_logger().info("started", name="x")
    assert len(written) == 1
    assert written[0].endswith("\n")
