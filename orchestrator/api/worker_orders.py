"""Administration of workers: what they are told, which versions get tasks, where tasks go (contract, api §13.7)."""

import asyncio
from dataclasses import asdict
from datetime import timedelta
from typing import Annotated
from uuid import UUID

import anyio.to_thread
from fastapi import APIRouter, Path
from starlette.responses import Response

from orchestrator.api.answers import Json
from orchestrator.api.auth import Caller, CallerDependency
from orchestrator.api.bodies import Body
from orchestrator.api.documentation import accepts
from orchestrator.api.naming import MAX_LISTED, check_name, check_polled
from orchestrator.api.services import Services, Serving
from orchestrator.api.worker_shapes import (
    CreateRoutingRule,
    Handlers,
    PinVersion,
    RoutingRule,
    TellWorker,
    VersionPin,
    WorkerCommand,
)
from orchestrator.errors import InvalidArgument, NotFound
from orchestrator.handlers_known import ALL_KNOW_SECONDS
from orchestrator.store import tasks, worker_orders
from orchestrator.store.tasks import worker_key
from orchestrator.store.worker_orders import Rule
from orchestrator.versions import rank_of
from sequences.handlers import BUILTIN_HANDLERS, RESERVED_HANDLERS

router = APIRouter(tags=["workers"])
ALIVE_WITHIN = timedelta(seconds=60)

RuleId = Annotated[UUID, Path(alias="id")]
CommandId = Annotated[UUID, Path(alias="id")]


@router.get("/handlers", responses={200: {"model": Handlers}})
def list_handlers(serving: Serving, caller: CallerDependency) -> Response:
    """List handlers: those of the engine, and those of workers that were heard of in the last minute."""
    with serving.store.reading(caller.tenant) as tx:
        heard = tasks.heard_of(tx, ALIVE_WITHIN, caller.tenant)
    external = {
        handler
        for key, name, kind, handlers, _queues, _seen_at, is_alive, *_ in heard
        for handler in handlers
        if is_alive and (kind != "http" or caller.tenant is None or key == worker_key(caller.tenant, name))
    }
    builtin = BUILTIN_HANDLERS - RESERVED_HANDLERS
    return Json({"builtin": sorted(builtin), "external": sorted(external - BUILTIN_HANDLERS)})


# -- commands --------------------------------------------------------------------------------------------------------


@router.post(
    "/workers/commands",
    status_code=201,
    responses={201: {"model": WorkerCommand}},
    openapi_extra=accepts(TellWorker),
)
def tell_worker(serving: Serving, body: Body) -> Response:
    """Tell a worker something; it asks for what it was told, and deletes what it has done."""
    request = body.read(TellWorker)
    check_polled("worker_id", request.worker_id)
    with serving.store.transaction() as tx:
        command = worker_orders.insert_command(
            tx, serving.engine.new_id(), request.worker_id, request.command, request.payload
        )
    return Json(asdict(command), status_code=201)


@router.delete("/workers/commands/{id}", status_code=204)
def delete_command(serving: Serving, command_id: CommandId) -> Response:
    """Take a command back, or note that it was obeyed."""
    with serving.store.transaction() as tx:
        if not worker_orders.delete_command(tx, command_id):
            raise NotFound(f"worker_command {command_id}")
    return Response(status_code=204)


@router.get("/workers/{worker_id:path}/commands", responses={200: {"model": list[WorkerCommand]}})
def list_commands(serving: Serving, worker_id: str) -> Response:
    """List what a worker was told, the oldest first."""
    with serving.store.transaction() as tx:
        found = worker_orders.commands_of(tx, worker_id, MAX_LISTED)
    return Json([asdict(each) for each in found])


# -- version pins ----------------------------------------------------------------------------------------------------


@router.post("/workers/version-pins", responses={200: {"model": VersionPin}}, openapi_extra=accepts(PinVersion))
def pin_version(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Let only workers of a version, or a higher one, have tasks of a handler; others poll empty."""
    request = body.read(PinVersion)
    caller.claim_tenant(request.tenant_id)
    for name in ("tenant_id", "handler_name", "min_version"):
        check_name(name, getattr(request, name))
    rank = rank_of(request.min_version)
    if rank is None:
        raise InvalidArgument(f"min_version {request.min_version!r} is no version such as 1.4.2")
    with serving.store.transaction() as tx:
        pin = worker_orders.put_pin(tx, request.tenant_id, request.handler_name, request.min_version, rank)
    return Json(asdict(pin))


@router.get("/workers/version-pins", responses={200: {"model": list[VersionPin]}})
def list_pins(serving: Serving, caller: CallerDependency, tenant_id: str | None = None) -> Response:
    """List pins by tenant and handler."""
    with serving.store.reading(caller.narrowed(tenant_id)) as tx:
        found = worker_orders.pins(tx, caller.narrowed(tenant_id))
    return Json([asdict(each) for each in found])


@router.delete("/workers/version-pins/{tenant_id}/{handler_name:path}", status_code=204)
def delete_pin(serving: Serving, caller: CallerDependency, tenant_id: str, handler_name: str) -> Response:
    """Let workers of any version have tasks of a handler."""
    with serving.store.transaction() as tx:
        is_known = caller.tenant in {None, tenant_id} and worker_orders.delete_pin(tx, tenant_id, handler_name)
    if not is_known:
        raise NotFound(f"version_pin {tenant_id}/{handler_name}")
    return Response(status_code=204)


# -- routing rules ---------------------------------------------------------------------------------------------------


@router.post(
    "/routing-rules",
    status_code=201,
    responses={201: {"model": RoutingRule}},
    openapi_extra=accepts(CreateRoutingRule),
)
async def create_rule(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Lead new tasks of a handler to another queue: all that any process makes after the answer."""
    rule = await anyio.to_thread.run_sync(_make_rule, serving, caller, await body.read_async(CreateRoutingRule))
    await _until_all_know(serving)
    return Json(asdict(rule), status_code=201)


def _make_rule(serving: Services, caller: Caller, request: CreateRoutingRule) -> Rule:
    caller.claim_tenant(request.tenant_id)
    for name in ("tenant_id", "handler_name"):
        check_name(name, getattr(request, name))
    for queue in ("queue_override", "match_queue"):
        if (named := getattr(request, queue)) is not None:
            check_polled(queue, named)
    now = serving.engine.now()
    rule = Rule(id=serving.engine.new_id(), created_at=now, updated_at=now, **request.model_dump())
    with serving.store.transaction() as tx:
        worker_orders.insert_rule(tx, rule)
    return rule


@router.get("/routing-rules", responses={200: {"model": list[RoutingRule]}})
def list_rules(
    serving: Serving, caller: CallerDependency, tenant_id: str | None = None, handler_name: str | None = None
) -> Response:
    """List rules in the order in which they count."""
    with serving.store.reading(caller.narrowed(tenant_id)) as tx:
        found = worker_orders.rules(tx, caller.narrowed(tenant_id), handler_name)
    return Json([asdict(each) for each in found])


@router.get("/routing-rules/{id}", responses={200: {"model": RoutingRule}})
def read_rule(serving: Serving, caller: CallerDependency, rule_id: RuleId) -> Response:
    """Read a rule."""
    return Json(asdict(_owned(serving, caller, rule_id)))


@router.delete("/routing-rules/{id}", status_code=204)
async def delete_rule(serving: Serving, caller: CallerDependency, rule_id: RuleId) -> Response:
    """Remove a rule; tasks stay where it has led them."""
    await anyio.to_thread.run_sync(_remove_rule, serving, caller, rule_id)
    await _until_all_know(serving)
    return Response(status_code=204)


def _remove_rule(serving: Services, caller: Caller, rule_id: UUID) -> None:
    _owned(serving, caller, rule_id)
    with serving.store.transaction() as tx:
        worker_orders.delete_rule(tx, rule_id)


async def _until_all_know(serving: Services) -> None:
    """Wait until each process has read the rules again: they read them now and then, not at each step."""
    serving.engine.forget_routes()
    await asyncio.sleep(ALL_KNOW_SECONDS)


def _owned(serving: Services, caller: Caller, rule_id: UUID) -> Rule:
    with serving.store.reading(caller.tenant) as tx:
        found = worker_orders.rule(tx, rule_id)
    if found is None or caller.tenant not in {None, found.tenant_id}:
        raise NotFound(f"routing_rule {rule_id}")
    return found
