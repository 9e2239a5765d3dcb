"""Flows that are started through triggers: by a fire from outside, or by a step of another flow (contract §11, §13.7).

What a step emits is one transaction: the flow, the key that tells repetitions apart, and the row that says this step
has done it. A step that is run again finds that row and gets the answer it had.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID

import orjson

from orchestrator.core.model import Instance, NodeKey
from orchestrator.errors import InvalidArgument, NotFound, RequestError, Unprocessable
from orchestrator.exchange import Begun, NewInstance
from orchestrator.store.definitions import StoredDefinition
from orchestrator.store.effects import EffectDone
from orchestrator.store.instances import Profile
from orchestrator.store.interface import Store, Transaction
from orchestrator.store.triggers import Trigger
from sequences.schemas import compile_schema

TRIES: Final = 8
TENANT_SCOPE: Final = "tenant"


@dataclass(frozen=True, slots=True, kw_only=True)
class Emission:
    """What a step wants to emit.

    Args:
        sender: The instance of the step, and its state: the key of the row of its act.
        dedupe_key: Emissions of the same key start one flow; None for a flow each.
        is_tenant_wide: Whether the key holds for all flows of the tenant, or for the sender's emissions only.
    """

    sender: Instance
    key: NodeKey
    attempt: int
    slug: str
    data: Any
    meta: dict[str, Any]
    dedupe_key: str | None = None
    is_tenant_wide: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """The flow that was started, or the one that was started before under the same key."""

    instance_id: UUID
    sequence_name: str
    deduped: bool


class _Overtaken(Exception):
    """Another worker has emitted in the name of the same step at the same moment; its row is there to be read now."""


class Starting(Protocol):
    """What emitting needs of the engine."""

    def begin(self, tx: Transaction, requests: list[NewInstance]) -> Begun:
        """Accept instances in a transaction."""

    def see_off(self, begun: Begun) -> None:
        """Let them run, after the commit."""

    def new_id(self) -> UUID:
        """Make an id that sorts by time."""


def request_of(
    trigger: Trigger,
    definition: StoredDefinition,
    data: Any,
    event: dict[str, Any],
    *,
    idempotency_key: str | None = None,
) -> NewInstance:
    """Say what a trigger starts.

    Args:
        event: Where it comes from, for the metadata.

    Raises:
        Unprocessable: The data do not fit the sequence's `input_schema`.
    """
    schema = definition.document.get("input_schema")
    if schema is not None and (violations := compile_schema(schema).violations({} if data is None else data)):
        raise Unprocessable(f"context.data failed input_schema validation: {'; '.join(violations)}")
    metadata = {"_trigger": trigger.slug, "_trigger_type": trigger.trigger_type, "_trigger_event": event}
    return NewInstance(
        sequence_id=definition.id,
        tenant_id=trigger.tenant_id,
        namespace=trigger.namespace,
        profile=Profile(data=data, metadata=metadata, idempotency_key=idempotency_key),
    )


def sequence_of(tx: Transaction, trigger: Trigger) -> StoredDefinition:
    """Find what a trigger starts at this moment; NotFound if there is nothing."""
    found = tx.newest_definition(trigger.tenant_id, trigger.namespace, trigger.sequence_name, version=trigger.version)
    if found is None:
        version = "" if trigger.version is None else f" version {trigger.version}"
        raise NotFound(f"sequence {trigger.sequence_name}{version}")
    return found


class Emitter:
    """Starts flows in the name of steps."""

    def __init__(self, store: Store, engine: Starting) -> None:
        self._store = store
        self._engine = engine

    def emit(self, emission: Emission) -> Emitted:
        """Start the flow of a trigger; the same answer whenever the same step asks again.

        Raises:
            RequestError: There is no such trigger in the tenant, it is switched off, or its sequence refuses the data.
        """
        for attempt in range(TRIES):
            try:
                with self._store.transaction() as tx:
                    emitted, begun = self._emit(tx, emission)
            except RequestError:
                raise
            except _Overtaken:
                continue
            except Exception as error:
                if not self._store.is_retryable(error) or attempt == TRIES - 1:
                    raise
            else:
                if begun is not None:
                    self._engine.see_off(begun)
                return emitted
        raise AssertionError("unreachable")

    def _emit(self, tx: Transaction, emission: Emission) -> tuple[Emitted, Begun | None]:
        sender = emission.sender
        done = tx.effect_of_step(sender.id, emission.key, _run_of(sender))
        if done is not None:
            answer = done.answer
            return Emitted(**{**answer, "instance_id": UUID(answer["instance_id"])}), None
        trigger = tx.trigger(emission.slug)
        if trigger is None or trigger.tenant_id != sender.tenant_id:
            raise NotFound(f"trigger {emission.slug}")
        if not trigger.enabled:
            raise InvalidArgument(f"trigger {emission.slug!r} is disabled")
        definition = sequence_of(tx, trigger)
        event = {**emission.meta, "source": "emit_event", "parent_instance_id": str(sender.id)}
        new_id = self._engine.new_id()
        first = None
        if emission.dedupe_key is not None:
            scope = TENANT_SCOPE if emission.is_tenant_wide else str(sender.id)
            first = tx.reserve_emission(sender.tenant_id, scope, emission.dedupe_key, new_id)
        begun = None
        if first is None:
            request = request_of(trigger, definition, emission.data, event)
            begun = self._engine.begin(tx, [request.under(new_id)])
        emitted = Emitted(instance_id=first or new_id, sequence_name=trigger.sequence_name, deduped=first is not None)
        if not tx.insert_effect(self._row(tx, emission, emitted)):
            raise _Overtaken
        return emitted, begun

    def _row(self, tx: Transaction, emission: Emission, emitted: Emitted) -> EffectDone:
        asked = {"trigger_slug": emission.slug, "data": emission.data, "meta": emission.meta}
        return EffectDone(
            id=self._engine.new_id(),
            tenant_id=emission.sender.tenant_id,
            instance_id=emission.sender.id,
            key=emission.key,
            run_id=_run_of(emission.sender),
            kind="message",
            destination_fingerprint=_sha256(f"trigger:{emission.slug}".encode()),
            idempotency_key=emission.dedupe_key,
            request_sha256=_sha256(orjson.dumps(asked, option=orjson.OPT_SORT_KEYS)),
            provider_receipt_id=str(emitted.instance_id),
            attempt=emission.attempt,
            answer={
                "instance_id": str(emitted.instance_id),
                "sequence_name": emitted.sequence_name,
                "deduped": emitted.deduped,
            },
            created_at=tx.now(),
        )


def _run_of(sender: Instance) -> UUID:
    return sender.run_id or sender.id


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
