"""Print the lines of several processes as one readable stream, and keep a file of each."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol, TextIO

from orchestrator.embedded.home import rotate_log

COLORS = (36, 33, 35, 34, 32, 96, 93, 95)
"""ANSI foreground colours, given to names in turn; red is left to the supervisor's own bad news."""

RED = 31


MAX_WAITING_LINES = 10_000


class Overflowing:
    """A stream that nobody waits for: when its reader is slow or has gone to sleep, lines are lost, not time.

    A child whose log nobody reads would stop in the middle of its work, and so would the supervisor that is told to
    end.

    Args:
        stream: Where lines go, from a thread of this object.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING_LINES)
        self._thread = threading.Thread(target=self._write_on, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> None:
        """Take a text to be written soon; it is lost when too many wait."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(text)

    def flush(self) -> None:
        """Do nothing: whatever is taken is written as soon as it can be."""

    def isatty(self) -> bool:
        """Tell whether it is a terminal."""
        return self._stream.isatty()

    def close(self, timeout: float = 0.5) -> None:
        """Write what waits, if that can be done in so many seconds."""
        with contextlib.suppress(queue.Full):
            self._lines.put_nowait(None)
        self._thread.join(timeout)

    def _write_on(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while (text := self._lines.get()) is not None:
                self._stream.write(text)
                if self._lines.empty():
                    self._stream.flush()


class Writable(Protocol):
    """What lines are written to."""

    def write(self, text: str, /) -> object: ...  # noqa: D102 - as everywhere

    def flush(self) -> object: ...  # noqa: D102

    def isatty(self) -> bool: ...  # noqa: D102


class LinePrinter:
    """Writes `name | line`, aligned and coloured, one whole line at a time.

    Args:
        names: Everybody who will speak, for the width of the first column.
        stream: Where to.
        directory: Folder that gets `<name>.log` for each; None for no files.
        color: None asks the terminal, and NO_COLOR.
    """

    def __init__(
        self, names: Iterable[str], stream: Writable, *, directory: Path | None = None, color: bool | None = None
    ) -> None:
        self._stream = stream
        self._names = tuple(names)
        self._width = max((len(name) for name in self._names), default=0)
        self._directory = directory
        self._color = color if color is not None else stream.isatty() and not os.environ.get("NO_COLOR")
        self._lock = threading.Lock()
        self._files = {name: self._open(name) for name in self._names} if directory is not None else {}

    def line(self, name: str, text: str, *, is_bad: bool = False) -> None:
        """Print one line of one speaker; a closed terminal is no reason to stop."""
        with self._lock:
            if file := self._files.get(name):
                file.write(text + "\n")
            self._write(f"{self._prefix(name, is_bad)}{text}\n")

    def block(self, text: str) -> None:
        """Print several lines as they are."""
        with self._lock:
            self._write(text + "\n")

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files = {}

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            pass

    def _prefix(self, name: str, is_bad: bool) -> str:
        label = f"{name:<{self._width}} | "
        if not self._color:
            return label
        index = self._names.index(name) if name in self._names else 0
        return f"\x1b[{RED if is_bad else COLORS[index % len(COLORS)]}m{label}\x1b[0m"

    def _open(self, name: str) -> TextIO:
        path = (self._directory or Path()) / f"{name}.log"
        rotate_log(path)
        return path.open("a", encoding="utf-8", buffering=1)
