"""Logs: events with fields, one name for each event."""

import logging
import sys

import structlog


class _Lines:
    """Writes lines to standard error as it is at that moment: whoever redirects it must not be left with a closed file.

    Without a lock, which those of structlog have: if a thread holds it at the moment of a fork, the child waits for it
    for ever. Python makes the locks of the standard streams anew in a child.
    """

    def msg(self, line: str) -> None:
        """Write a line at once, so that it is not torn by those of others."""
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()

    debug = info = warning = error = critical = msg


def configure_logging(level: str = "INFO") -> None:
    """Set up structured logs on standard error: readable on a terminal, `key=value` elsewhere."""
    is_terminal = sys.stderr.isatty()
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="%H:%M:%S.%f", utc=True),
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.StackInfoRenderer(),
            structlog.processors.format_exc_info if not is_terminal else structlog.dev.set_exc_info,
            structlog.dev.ConsoleRenderer(colors=is_terminal, pad_event_to=24),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_names: _Lines(),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(
        level=level.upper(), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger().setLevel(level.upper())
