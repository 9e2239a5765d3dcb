"""Requests that change the course of instances, one or many, and that look into failed ones.

Source: contract, api §10, §21.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.client.shapes import AuditRow, Instance, Shape
from orchestrator.core.states import InstanceState


class Checkpoint(Shape):
    """A snapshot that a client or a flow has kept."""

    id: UUID
    instance_id: UUID
    checkpoint_data: Any
    created_at: datetime


class Effect(Shape):
    """Something that a step has done outside."""

    id: UUID
    instance_id: UUID
    block_id: str
    kind: str
    state: str
    destination_fingerprint: str
    idempotency_key: str | None = None
    provider_receipt_id: str | None = None
    attempt: int
    created_at: datetime
    updated_at: datetime


class TimelineEntry(Shape):
    """A stored row; its output is given if it was asked for."""

    block_id: str
    attempt: int
    completed_at: datetime
    output: Any = None
    is_sentinel: bool = False


class Timeline(Shape):
    """What has happened to an instance: changes of state, and a page of its rows."""

    instance: Instance
    state_transitions: tuple[AuditRow, ...]
    entries: tuple[TimelineEntry, ...]
    has_more: bool


class Injected(Shape):
    """The blocks that joined, and how many have joined in all."""

    injected_block_ids: tuple[str, ...]
    position: int | None = None
    total_injected: int


class ResumedFrom(Shape):
    """A flow that goes on from a root block."""

    id: UUID
    state: InstanceState
    resumed_from: str
    outputs_deleted: int
    signals_enqueued: int


class Fork(Shape):
    """A copy of a flow, the root blocks whose rows it has taken over, and those it runs."""

    id: UUID
    forked_from: UUID
    state: InstanceState
    copied_blocks: tuple[str, ...]
    rerun_blocks: tuple[str, ...]
    dry_run: bool


class ForkPreview(Shape):
    """What a fork would take over and what it would run."""

    instance_id: UUID
    from_block_id: str
    copied_blocks: tuple[str, ...]
    rerun_blocks: tuple[str, ...]


class Comparison(Shape):
    """In what two instances differ."""

    instance_id: UUID
    other_instance_id: UUID
    same_sequence: bool
    states: dict[str, str]
    blocks: tuple[dict[str, Any], ...]
    data: tuple[dict[str, Any], ...]


class BatchResult(Shape):
    """What an action on many instances came to."""

    matched: int
    applied: int
    skipped: int
    failed: int
    dry_run: bool


class FailureGroup(Shape):
    """Failed instances with one cause."""

    fingerprint: str
    error_class: str
    error_code: str | None = None
    sample_message: str
    count: int
    first_occurrence: datetime
    last_occurrence: datetime
    sequences: tuple[UUID, ...] = ()
    blocks: tuple[str, ...] = ()
    handlers: tuple[str, ...] = ()
    sample_instance_ids: tuple[UUID, ...] = ()


class GroupRetried(Shape):
    """How many were opened again, and how many were not failed any more."""

    fingerprint: str
    mode: str
    retried: int
    skipped: int


def filter_of(
    tenant: str | None,
    *,
    namespace: str | None,
    sequence_id: object | None,
    states: Sequence[str] | None,
    metadata: Mapping[str, str] | None,
) -> dict[str, Any]:
    """Write which instances are meant; what is None matches any.

    >>> filter_of("shop", namespace=None, sequence_id=None, states=["failed"], metadata=None)
    {'tenant_id': 'shop', 'states': ['failed']}
    """
    written = {
        "tenant_id": tenant,
        "namespace": namespace,
        "sequence_id": None if sequence_id is None else str(sequence_id),
        "states": None if states is None else list(states),
        "metadata": None if metadata is None else dict(metadata),
    }
    return {name: value for name, value in written.items() if value is not None}
