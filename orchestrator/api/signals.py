"""Signals and approvals (contract, api §11)."""

from datetime import datetime
from typing import Any
from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.addresses import InstanceId, Limit, Offset
from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.bodies import Body, Rejection
from orchestrator.api.documentation import accepts
from orchestrator.api.instance_shapes import Approvals, SendSignal, SignalAccepted
from orchestrator.api.instances import check_owned
from orchestrator.api.services import Serving
from orchestrator.core.leaving import former_plan
from orchestrator.core.plan import Plan
from orchestrator.store import instances, reading
from sequences.document import Step, WaitForInput, WaitForSignal
from sequences.signals import SignalError, SignalType, parse_signal

router = APIRouter(tags=["signals"])
MAX_PAGE = 1000


@router.post(
    "/instances/{id}/signals",
    status_code=201,
    responses={201: {"model": SignalAccepted}},
    openapi_extra=accepts(SendSignal),
)
def send_signal(serving: Serving, caller: CallerDependency, instance_id: InstanceId, body: Body) -> Response:
    """Send a signal; what it says when it is accepted is only that it will be looked at."""
    written = body.json()
    if not isinstance(written, dict):
        raise Rejection(422, "Failed to deserialize the JSON body: expected an object")
    signal = signal_of(written)
    check_owned(serving, caller, instance_id)
    signal_id = serving.engine.interventions.signal(instance_id, signal, written.get("payload"))
    serving.metrics.count("orch8_signals_delivered")
    return Json({"signal_id": signal_id}, status_code=201)


def signal_of(written: dict[str, Any]) -> SignalType:
    """Read the type of a signal; a Rejection when there is none of that name."""
    try:
        return parse_signal(written)
    except SignalError as error:
        raise Rejection(422, f"Failed to deserialize the JSON body: {error}") from error


router.add_api_route("/instances/{id}/signal", send_signal, methods=["POST"], status_code=201, include_in_schema=False)


@router.get("/approvals", responses={200: {"model": Approvals}})
def list_approvals(
    serving: Serving,
    caller: CallerDependency,
    tenant_id: str | None = None,
    namespace: str | None = None,
    offset: Offset = 0,
    limit: Limit = 100,
) -> Response:
    """List open human gates, the most recently updated first."""
    with serving.store.reading(caller.narrowed(tenant_id)) as tx:
        gates = instances.open_gates(
            tx,
            tenant_id=caller.narrowed(tenant_id),
            namespace=namespace,
            offset=offset,
            limit=min(limit, MAX_PAGE),
        )
        plans = serving.plans.of_instances(tx, reading.instances(tx, {row[0] for row in gates}).values())
    items = [item for row in gates if row[0] in plans and (item := _approval(plans[row[0]], *row)) is not None]
    return Json({"items": items, "total": len(items)})


def _approval(
    plan: Plan,
    instance_id: UUID,
    tenant_id: str,
    namespace: str,
    sequence_id: UUID,
    block_id: str,
    opened_at: datetime,
    wake_at: datetime | None,
    metadata: Any,
    former: Any,
) -> dict[str, Any] | None:
    """Show an open gate; None if the definition has lost its block."""
    plan = plan if former is None else former_plan(plan, former)
    place = plan.places.get(block_id)
    if place is None or not isinstance(place.block, Step):
        return None
    gate = place.block.wait_for_input or place.block.wait_for_signal or WaitForSignal()
    return {
        "instance_id": instance_id,
        "tenant_id": tenant_id,
        "namespace": namespace,
        "sequence_id": sequence_id,
        "sequence_name": plan.definition.name,
        "block_id": block_id,
        "prompt": gate.prompt,
        **_choices(gate),
        "timeout_seconds": None if gate.timeout is None else _number(gate.timeout.total_seconds()),
        "escalation_handler": gate.escalation_handler,
        "waiting_since": opened_at,
        "deadline": wake_at,
        "metadata": metadata,
    }


def _choices(gate: WaitForInput | WaitForSignal) -> dict[str, Any]:
    """Show what a gate takes; an open one takes anything."""
    if not isinstance(gate, WaitForInput):
        return {"choices": [], "store_as": None, "allow_comment": False}
    return {
        "choices": [choice.model_dump() for choice in gate.effective_choices],
        "store_as": gate.store_as,
        "allow_comment": gate.allow_comment,
    }


def _number(seconds: float) -> int | float:
    return int(seconds) if seconds.is_integer() else seconds
