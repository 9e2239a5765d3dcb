"""Shapes of sessions, events, plugins, nodes, the change feed, and of what sequences are told.

Source: contract, api §9, §17.1, §18.4, §20.10, §21.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.client.shapes import Shape


class Session(Shape):
    """Data that instances share: `active`, `paused`, `completed` or `expired`."""

    id: UUID
    tenant_id: str
    session_key: str
    data: Any = None
    state: str
    created_at: datetime
    updated_at: datetime
    expires_at: datetime | None = None


class EventOutcome(Shape):
    """What became of an event; `duplicate` if its producer's id was known."""

    event_id: UUID
    duplicate: bool
    satisfied: bool


class EventOutcomes(Shape):
    """What became of several events, in their order."""

    outcomes: tuple[EventOutcome, ...]


class Event(Shape):
    """A correlation event: `pending`, `consumed` or `expired`."""

    event_id: UUID
    tenant_id: str
    event_name: str
    producer_event_id: str
    correlation_key: str
    payload: Any = None
    status: str
    created_at: datetime


class Plugin(Shape):
    """A registered plugin, `wasm` or `grpc`."""

    name: str
    plugin_type: str
    source: str
    tenant_id: str
    enabled: bool
    config: Any = None
    description: str | None = None
    created_at: datetime
    updated_at: datetime


class Node(Shape):
    """A worker process: `active`, `draining` or `stopped`."""

    id: UUID
    name: str
    status: str
    registered_at: datetime
    last_heartbeat_at: datetime
    drain: bool
    queues: tuple[str, ...] = ()
    slots: int = 0


class Change(Shape):
    """Something that has happened to an instance."""

    id: UUID
    instance_id: UUID
    tenant_id: str
    event_type: str
    from_state: str | None = None
    to_state: str | None = None
    block_id: str | None = None
    details: Any = None
    created_at: datetime


class ChangePage(Shape):
    """A page of changes; `next_cursor` is None for an empty one: keep the cursor you have."""

    changes: tuple[Change, ...]
    next_cursor: str | None = None
    has_more: bool


class Migrated(Shape):
    """What an instance left, and what it went over to."""

    migrated: bool
    instance_id: UUID
    from_sequence_id: UUID
    to_sequence_id: UUID


class MigratedMany(Shape):
    """How many instances were meant, and what became of them."""

    matched: int
    migrated: int
    skipped: int
    failed: int
