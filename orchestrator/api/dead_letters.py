"""Dead letters by their cause (contract, api §21)."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter
from pydantic import BaseModel, Field, StrictBool
from starlette.responses import Response

from orchestrator import failure_groups
from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.documentation import accepts
from orchestrator.api.services import Services, Serving
from orchestrator.api.shapes import Shape
from orchestrator.errors import InvalidArgument, NotFound
from orchestrator.store import dead_letters
from orchestrator.store.dead_letters import Failure

router = APIRouter(tags=["instances"])
MAX_RETRIED = 1000


class Mode(StrEnum):
    """How much of a group is tried again."""

    SAMPLE = "sample"
    BULK = "bulk"


class FailureGroup(BaseModel):
    """Failed instances with one cause. Lists of what they share begin with the most frequent."""

    fingerprint: str
    components: dict[str, Any]
    error_class: str
    error_code: str | None
    sample_message: str
    count: int
    first_occurrence: datetime
    last_occurrence: datetime
    sequences: list[UUID]
    blocks: list[str]
    handlers: list[str]
    sample_instance_ids: list[UUID]


class RetryGroup(Shape):
    """Which instances of a group are opened again.

    `sample` opens the newest one. `bulk` opens up to `limit` of them, after one that has had the same cause is seen to
    have completed (`sample_verified_instance_id`), or with `force`.
    """

    mode: Mode
    sample_verified_instance_id: UUID | None = None
    force: StrictBool = False
    limit: Annotated[int, Field(strict=True, ge=1, lt=2**63)] = MAX_RETRIED


class GroupRetried(BaseModel):
    """How many were opened again, and how many were not failed any more."""

    fingerprint: str
    mode: Mode
    retried: int
    skipped: int


@router.get("/instances/dlq/groups", responses={200: {"model": list[FailureGroup]}})
def list_failure_groups(serving: Serving, caller: CallerDependency, tenant_id: str | None = None) -> Response:
    """Group the failed instances of a tenant by cause, the largest group first; the newest 10,000 are looked at."""
    return Json(failure_groups.groups(_failures(serving, _tenant(caller, tenant_id))))


@router.post(
    "/instances/dlq/groups/{fingerprint}/retry",
    responses={200: {"model": GroupRetried}},
    openapi_extra=accepts(RetryGroup),
)
def retry_failure_group(
    serving: Serving, caller: CallerDependency, fingerprint: str, body: Body, tenant_id: str | None = None
) -> Response:
    """Open one instance of a group again, or many once one is known to come through."""
    request, tenant = body.read(RetryGroup), _tenant(caller, tenant_id)
    if request.mode is Mode.BULK and not request.force:
        _check_sample(serving, tenant, fingerprint, request.sample_verified_instance_id)
    members = [
        each.instance_id
        for each in _failures(serving, tenant)
        if failure_groups.cause_of(each).fingerprint == fingerprint
    ]
    if not members:
        raise NotFound(f"failure group {fingerprint}")
    most = 1 if request.mode is Mode.SAMPLE else min(request.limit, MAX_RETRIED)
    retried = sum(_retry(serving, each) for each in members[:most])
    skipped = len(members[:most]) - retried
    return Json({"fingerprint": fingerprint, "mode": request.mode, "retried": retried, "skipped": skipped})


def _retry(serving: Services, instance_id: UUID) -> bool:
    try:
        serving.engine.interventions.retry(instance_id)
    except (InvalidArgument, NotFound):
        return False
    return True


def _check_sample(serving: Services, tenant: str, fingerprint: str, sample: UUID | None) -> None:
    if sample is None:
        raise InvalidArgument("bulk retry needs sample_verified_instance_id, or force")
    with serving.store.reading(tenant) as tx:
        found = dead_letters.last_failure(tx, sample, tenant)
    if found is None:
        raise NotFound(f"instance {sample}")
    state, failure = found
    if state != "completed" or failure_groups.cause_of(failure).fingerprint != fingerprint:
        raise InvalidArgument(f"instance {sample} has not completed after a failure of this group; it is {state}")


def _failures(serving: Services, tenant: str) -> list[Failure]:
    with serving.store.reading(tenant) as tx:
        return dead_letters.failures(tx, tenant)


def _tenant(caller: Caller, asked: str | None) -> str:
    tenant = caller.narrowed(asked)
    if not tenant:
        raise InvalidArgument("tenant_id is required")
    return tenant
