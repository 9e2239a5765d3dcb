"""What an attempt at a step can end in, and what a handler may change besides its output."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sequences.document import Block
from sequences.signals import SignalType


class FailureKind(StrEnum):
    """Why an attempt failed; `retry.retryable_errors` may name these."""

    HANDLER = "handler"
    TIMEOUT = "timeout"
    NETWORK = "network"
    LOST = "lost"
    INPUT = "input"
    OUTPUT = "output"


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """A line that a handler has logged; `at` by the clock of its machine."""

    at: datetime
    level: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StateWritten:
    """Set one key of the instance's key-value state."""

    key: str
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class StateDeleted:
    """Remove one key of the instance's key-value state; an absent key is fine."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataWritten:
    """Write `value` at a dotted path below `context.data`, making objects on the way."""

    path: tuple[str, ...]
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedWritten:
    """Write `value` at a path below the data of the instance's session; fails the step if there is no session."""

    path: tuple[str, ...]
    value: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedDeleted:
    """Remove one top-level member of the session's data; an absent one is fine."""

    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointKept:
    """Save a checkpoint of the instance under an id that the handler has made.

    Args:
        keep: How many of the instance's checkpoints, the newest, remain; None for all.
    """

    id: UUID
    value: Any
    keep: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlocksAdded:
    """Let blocks join the root list of the instance; they are valid in themselves. See `injection.py`."""

    blocks: tuple[Block, ...]
    position: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalPosted:
    """Send a signal to another instance, under an id that the handler has made."""

    id: UUID
    recipient: UUID
    signal: SignalType
    payload: Any


Effect = (
    StateWritten
    | StateDeleted
    | DataWritten
    | SharedWritten
    | SharedDeleted
    | CheckpointKept
    | BlocksAdded
    | SignalPosted
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The handler returned; `output` is stored once and never changes.

    Args:
        output: Any JSON value.
        merges: Whether an object output is merged key by key into `context.data`, as the output of an external
            worker is; the outputs of built-in handlers are not.
        effects: Further writes, committed together with the output.
    """

    output: Any
    merges: bool = False
    effects: tuple[Effect, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt failed; a retryable failure may be tried again if the step has a retry policy."""

    message: str
    retryable: bool
    details: Mapping[str, Any] | None = None
    kind: FailureKind = FailureKind.HANDLER


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspended:
    """The handler asks to be completed with `output` after `duration`, holding no worker meanwhile."""

    duration: timedelta
    output: Any


Outcome = Completed | Failed | Suspended
