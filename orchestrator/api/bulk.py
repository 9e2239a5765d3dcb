"""Operations on many instances at once (contract, api §10.7), in bounded transactions.

Each instance is changed as by a request about it alone: its work is withdrawn, whoever waits for it is woken.
"""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.bodies import Body, Rejection
from orchestrator.api.documentation import accepts
from orchestrator.api.services import Services, Serving
from orchestrator.api.shapes import (
    BatchAction,
    BatchActionKind,
    BatchResult,
    BulkReschedule,
    BulkState,
    Count,
    InstanceFilter,
)
from orchestrator.core.states import InstanceState
from orchestrator.errors import InvalidArgument
from orchestrator.store import instances
from orchestrator.store.instances import Filter
from sequences.signals import Control, SignalError, SignalType, parse_signal

router = APIRouter(tags=["instances"])
MAX_TOUCHED = 10_000
MAX_OFFSET_SECONDS = 100 * 366 * 24 * 3600
"""A century: beyond that a number is a mistake, and date arithmetic ends."""


@router.patch("/instances/bulk/state", responses={200: {"model": Count}}, openapi_extra=accepts(BulkState))
def set_states(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Set the state of all matching instances, whatever theirs is."""
    request = body.read(BulkState)
    matching = _matching(serving, filter_of(caller, request.filter))
    return Json({"count": serving.engine.set_state_of_many(matching, request.state)})


@router.patch("/instances/bulk/reschedule", responses={200: {"model": Count}}, openapi_extra=accepts(BulkReschedule))
def reschedule(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Shift what the matching instances that are scheduled wait for."""
    request = body.read(BulkReschedule)
    which = filter_of(caller, request.filter)
    if abs(request.offset_secs) > MAX_OFFSET_SECONDS:
        raise InvalidArgument(f"offset_secs must be within ±{MAX_OFFSET_SECONDS}")
    if which.states is not None and InstanceState.SCHEDULED not in which.states:
        return Json({"count": 0})
    matching = _matching(serving, replace(which, states=(InstanceState.SCHEDULED,)))
    return Json({"count": serving.engine.reschedule_many(matching, timedelta(seconds=request.offset_secs))})


@router.post("/instances/batch-action", responses={200: {"model": BatchResult}}, openapi_extra=accepts(BatchAction))
def batch_action(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Retry, or send a signal to, all matching instances; those it means nothing to are skipped."""
    request = body.read(BatchAction)
    which = filter_of(caller, request.filter)
    signal = _signal(request)
    if not 1 <= request.limit <= MAX_TOUCHED:
        raise InvalidArgument(f"limit must be from 1 to {MAX_TOUCHED}")
    matching = _matching(serving, which, limit=request.limit)
    applied = skipped = failed = 0
    if not request.dry_run:
        tally = serving.engine.act_on_many(matching, request.action.value, signal, request.payload)
        applied, skipped, failed = tally.applied, tally.refused, tally.gone
    counts = {"matched": len(matching), "applied": applied, "skipped": skipped, "failed": failed}
    return Json({**counts, "dry_run": request.dry_run})


def _signal(request: BatchAction) -> SignalType | None:
    """Give the signal that an action is; None for a retry."""
    match request.action:
        case BatchActionKind.RETRY:
            return None
        case BatchActionKind.SIGNAL if request.signal_type is None:
            raise InvalidArgument("the action `signal` needs a signal_type")
        case BatchActionKind.SIGNAL:
            try:
                return parse_signal({"signal_type": request.signal_type})
            except SignalError as error:
                raise Rejection(422, f"Failed to deserialize the JSON body: {error}") from error
        case _:
            return Control(request.action.value)


def filter_of(caller: Caller, written: InstanceFilter) -> Filter:
    """Read the filter of a bulk operation; InvalidArgument if it names no tenant."""
    tenant_id = caller.narrowed(written.tenant_id)
    if not tenant_id:
        raise InvalidArgument("bulk operations require a tenant_id")
    return Filter(
        tenant_id=tenant_id,
        namespace=written.namespace,
        sequence_id=written.sequence_id,
        states=None if written.states is None else tuple(written.states),
        metadata=tuple((written.metadata or {}).items()),
    )


def _matching(serving: Services, which: Filter, *, limit: int | None = None) -> list[UUID]:
    with serving.store.transaction() as tx:
        return instances.ids(tx, which, limit=limit)
