"""Why an instance stands where it stands, and what can be done about it (contract, api §21)."""

from dataclasses import asdict
from typing import Any, Final
from uuid import UUID

from fastapi import APIRouter
from starlette.responses import Response

from orchestrator import bindings, remediation
from orchestrator import diagnosis as diagnoses
from orchestrator.api.addresses import InstanceId
from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.diagnosis_shapes import Diagnosis, Remediation, RemediationApplied, Workbench
from orchestrator.api.instances import check_owned
from orchestrator.api.services import Services, Serving
from orchestrator.api.views import attempt_view, audit_view, instance_view
from orchestrator.core import tree
from orchestrator.core.plan import Plan
from orchestrator.errors import NotFound
from orchestrator.remediation import Preview
from orchestrator.store import instances, standing, step_logs
from orchestrator.store.postgres import PostgresTransaction
from orchestrator.store.session import patiently
from orchestrator.store.standing import Standing

router = APIRouter(tags=["instances"])
NEWEST: Final = 200


@router.get("/instances/{id}/diagnosis", responses={200: {"model": Diagnosis}})
def diagnose(serving: Serving, caller: CallerDependency, instance_id: InstanceId) -> Response:
    """Say what an instance waits for, or how it has ended, and what happens to it next."""
    check_owned(serving, caller, instance_id)
    with serving.store.reading(caller.tenant) as tx:
        found, plan = _look(serving, tx, instance_id)
    return Json(_diagnosis(found, plan))


@router.get("/instances/{id}/remediations", responses={200: {"model": list[Remediation]}})
def list_remediations(serving: Serving, caller: CallerDependency, instance_id: InstanceId) -> Response:
    """Say what can be done about an instance without losing work, and what each would do; nothing is written."""
    check_owned(serving, caller, instance_id)
    serving.engine.know_handlers()
    with serving.store.reading(caller.tenant) as tx:
        found, _ = _look(serving, tx, instance_id)
        made = remediation.previews(serving.engine, tx, found)
    return Json([_remediation(instance_id, each) for each in made])


@router.post("/instances/{id}/remediations/{preview_id}/apply", responses={200: {"model": RemediationApplied}})
def apply_remediation(serving: Serving, caller: CallerDependency, instance_id: InstanceId, preview_id: str) -> Response:
    """Do what was previewed; 409 if the instance no longer stands as it did then."""
    check_owned(serving, caller, instance_id)
    action, state = patiently(lambda: remediation.apply(serving.store, serving.engine, instance_id, preview_id))
    return Json({"preview_id": preview_id, "instance_id": instance_id, "action": action, "state": state})


@router.get("/instances/{id}/workbench", responses={200: {"model": Workbench}})
def read_workbench(serving: Serving, caller: CallerDependency, instance_id: InstanceId) -> Response:
    """Read all that is needed to look into one instance, as it was at one moment."""
    check_owned(serving, caller, instance_id)
    serving.engine.know_handlers()
    with serving.store.reading(caller.tenant) as tx:
        found, plan = _look(serving, tx, instance_id)
        previews = remediation.previews(serving.engine, tx, found)
        record = instances.get(tx, instance_id)
        if record is None:
            raise NotFound(f"instance {instance_id}")
        rows = [tree.node_entry(*row) for row in instances.newest_nodes(tx, instance_id)]
        rows += [tree.step_entry(*row) for row in instances.open_steps(tx, instance_id)]
        lines = step_logs.find(tx, instance_id, NEWEST)
        [shown, *children] = bindings.shown(
            tx, serving.plans, [record, *instances.children(tx, instance_id, limit=NEWEST)]
        )
        history = instances.attempts(tx, instance_id, newest=NEWEST)
        moves = instances.transitions(tx, instance_id, NEWEST)
        signals = standing.kept_signals(tx, instance_id)
    return Json(
        {
            "instance": instance_view(shown),
            "diagnosis": _diagnosis(found, plan),
            "remediations": [_remediation(instance_id, each) for each in previews],
            "tree": tree.build(plan, instance_id, found.instance.state, rows),
            "attempts": [attempt_view(row) for row in history],
            "audit": [audit_view(instance_id, row) for row in moves],
            "logs": [dict(zip(("block_id", "ts", "level", "message"), row, strict=True)) for row in lines],
            "signals": [{"name": name, "created_at": created_at} for name, created_at in signals],
            "children": [instance_view(each) for each in children],
        }
    )


def _look(serving: Services, tx: PostgresTransaction, instance_id: UUID) -> tuple[Standing, Plan]:
    instances.freeze(tx)
    found = standing.of_instance(tx, instance_id, serving.settings.dead_after)
    plan = serving.plans.of_instances(tx, [found.instance]).get(instance_id) if found is not None else None
    if found is None or plan is None:
        raise NotFound(f"instance {instance_id}")
    return found, plan


def _diagnosis(found: Standing, plan: Plan) -> dict[str, Any]:
    causes = diagnoses.explain(found, plan)
    following = diagnoses.next_event(found)
    return {
        "instance_id": found.instance.id,
        "state": found.instance.state,
        "summary": diagnoses.summary(causes),
        "causes": [asdict(each) for each in causes],
        "next": None if following is None else asdict(following),
        "generated_at": found.now,
    }


def _remediation(instance_id: UUID, preview: Preview) -> dict[str, Any]:
    return {
        "preview_id": preview.id,
        "instance_id": instance_id,
        "action": preview.action,
        "summary": preview.what,
        "safe": True,
        "from_state": preview.from_state,
        "to_state": preview.to_state,
        "steps": [
            {
                "block_id": step.key.block_id,
                "iteration": list(step.key.iteration),
                "handler": step.handler,
                "queue": step.queue,
                "attempt": step.attempt,
                "state": step.state,
                "wake_at": step.wake_at,
            }
            for step in preview.steps
        ],
    }
