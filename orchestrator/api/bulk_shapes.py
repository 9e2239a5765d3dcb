"""Shapes of what is done to many instances at once (contract, api §10.7)."""

from enum import StrEnum
from typing import Any
from uuid import UUID

from pydantic import StrictBool, StrictInt, StrictStr

from orchestrator.api.shapes import Shape
from orchestrator.core.states import InstanceState


class InstanceFilter(Shape):
    """Which instances a bulk operation is about; all that is left out matches any."""

    tenant_id: StrictStr | None = None
    namespace: StrictStr | None = None
    sequence_id: UUID | None = None
    states: list[InstanceState] | None = None
    metadata: dict[StrictStr, StrictStr] | None = None


class BulkState(Shape):
    """A state for many instances."""

    filter: InstanceFilter
    state: InstanceState


class BulkReschedule(Shape):
    """By how many seconds many scheduled instances are put off; negative brings them forward."""

    filter: InstanceFilter
    offset_secs: StrictInt


class BatchActionKind(StrEnum):
    """What can be done to many instances."""

    RETRY = "retry"
    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    SIGNAL = "signal"


class BatchAction(Shape):
    """An action for many instances; `signal` needs a `signal_type`."""

    filter: InstanceFilter
    action: BatchActionKind
    signal_type: Any = None
    payload: Any = None
    dry_run: StrictBool = False
    limit: StrictInt = 1000


class BatchResult(Shape):
    """What a batch action came to."""

    matched: int
    applied: int
    skipped: int
    failed: int
    dry_run: bool
