"""Imported by a worker whose consumer is to fail, once, with an error that no client of Redis is known to raise."""

import os
from collections.abc import Callable
from functools import partialmethod
from pathlib import Path
from typing import Any

from queues.transport import Channel

ASKED_VARIABLE = "TESTS_TROUBLED_CONSUMER"
"""The file whose being there asks for the failure; it is gone once it has happened."""


def _failing(self: Channel, asked: Path, receive: Callable[[Channel], Any] = Channel._receive) -> Any:
    if asked.exists():
        asked.unlink()
        raise RuntimeError("pubsub connection not set")
    return receive(self)


if ASKED_VARIABLE in os.environ:
    Channel._receive = partialmethod(_failing, Path(os.environ[ASKED_VARIABLE]))  # type: ignore[method-assign]
