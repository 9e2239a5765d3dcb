"""What a handler gets to see of the step it runs, and the few things it can tell the engine meanwhile."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol
from uuid import UUID, uuid4

from orchestrator.emitting import Emitted
from orchestrator.errors import NotFound
from orchestrator.exchange import OtherFlow
from sequences.scope import Scope
from sequences.step_fields import WaitForInput


class StepLog(Protocol):
    """Writes one line to the instance's log."""

    def __call__(self, message: Any, *, level: str = "info", **fields: Any) -> None:
        """Write `message` (any JSON value); `level` is `debug`, `info` or `warn`."""


def _log_nowhere(message: Any, *, level: str = "info", **fields: Any) -> None:
    """Drop the line."""


def _nothing() -> None:
    """Report to nobody."""


def _nothing_saved() -> tuple[Any, datetime] | None:
    return None


def _never() -> bool:
    return False


class Flows(Protocol):
    """What a handler may do with other instances of its tenant."""

    def look_at(self, instance_id: UUID) -> OtherFlow | None:
        """Read an instance; None if the tenant has none of that id."""

    def emit(
        self, slug: str, data: Any, meta: dict[str, Any], *, dedupe_key: str | None, is_tenant_wide: bool
    ) -> Emitted:
        """Start the flow of a trigger; the same answer whenever the same step asks again. Raises `RequestError`."""

    def new_id(self) -> UUID:
        """Make an id that sorts by time, for something that is written together with the handler's output."""


class NoFlows:
    """Nobody else is there: for handlers that are called outside of an engine."""

    def look_at(self, instance_id: UUID) -> OtherFlow | None:
        """See nothing."""
        return None

    def emit(
        self, slug: str, data: Any, meta: dict[str, Any], *, dedupe_key: str | None, is_tenant_wide: bool
    ) -> Emitted:
        """Start nothing."""
        raise NotFound(f"trigger {slug}")

    def new_id(self) -> UUID:
        """Make an id."""
        return uuid4()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepContext:
    """One attempt at a step, as its handler sees it.

    Everything here is for reading: outputs, state and context are changed by what the handler returns.

    Args:
        instance_id: The instance.
        sequence: Name of its sequence.
        block_id: The step.
        handler: The name under which the handler was called.
        idempotency_key: Stable over retries and crashes: `<instance id>:<block id>[:<iteration path>]`. Pass it to
            whoever must not do the same thing twice.
        iteration: Path of the loops around the step, `""` outside of any.
        attempt: From 0.
        queue: The queue the step waited in.
        context: `data`, `config`, `audit`, `runtime`, filtered by the step's `context_access`; for an instance of a
            session also `session`, its data.
        outputs: Newest output of each finished block, by block id; may load on access.
        state: The instance's key-value state; may load on access.
        latest_checkpoint: Reads the instance's newest checkpoint and when it was saved; None if there is none.
        scope: What expressions read.
        log: Writes a line to the instance's log, which is stored with the outcome: the last 1000 lines of an attempt,
            each cut to 8192 characters, without the secrets that the step was given.
        heartbeat: Says that the handler is alive and getting on; cheap enough for every turn of a loop.
        is_cancelled: Whether the attempt was cancelled or paused; poll it and return early.
        remaining: Time this attempt had left when it started; None without a limit.
        dry_run: Whether effects on the outside world must be left out.
        gate: The human gate of the step, None without one.
        flows: Other instances of the tenant.
    """

    instance_id: UUID
    sequence: str
    block_id: str
    handler: str
    idempotency_key: str
    iteration: str = ""
    attempt: int = 0
    queue: str = "default"
    context: Mapping[str, Any] = field(default_factory=dict)
    outputs: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    latest_checkpoint: Callable[[], tuple[Any, datetime] | None] = _nothing_saved
    scope: Scope = field(default_factory=Scope)
    log: StepLog = _log_nowhere
    heartbeat: Callable[[], None] = _nothing
    is_cancelled: Callable[[], bool] = _never
    remaining: timedelta | None = None
    dry_run: bool = False
    gate: WaitForInput | None = None
    flows: Flows = field(default_factory=NoFlows)
