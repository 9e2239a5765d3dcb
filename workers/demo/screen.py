"""What the audience sees: lines, and how far the work is: a bar in a terminal, a line now and then elsewhere."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

PLAIN_STEP = 10
"""Per cent between two plain lines."""


class Screen:
    """Prints the story. One bar at a time."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()

    def say(self, text: str, *, style: str = "") -> None:
        """Print one line of the story, with the seconds since the beginning."""
        seconds = f"{time.monotonic() - self._began:5.1f} s"
        self._console.print(f"[dim]{seconds}[/]  {escape(text)}", style=style)

    def show(self, text: str = "", *, style: str = "") -> None:
        """Print a line as it is."""
        self._console.print(escape(text), style=style)

    @contextmanager
    def bar(self, name: str) -> Iterator["Bar"]:
        """Show progress for a block."""
        if not self._console.is_terminal:
            yield Bar(self, name, None)
            return
        columns = (TextColumn("         {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console) as progress:
            yield Bar(self, name, progress)


class Bar:
    """Progress of one piece of work."""

    def __init__(self, screen: Screen, name: str, progress: Progress | None) -> None:
        self._screen = screen
        self._name = name
        self._progress = progress
        self._task = progress.add_task(name, total=None) if progress is not None else None
        self._shown = -1

    def update(self, done: int, total: int) -> None:
        """Show how much is done; a total of 0 is not known yet."""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total or None)
        elif total and done * 100 // total // PLAIN_STEP > self._shown:
            self._shown = done * 100 // total // PLAIN_STEP
            self._screen.say(f"{self._name}: {done:,} of {total:,}")
