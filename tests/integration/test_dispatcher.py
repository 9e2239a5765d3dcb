"""The dispatcher over a real store and a real Redis."""

from collections.abc import Sequence
from uuid import uuid4

from orchestrator.dispatcher import Dispatcher
from orchestrator.engine import Engine
from orchestrator.exchange import NewInstance
from orchestrator.settings import Settings
from orchestrator.store import definitions, hints, workers
from orchestrator.store.definitions import StoredDefinition
from orchestrator.store.session import Store
from queues.broker import Hint
from queues.connection import EpochMark, connect
from sequences.document import parse_definition, to_document


class Bell:
    """Remembers who was rung."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []

    def __call__(self, hints: Sequence[Hint]) -> None:
        self.hints += hints


def define(store: Store) -> StoredDefinition:
    document = {
        "id": str(uuid4()),
        "tenant_id": "t",
        "namespace": "default",
        "name": "one",
        "version": 1,
        "created_at": "2026-01-01T00:00:00Z",
        "blocks": [{"type": "step", "id": "a", "handler": "noop"}],
    }
    definition = parse_definition(document)
    stored = StoredDefinition(
        id=definition.id,
        tenant_id="t",
        namespace="default",
        name="one",
        version=1,
        deprecated=False,
        document=to_document(definition),
        content_hash="",
    )
    with store.transaction() as tx:
        assert definitions.insert(tx, stored)
        workers.register(tx, uuid4(), name="w", kind="celery", queues=["default"], handlers=["noop"], slots=1)
    return stored


def test_hints_lost_while_no_service_ran_are_sent_again(store: Store, engine: Engine, settings: Settings) -> None:
    redis = connect(settings.redis_url)
    redis.delete("orchestrator:test:epoch")
    bell = Bell()
    definition = define(store)
    Dispatcher(store, bell, EpochMark(redis, "test"), settings).tick()
    engine.start_many([NewInstance(sequence_id=definition.id, tenant_id="t", namespace="default")])
    with store.transaction() as tx:
        tx.execute("UPDATE steps SET hinted_at = clock_timestamp()")

    Dispatcher(store, bell, EpochMark(redis, "test"), settings).tick()
    assert bell.hints == []  # a hint is out, and the broker is the one it was sent to

    redis.delete("orchestrator:test:epoch")
    Dispatcher(store, bell, EpochMark(redis, "test"), settings).tick()
    assert [hint.queue for hint in bell.hints] == ["default"]


def test_a_broker_emptied_while_nothing_was_ready_is_noticed_with_the_first_step(
    store: Store, engine: Engine, settings: Settings
) -> None:
    redis = connect(settings.redis_url)
    bell = Bell()
    definition = define(store)
    dispatcher = Dispatcher(store, bell, EpochMark(redis, "test"), settings)
    dispatcher.tick()
    redis.delete("orchestrator:test:epoch")
    engine.start_many([NewInstance(sequence_id=definition.id, tenant_id="t", namespace="default")])
    with store.transaction() as tx:
        tx.execute("UPDATE steps SET hinted_at = clock_timestamp()")
    dispatcher.tick()
    assert [hint.queue for hint in bell.hints] == ["default"]


def test_no_more_hints_are_out_than_the_workers_have_room_for(store: Store, engine: Engine, settings: Settings) -> None:
    bell = Bell()
    definition = define(store)
    engine.start_many([NewInstance(sequence_id=definition.id, tenant_id="t", namespace="default")] * 10)
    with store.transaction() as tx:
        hints.forget(tx)
    dispatcher = Dispatcher(store, bell, EpochMark(connect(settings.redis_url), "test"), settings)
    for _ in range(3):
        dispatcher.tick()
    assert len(bell.hints) == settings.hints_per_slot
