"""`python -m workers.demo`: exit status 0 if everything the demo promises was true, 1 if not, 130 after Ctrl-C."""

import argparse
import contextlib
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from orchestrator.errors import OrchestratorError
from workers.demo.rehearsal import Options, Stuck, rehearse
from workers.demo.screen import Screen
from workers.demo.stage import StageError

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit status."""
    options = _options(arguments)
    screen = Screen()
    try:
        with _interruptible():
            is_true = rehearse(options, screen)
    except KeyboardInterrupt:
        screen.say("interrupted; everything that was started has ended")
        return 130
    except (OrchestratorError, StageError, Stuck) as problem:
        screen.say(f"the demo could not be finished: {problem}", style="bold red")
        return 1
    return 0 if is_true else 1


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Turn the first request to stop into a KeyboardInterrupt, and let no further one cut short the cleaning up."""

    def stop(_number: int, _frame: FrameType | None) -> None:
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _options(arguments: Sequence[str] | None) -> Options:
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m workers.demo", description="Index a library and survive.")
    parser.add_argument(
        "--directory",
        type=Path,
        default=defaults.directory,
        help="data, logs and the report of the demo (default: %(default)s)",
    )
    parser.add_argument(
        "--source",
        type=Path,
        default=defaults.source,
        help="folder of modules to index (default: this Python's standard library)",
    )
    given = parser.parse_args(arguments)
    return Options(directory=given.directory, source=given.source)


if __name__ == "__main__":
    sys.exit(main())
