"""What can happen to an instance. Each event is one transaction."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator.core.model import Claim, NodeKey, StepError
from orchestrator.core.outcomes import LogLine, Outcome
from orchestrator.core.plan import Plan
from orchestrator.core.states import InstanceState
from sequences.document import Block


@dataclass(frozen=True, slots=True, kw_only=True)
class Created:
    """The instance was accepted; its first block may start, not before `not_before`."""

    not_before: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished:
    """A worker reports the outcome of the attempt it had claimed."""

    claim: Claim
    outcome: Outcome
    logs: tuple[LogLine, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLost:
    """The worker that held the claim is gone; `reason` says how that was seen."""

    claim: Claim
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptReturned:
    """The worker gives the claim back: the handler was not started."""

    claim: Claim


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired:
    """The moment a node waited for has come. What it waited for stands on its own row.

    Args:
        due_at: That moment, if it is known: what begins now is queued as if it had begun then.
    """

    key: NodeKey
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseRequested:
    """Stop before the next step."""

    payload: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumeRequested:
    """Go on after a pause."""

    payload: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """End the instance; shielded work is finished first."""

    payload: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextUpdated:
    """Merge the keys of `data` shallowly into `context.data`; `payload` is what the signal brought."""

    data: Mapping[str, Any]
    payload: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextReplaced:
    """Replace the data and config sections."""

    data: Any
    config: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalReceived:
    """A custom signal came in. `name` is None for the nameless short form."""

    id: UUID
    name: str | None
    payload: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRequested:
    """Reopen a failed instance at its failed step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateForced:
    """A client set the state by hand.

    Args:
        is_checked: Refuse a move that the table of moves does not have; a bulk operation sets any state.
    """

    state: InstanceState
    not_before: datetime | None = None
    is_checked: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rescheduled:
    """What a scheduled instance waits for comes later by `by`, or earlier if that is negative."""

    by: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchActed:
    """An event that is one of a batch action, which leaves an audit row."""

    action: str
    event: "Event"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlocksInjected:
    """Blocks join the root list, in any state. See `injection.py` for what `position` means."""

    blocks: tuple[Block, ...]
    position: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildEnded:
    """A child has reached a final state; `key` is the block that has waited for it."""

    key: NodeKey
    child: UUID
    state: InstanceState
    error: StepError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MailArrived:
    """There may be a letter for the instance: the oldest one is opened. It stands in the store, not in the event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResumedFrom:
    """Go on from a root block: it and all behind it are run anew. See `resumption.py`.

    Args:
        data: Laid over the top-level keys of `context.data`.
        signals: Delivered before the block is entered.
        is_copy: Whether the instance was made for this, as a copy of what another one has behind it.
    """

    block_id: str
    data: Mapping[str, Any]
    signals: "tuple[Signal, ...]" = ()
    is_copy: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    """Go over to another definition, in any state but a terminal one."""

    sequence_id: UUID
    plan: Plan


Signal = PauseRequested | ResumeRequested | CancelRequested | ContextUpdated | SignalReceived

Event = (
    Created
    | AttemptFinished
    | AttemptLost
    | AttemptReturned
    | TimerFired
    | PauseRequested
    | ResumeRequested
    | CancelRequested
    | ContextUpdated
    | ContextReplaced
    | SignalReceived
    | RetryRequested
    | StateForced
    | Rescheduled
    | BatchActed
    | BlocksInjected
    | ChildEnded
    | MailArrived
    | ResumedFrom
    | Migrated
)
