"""Views for those who look for what went wrong with one instance (contract, api §21)."""

from typing import Annotated, Any, Final
from uuid import UUID

from fastapi import APIRouter, Path
from pydantic import BaseModel
from starlette.responses import Response

from orchestrator import forking
from orchestrator.api.addresses import InstanceId
from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.instances import check_owned
from orchestrator.api.services import Services, Serving
from orchestrator.errors import NotFound
from orchestrator.store import instances

router = APIRouter(tags=["instances"])
OtherId = Annotated[UUID, Path(alias="other")]
_MISSING: Final = object()


class ForkPreview(BaseModel):
    """What a fork at a block would copy, and what it would run."""

    instance_id: UUID
    from_block_id: str
    copied_blocks: list[str]
    rerun_blocks: list[str]


class Comparison(BaseModel):
    """How two instances differ: blocks in whose newest outputs they do, and members of their data."""

    instance_id: UUID
    other_instance_id: UUID
    same_sequence: bool
    states: dict[str, str]
    blocks: list[dict[str, Any]]
    data: list[dict[str, Any]]


@router.get("/instances/{id}/fork-preview", responses={200: {"model": ForkPreview}})
def preview_fork(serving: Serving, caller: CallerDependency, instance_id: InstanceId, from_block_id: str) -> Response:
    """Say what a fork at a root block would copy and run; nothing is written."""
    check_owned(serving, caller, instance_id)
    with serving.store.reading(caller.tenant) as tx:
        record = instances.get(tx, instance_id)
        plan = serving.plans.of_instances(tx, [record.instance]).get(instance_id) if record is not None else None
    if plan is None:
        raise NotFound(f"instance {instance_id}")
    copied, rerun = forking.split(plan, from_block_id)
    answer = {"instance_id": instance_id, "from_block_id": from_block_id}
    return Json({**answer, "copied_blocks": list(copied), "rerun_blocks": list(rerun)})


@router.get("/instances/{id}/compare/{other}", responses={200: {"model": Comparison}})
def compare_instances(
    serving: Serving, caller: CallerDependency, instance_id: InstanceId, other_id: OtherId
) -> Response:
    """Say in what two instances differ, such as a fork and its source."""
    for each in (instance_id, other_id):
        check_owned(serving, caller, each)
    (mine, my_outputs), (theirs, their_outputs) = (_read(serving, caller, each) for each in (instance_id, other_id))
    return Json(
        {
            "instance_id": instance_id,
            "other_instance_id": other_id,
            "same_sequence": mine.instance.sequence_id == theirs.instance.sequence_id,
            "states": {"instance": mine.instance.state, "other": theirs.instance.state},
            "blocks": differences(my_outputs, their_outputs, "block_id"),
            "data": differences(_members(mine.profile.data), _members(theirs.profile.data), "key"),
        }
    )


def _read(serving: Services, caller: Caller, instance_id: UUID) -> tuple[instances.Record, dict[str, Any]]:
    with serving.store.reading(caller.tenant) as tx:
        instances.freeze(tx)
        record = instances.get(tx, instance_id)
        if record is None:
            raise NotFound(f"instance {instance_id}")
        return record, {row[1]: row[2] for row in instances.outputs(tx, instance_id)}


def _members(data: Any) -> dict[str, Any]:
    return data if isinstance(data, dict) else {"": data}


def differences(mine: dict[str, Any], theirs: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Give the members in which two objects differ; one that is on one side only has no value on the other.

    >>> differences({"a": 1, "b": 2}, {"b": 3}, "key")
    [{'key': 'a', 'instance': 1}, {'key': 'b', 'instance': 2, 'other': 3}]
    """
    found = []
    for key in [*mine, *(each for each in theirs if each not in mine)]:
        sides = {"instance": mine.get(key, _MISSING), "other": theirs.get(key, _MISSING)}
        if sides["instance"] != sides["other"]:
            found.append({name: key, **{side: value for side, value in sides.items() if value is not _MISSING}})
    return found
