"""Wrong clocks: what a process reads of the time of day is off by as much as a file says, and follows it."""

import atexit
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import files
from pathlib import Path

from tests.support.effects import BOOT_VARIABLE


def can_be_wrong() -> bool:
    """Tell whether the wheel has a library for this machine."""
    return platform.system() == "Linux" and platform.machine() == "x86_64"


class Clock:
    """The clock of some processes; the monotonic one stays right.

    Args:
        path: The file that says how wrong it is.
    """

    def __init__(self, path: Path, error_seconds: int) -> None:
        self._path = path
        self.set(error_seconds)

    def set(self, error_seconds: int) -> None:
        """Be wrong by so many seconds, within a second."""
        written = self._path.with_suffix(".new")
        written.write_text(f"{error_seconds:+d}\n")
        written.replace(self._path)

    @property
    def environment(self) -> dict[str, str]:
        """Variables of a process that has this clock."""
        return {
            **_preloaded(),
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_CACHE_DURATION": "1",
            BOOT_VARIABLE: str(time.time() - time.monotonic()),
        }


@contextmanager
def inherited(error_seconds: int) -> Iterator[None]:
    """Let processes that are started meanwhile have a wrong clock, for good."""
    before = dict(os.environ)
    os.environ.update({**_preloaded(), "FAKETIME": f"{error_seconds:+d}"})
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _preloaded() -> dict[str, str]:
    return {"LD_PRELOAD": str(_library()), "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


@cache
def _library() -> Path:
    """Copy the library to where servers of another account reach it too."""
    [found] = [Path(str(file.locate())) for file in files("libfaketime") or () if file.name == "libfaketime.so.1"]
    folder = Path(tempfile.mkdtemp(prefix="libfaketime-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    folder.chmod(0o755)
    return Path(shutil.copy(found, folder))
