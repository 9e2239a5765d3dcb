"""From a posted instance to one the engine can start: tenant, sequence, schema, sizes (contract, api §10.2, §10.3)."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any
from uuid import UUID

from orchestrator.api.auth import Caller
from orchestrator.api.binding import session_to_bind
from orchestrator.api.instance_shapes import PRIORITIES, Context, StartInstance
from orchestrator.api.services import Services
from orchestrator.catalogue import MAX_LONG_NAME_BYTES, MAX_NAME_BYTES
from orchestrator.core.context import context_bytes
from orchestrator.errors import Conflict, InvalidArgument, NotFound, PayloadTooLarge, Unprocessable
from orchestrator.exchange import NewInstance
from orchestrator.store import definitions
from orchestrator.store.definitions import Head
from orchestrator.store.instances import Profile
from sequences.schemas import Schema, compile_schema


def check_names(caller: Caller, *, tenant_id: str, namespace: str, idempotency_key: str | None) -> None:
    """Refuse blank names, long ones, and foreign tenants."""
    for name, written in (("tenant_id", tenant_id), ("namespace", namespace)):
        if not written.strip():
            raise InvalidArgument(f"{name} must not be empty")
        if len(written.encode()) > MAX_NAME_BYTES:
            raise InvalidArgument(f"{name} is longer than {MAX_NAME_BYTES} bytes")
    if idempotency_key is not None and len(idempotency_key.encode()) > MAX_LONG_NAME_BYTES:
        raise InvalidArgument(f"idempotency_key is longer than {MAX_LONG_NAME_BYTES} bytes")
    caller.claim_tenant(tenant_id)


def heads_of(serving: Services, ids: Iterable[UUID]) -> dict[UUID, Head]:
    """Read what must be known of the sequences to be started; unknown ids are left out."""
    wanted = set(ids)
    with serving.store.transaction(is_single=True) as tx:
        found = definitions.heads(tx, list(wanted))
    serving.heads.note(wanted, found)
    return found


def check_startable(serving: Services, head: Head | None, tenant_id: str, missing: str) -> Head:
    """Refuse a sequence that is unknown, another tenant's, or deprecated."""
    if head is None or head.tenant_id != tenant_id:
        raise NotFound(missing)
    if head.deprecated and not serving.settings.allow_deprecated_instances:
        raise Conflict(f"sequence {head.id} is deprecated")
    return head


def new_instance(
    serving: Services, request: StartInstance, head: Head, *, tenant_id: str, namespace: str
) -> NewInstance:
    """Give the request to the engine, after checking data and sizes."""
    context = request.context or Context()
    check_context_size(context, serving.settings.max_context_bytes)
    check_input(serving, head, context.data)
    return NewInstance(
        sequence_id=head.id,
        tenant_id=tenant_id,
        namespace=namespace,
        profile=Profile(
            data=context.data,
            config=context.config,
            metadata=request.metadata,
            audit=[entry.model_dump() for entry in context.audit or ()],
            idempotency_key=request.idempotency_key,
            concurrency_key=request.concurrency_key,
            max_concurrency=request.max_concurrency,
        ),
        priority=PRIORITIES.index(request.priority),
        timezone=request.timezone,
        dry_run=request.dry_run,
        dry_run_auto_approve=request.dry_run_auto_approve,
        not_before=request.next_fire_at,
        session_id=session_to_bind(serving, request, tenant_id),
        budget=request.budget.model_dump(exclude_none=True) if request.budget is not None else None,
    )


def check_context_size(context: Context, limit: int) -> None:
    """Refuse a context whose JSON is over the limit."""
    size = context_bytes(context.data, context.config)
    if size > limit:
        raise PayloadTooLarge(f"context is {size} bytes; the limit is {limit}")


def check_input(serving: Services, head: Head, data: Any) -> None:
    """Refuse data that do not fit the sequence's `input_schema`."""
    schema = _input_schema(serving, head.tenant_id, head.id, head.content_hash)
    if schema is not None and (violations := schema.violations({} if data is None else data)):
        raise Unprocessable(f"context.data failed input_schema validation: {'; '.join(violations)}")


@lru_cache(maxsize=2000)
def _input_schema(serving: Services, tenant_id: str, sequence_id: UUID, _content_hash: str) -> Schema | None:
    """Compile the schema of a sequence, once for what the sequence says: an id may be used anew after a deletion."""
    with serving.store.reading(tenant_id) as tx:
        stored = definitions.get(tx, sequence_id)
    if stored is None:
        raise NotFound(f"sequence {sequence_id}")
    schema = stored.document.get("input_schema")
    return None if schema is None else compile_schema(schema)
