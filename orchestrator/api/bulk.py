"""Operations on many instances at once (contract, api §10.7), in bounded transactions.

Each instance is changed as by a request about it alone: its work is withdrawn, whoever waits for it is woken.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.bulk_shapes import (
    BatchAction,
    BatchActionKind,
    BatchResult,
    BulkReschedule,
    BulkState,
    InstanceFilter,
)
from orchestrator.api.documentation import accepts
from orchestrator.api.services import Services, Serving
from orchestrator.api.shapes import Count
from orchestrator.api.signals import signal_of
from orchestrator.core.states import InstanceState
from orchestrator.errors import InvalidArgument
from orchestrator.store import listing
from orchestrator.store.listing import Filter
from sequences.signals import Control, SignalType

router = APIRouter(tags=["instances"])
Matching = tuple[UUID, str, UUID]
PAGE = 1000
"""Instances that are held in memory at once."""
MAX_TOUCHED = 10_000
MAX_OFFSET_SECONDS = 100 * 366 * 24 * 3600
"""A century: beyond that a number is a mistake, and date arithmetic ends."""


@router.patch("/instances/bulk/state", responses={200: {"model": Count}}, openapi_extra=accepts(BulkState))
def set_states(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Set the state of all matching instances, whatever theirs is."""
    request = body.read(BulkState)
    which = filter_of(caller, request.filter)
    interventions = serving.engine.interventions
    return Json({"count": sum(interventions.set_state_of_many(ids, request.state) for ids in _ids(serving, which))})


@router.patch("/instances/bulk/reschedule", responses={200: {"model": Count}}, openapi_extra=accepts(BulkReschedule))
def reschedule(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Shift what the matching instances that are scheduled wait for."""
    request = body.read(BulkReschedule)
    which = filter_of(caller, request.filter)
    if abs(request.offset_secs) > MAX_OFFSET_SECONDS:
        raise InvalidArgument(f"offset_secs must be within ±{MAX_OFFSET_SECONDS}")
    if which.states is not None and InstanceState.SCHEDULED not in which.states:
        return Json({"count": 0})
    which, by = replace(which, states=(InstanceState.SCHEDULED,)), timedelta(seconds=request.offset_secs)
    return Json({"count": sum(serving.engine.interventions.reschedule_many(ids, by) for ids in _ids(serving, which))})


@router.post("/instances/batch-action", responses={200: {"model": BatchResult}}, openapi_extra=accepts(BatchAction))
def batch_action(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Retry, or send a signal to, all matching instances; those it means nothing to are skipped."""
    request = body.read(BatchAction)
    which = filter_of(caller, request.filter)
    signal = _signal(request)
    if not 1 <= request.limit <= MAX_TOUCHED:
        raise InvalidArgument(f"limit must be from 1 to {MAX_TOUCHED}")
    counts = Counter(matched=0, applied=0, skipped=0, failed=0)
    for ids in _ids(serving, which, limit=request.limit):
        counts["matched"] += len(ids)
        if not request.dry_run:
            tally = serving.engine.interventions.act_on_many(ids, request.action.value, signal, request.payload)
            counts.update(applied=tally.applied, skipped=tally.refused, failed=tally.gone)
    return Json({**counts, "dry_run": request.dry_run})


def _signal(request: BatchAction) -> SignalType | None:
    """Give the signal that an action is; None for a retry."""
    match request.action:
        case BatchActionKind.RETRY:
            return None
        case BatchActionKind.SIGNAL if request.signal_type is None:
            raise InvalidArgument("the action `signal` needs a signal_type")
        case BatchActionKind.SIGNAL:
            return signal_of({"signal_type": request.signal_type})
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


def pages_of(serving: Services, which: Filter, *, limit: int | None = None) -> Iterator[list[Matching]]:
    """Read what a filter matches now, a page at a time, the oldest first: id, state, sequence.

    What is created while the pages are worked on is none of them, or this might never end.
    """
    with serving.store.reading(which.tenant_id) as tx:
        until = listing.newest_id(tx, which)
    after, left = None, limit
    while until is not None and left != 0:
        size = PAGE if left is None else min(PAGE, left)
        with serving.store.reading(which.tenant_id) as tx:
            page = listing.matching(tx, which, limit=size, after=after, until=until)
        if page:
            yield page
        if len(page) < size:
            return
        after, left = page[-1][0], None if left is None else left - size


def _ids(serving: Services, which: Filter, *, limit: int | None = None) -> Iterator[list[UUID]]:
    return ([each[0] for each in page] for page in pages_of(serving, which, limit=limit))
