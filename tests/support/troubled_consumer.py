"""Imported by a worker whose consumer is to fail, once, with an error that no client of Redis is known to raise."""

import os
from pathlib import Path
from typing import Any

from queues.transport import Channel

ASKED_VARIABLE = "TESTS_TROUBLED_CONSUMER"
"""The file whose being there asks for the failure; it is gone once it has happened."""

_receive = Channel._receive


def _failing(self: Channel) -> Any:
    asked = Path(os.environ[ASKED_VARIABLE])
    if asked.exists():
        asked.unlink()
        raise RuntimeError("pubsub connection not set")
    return _receive(self)


Channel._receive = _failing  # type: ignore[method-assign]
