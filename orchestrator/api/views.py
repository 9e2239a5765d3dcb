"""How things of the store read on the wire (contract, api §10.1, §10.4)."""

from datetime import datetime
from typing import Any
from uuid import UUID

import orjson

from orchestrator.api.instance_shapes import PRIORITIES
from orchestrator.core.model import Instance
from orchestrator.core.sections import context_view, runtime_section
from orchestrator.store.effects import EffectDone
from orchestrator.store.instances import Profile, Record
from orchestrator.store.pages import Listed

_HIDDEN_ROWS = frozenset({"__in_progress__", "__retry__"})


def instance_view(record: Record) -> dict[str, Any]:
    """Show an instance."""
    profile = record.profile
    runtime = runtime_section(record.instance, attempt=record.attempt)
    context = context_view(profile.data, profile.config, runtime, audit=profile.audit)
    return _instance_view(record.instance, profile, context, due_at=record.due_at)


def listed_view(row: Listed) -> dict[str, Any]:
    """Show an instance of a list."""
    runtime = runtime_section(row, attempt=row.attempt)
    context = context_view(_as_written(row.data), _as_written(row.config), runtime, audit=row.audit)
    return _instance_view(row, row, context, due_at=row.due_at)


def _as_written(text: str | None) -> orjson.Fragment | None:
    return None if text is None else orjson.Fragment(text)


def _instance_view(
    instance: Instance | Listed, profile: Profile | Listed, context: dict[str, Any], *, due_at: datetime | None
) -> dict[str, Any]:
    view = {
        "id": instance.id,
        "sequence_id": instance.sequence_id,
        "tenant_id": instance.tenant_id,
        "namespace": instance.namespace,
        "state": instance.state,
        "next_fire_at": due_at,
        "priority": PRIORITIES[instance.priority],
        "timezone": instance.timezone,
        "metadata": profile.metadata,
        "context": context,
        "concurrency_key": profile.concurrency_key,
        "max_concurrency": profile.max_concurrency,
        "idempotency_key": profile.idempotency_key,
        "session_id": instance.session_id,
        "parent_instance_id": profile.parent_instance_id,
        "created_at": instance.created_at,
        "updated_at": instance.updated_at,
    }
    if instance.budget is not None:
        view["budget"] = instance.budget
    if instance.parked_reason is not None:
        view["parked_reason"] = instance.parked_reason
    return view


def output_views(instance_id: UUID, rows: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
    """Show the output rows of an instance, without bookkeeping of blocks that have a real row."""
    real = {row[1] for row in rows if row[3] not in _HIDDEN_ROWS}
    names = ("id", "block_id", "output", "output_ref", "output_size", "attempt", "created_at")
    return [
        {"instance_id": instance_id, **dict(zip(names, row, strict=False))}
        for row in rows
        if row[3] not in _HIDDEN_ROWS or row[1] not in real
    ]


def timeline_entry(row: tuple[Any, ...], *, with_output: bool) -> dict[str, Any]:
    """Show a stored row of a block as an entry of the timeline; sentinels are the engine's own rows."""
    block_id, attempt, created_at, output, ref = row
    entry = {"block_id": block_id, "attempt": attempt, "completed_at": created_at}
    if with_output:
        entry["output"] = output
    if ref is not None:
        entry["output_ref"] = ref
    return {**entry, "is_sentinel": ref is not None and ref.startswith("__")}


def audit_view(instance_id: UUID, row: tuple[Any, ...]) -> dict[str, Any]:
    """Show an audit row; unset states and blocks are left out."""
    optional = {"from_state": row[3], "to_state": row[4], "block_id": row[5]}
    return {
        "id": row[0],
        "instance_id": instance_id,
        "tenant_id": row[1],
        "event_type": row[2],
        **{name: value for name, value in optional.items() if value is not None},
        "details": row[6],
        "created_at": row[7],
    }


def attempt_view(row: tuple[Any, ...]) -> dict[str, Any]:
    """Show one execution of a step."""
    names = (
        "block_id",
        "iteration",
        "attempt",
        "handler",
        "queue",
        "outcome",
        "worker_id",
        "claimed_at",
        "ended_at",
        "error",
    )
    return dict(zip(names, row, strict=True))


def effect_view(done: EffectDone) -> dict[str, Any]:
    """Show what a step has done outside of its flow."""
    return {
        "id": done.id,
        "tenant_id": done.tenant_id,
        "instance_id": done.instance_id,
        "block_id": done.key.block_id,
        "kind": done.kind,
        "state": "committed",
        "destination_fingerprint": done.destination_fingerprint,
        "idempotency_key": done.idempotency_key,
        "request_sha256": done.request_sha256,
        "provider_receipt_id": done.provider_receipt_id,
        "attempt": done.attempt,
        "created_at": done.created_at,
        "updated_at": done.created_at,
    }
