"""Points at which a process can be asked to kill itself: before and after each kind of commit, and around a handler.

A point is asked for by a file of its name in a directory: the first process that comes by takes it away and dies.
"""

import os
import signal
from enum import StrEnum
from pathlib import Path

DIRECTORY_VARIABLE = "TESTS_POINTS"
"""Where the files are."""

_ROOT = Path(__file__).parents[2]


class Point(StrEnum):
    """Where to die."""

    BEFORE_ACCEPTANCE = "before an acceptance is committed"
    AFTER_ACCEPTANCE = "after an acceptance is committed"
    BEFORE_CLAIM = "before a claim is committed"
    AFTER_CLAIM = "after a claim is committed"
    BEFORE_HANDLER = "before a handler runs"
    AFTER_HANDLER = "after a handler has run"
    BEFORE_REPORT = "before a report is committed"
    AFTER_REPORT = "after a report is committed"
    BEFORE_DISPATCH = "before a dispatch is committed"
    AFTER_DISPATCH = "after a dispatch is committed"
    AFTER_HINTS = "after its hints are sent"
    BEFORE_TIMER = "before a timer is committed"
    AFTER_TIMER = "after a timer is committed"
    BEFORE_RECONCILIATION = "before a loss is committed"
    AFTER_RECONCILIATION = "after a loss is committed"


def prepared_to_die(directory: Path) -> dict[str, str]:
    """Give settings that let every process of an installation look for what it is asked for in a directory."""
    path = os.pathsep.join(map(str, (Path(__file__).with_name("lethal"), _ROOT)))
    return {"PYTHONPATH": path, DIRECTORY_VARIABLE: str(directory)}


class Asked:
    """One process that is asked to die.

    Args:
        directory: Where processes look.
    """

    def __init__(self, directory: Path, point: Point) -> None:
        self._file = directory / point.name
        self._died = _left_by_dead(self._file)
        self._died.unlink(missing_ok=True)
        self._file.touch()

    def who_died(self) -> int | None:
        """Give the pid of the one that has come by; None if nobody has."""
        text = self._died.read_text() if self._died.exists() else ""
        return int(text) if text else None

    def take_back(self) -> None:
        """Ask no longer."""
        self._file.unlink(missing_ok=True)


def die_if_asked(directory: Path, point: Point) -> None:
    """Die here, if it was asked for and nobody else has done it."""
    file = directory / point.name
    left = _left_by_dead(file)
    try:
        file.rename(left)
    except FileNotFoundError:
        return
    left.write_text(str(os.getpid()))
    os.kill(os.getpid(), signal.SIGKILL)


def _left_by_dead(file: Path) -> Path:
    return file.with_suffix(".died")
