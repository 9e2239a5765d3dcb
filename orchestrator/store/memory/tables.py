"""The rows of a store in memory, and the journal that takes a transaction back.

JSON is kept as text, as in PostgreSQL: what is stored is what orjson writes, and nobody who reads a value can change
the stored one.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

import orjson

from orchestrator.core.changes import (
    AttemptRecorded,
    LineLogged,
    OutputAdded,
    TransitionRecorded,
    UsageRecorded,
    WebhookQueued,
)
from orchestrator.core.model import Instance, ItemKey, Node, NodeKey, OutputKey, Step
from orchestrator.core.plan import Injection
from orchestrator.core.states import StepState
from orchestrator.store.definitions import StoredDefinition
from orchestrator.store.effects import EffectDone
from orchestrator.store.instances import IdempotencyKey
from orchestrator.store.triggers import Trigger

K = TypeVar("K")
V = TypeVar("V")

Json = bytes
GONE: Final = object()
"""In a journal: there was no such row."""


def to_text(value: Any) -> Json:
    """Write a value as JSON text."""
    return orjson.dumps(value)


def from_text(text: Json) -> Any:
    """Read a new copy of a stored value."""
    return orjson.loads(text)


class Broken(Exception):
    """A row that is inserted only once was inserted again: what PostgreSQL refuses with a unique violation."""


class Journal:
    """Notes what each write replaces, so that all of them can be taken back."""

    def __init__(self) -> None:
        self._undo: list[tuple[dict[Any, Any], Any, Any]] = []

    def put(self, rows: dict[K, V], key: K, value: V) -> None:
        """Write a row, new or not."""
        self._undo.append((rows, key, rows.get(key, GONE)))
        rows[key] = value

    def insert(self, rows: dict[K, V], key: K, value: V) -> None:
        """Write a new row.

        Raises:
            Broken: There is one of that key.
        """
        if key in rows:
            raise Broken(f"a row {key!r} is there already")
        self.put(rows, key, value)

    def drop(self, rows: dict[K, V], key: K) -> bool:
        """Remove a row; False if there is none."""
        if key not in rows:
            return False
        self._undo.append((rows, key, rows.pop(key)))
        return True

    @property
    def has_writes(self) -> bool:
        """Whether something was written."""
        return bool(self._undo)

    def writes(self) -> list[tuple[dict[Any, Any], Any, Any]]:
        """Give what was written, in order: the rows, the key, and what stood there before (`GONE` for nothing)."""
        return list(self._undo)

    def commit(self) -> bool:
        """Let the writes stand; tells whether there were any."""
        wrote = bool(self._undo)
        self._undo.clear()
        return wrote

    def roll_back(self) -> None:
        """Take the writes back, the last one first."""
        take_back(self._undo)
        self._undo.clear()


def take_back(writes: list[tuple[dict[Any, Any], Any, Any]]) -> None:
    """Undo what a journal has noted, the last write first."""
    for rows, key, former in reversed(writes):
        if former is GONE:
            rows.pop(key, None)
        else:
            rows[key] = former


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """An open step with the marks that claims and workers leave on it; what it carries in JSON is kept as text."""

    step: Step
    output: Json | None = None
    memory: Json | None = None
    heartbeat_at: datetime | None = None
    hints: int = 0

    def read(self) -> Step:
        """Give the step."""
        if self.output is None and self.memory is None:
            return self.step
        output, memory = (None if text is None else from_text(text) for text in (self.output, self.memory))
        return replace(self.step, output=output, memory=memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputRow:
    """An output; the value of the change is kept as text."""

    change: OutputAdded
    text: Json

    @property
    def output(self) -> Any:
        """A new copy of the value."""
        return from_text(self.text)


class SignalRow(NamedTuple):
    """A kept signal."""

    name: str | None
    payload: Json
    consumed_at: datetime | None


class CheckpointRow(NamedTuple):
    """A checkpoint."""

    data: Json
    created_at: datetime


class LetterRow(NamedTuple):
    """A letter that waits to be opened."""

    id: UUID
    sender: UUID
    recipient: UUID
    kind: str
    body: Json
    due_at: datetime


class ContextRow(NamedTuple):
    """The sections of a context, and what else is kept beside the hot row."""

    data: Json
    config: Json
    audit: Json
    metadata: Json


@dataclass(slots=True, kw_only=True)
class Rows:
    """All rows of one instance."""

    instance: dict[None, Instance] = field(default_factory=dict)
    context: dict[None, ContextRow] = field(default_factory=dict)
    nodes: dict[NodeKey, Node] = field(default_factory=dict)
    steps: dict[NodeKey, StepRow] = field(default_factory=dict)
    timers: dict[NodeKey, datetime] = field(default_factory=dict)
    outputs: dict[UUID, OutputRow] = field(default_factory=dict)
    newest: dict[OutputKey, UUID] = field(default_factory=dict)
    attempts: dict[UUID, AttemptRecorded] = field(default_factory=dict)
    transitions: dict[UUID, TransitionRecorded] = field(default_factory=dict)
    webhooks: dict[UUID, WebhookQueued] = field(default_factory=dict)
    usage: dict[UUID, UsageRecorded] = field(default_factory=dict)
    logs: dict[UUID, LineLogged] = field(default_factory=dict)
    state: dict[str, Json] = field(default_factory=dict)
    items: dict[ItemKey, Json] = field(default_factory=dict)
    signals: dict[UUID, SignalRow] = field(default_factory=dict)
    checkpoints: dict[UUID, CheckpointRow] = field(default_factory=dict)
    injections: dict[int, Injection] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class WorkerRow:
    """A worker process, as `orchestrator.store.workers` shows it."""

    columns: Mapping[str, Any]
    heartbeat_at: datetime


@dataclass(slots=True, kw_only=True)
class Tables:
    """Everything a store in memory holds.

    Args:
        places: Owner and key of each open step, by its id.
        keys: Instances by idempotency key.
        sessions: Data of sessions, by id.
    """

    instances: dict[UUID, Rows] = field(default_factory=dict)
    places: dict[UUID, tuple[UUID, NodeKey]] = field(default_factory=dict)
    keys: dict[IdempotencyKey, UUID] = field(default_factory=dict)
    sessions: dict[UUID, Json] = field(default_factory=dict)
    letters: dict[UUID, LetterRow] = field(default_factory=dict)
    triggers: dict[str, Trigger] = field(default_factory=dict)
    emissions: dict[tuple[str, str, str], UUID] = field(default_factory=dict)
    effects: dict[tuple[UUID, NodeKey, UUID], EffectDone] = field(default_factory=dict)
    definitions: dict[UUID, StoredDefinition] = field(default_factory=dict)
    workers: dict[UUID, WorkerRow] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)

    def steps_in(self, state: StepState) -> Iterator[tuple[UUID, StepRow]]:
        """Give the open steps in a state, each with the instance it belongs to."""
        for owner, rows in self.instances.items():
            for row in rows.steps.values():
                if row.step.state is state:
                    yield owner, row
