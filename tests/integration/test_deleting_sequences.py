"""A sequence is deleted while others need it: who commits first wins, and no instance is left without a definition."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.catalogue import Catalogue
from orchestrator.core.events import RetryRequested
from orchestrator.core.states import InstanceState
from orchestrator.errors import AlreadyExists, Conflict, NotFound
from orchestrator.exchange import NewInstance
from orchestrator.reconciler import Reconciler
from orchestrator.settings import Settings
from orchestrator.store import definitions, instances, removal
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Transaction
from tests.support.blocked import LONG, wait_until_blocked
from tests.support.drive import Flow, StoredWorld, fail, step

pytestmark = pytest.mark.shares_database


@pytest.fixture
def world(store: PostgresStore, settings: Settings) -> StoredWorld:
    return StoredWorld(store, settings)


@pytest.fixture
def catalogue(store: PostgresStore) -> Catalogue:
    return Catalogue(store)


@pytest.fixture
def other() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def request_for(world: StoredWorld, sequence_id: UUID, **fields: Any) -> NewInstance:
    return NewInstance(sequence_id=sequence_id, tenant_id=world.tenant, namespace="n", **fields)


def while_open(
    world: StoredWorld, other: ThreadPoolExecutor, first: Callable[[Transaction], Any], second: Callable[[], Any]
) -> Future[Any]:
    """Do the second thing in another connection while the first is not committed, and commit that once it waits."""
    with world.store.transaction() as tx:
        first(tx)
        future = other.submit(second)
        wait_until_blocked(world.store, future)
    return future


def take_away(sequence_id: UUID) -> Callable[[Transaction], None]:
    def delete(tx: Transaction) -> None:
        assert removal.remove_sequence(tx, sequence_id)
        assert removal.count_open(tx, sequence_id) == 0

    return delete


def count(world: StoredWorld, table: str, sequence_id: UUID) -> int:
    with world.store.transaction() as tx:
        return tx.query(f"SELECT count(*) FROM {table} WHERE sequence_id = %s", (sequence_id,))[0][0]


def test_s1_version_that_an_uncommitted_instance_needs_is_not_deleted(
    world: StoredWorld, catalogue: Catalogue, other: ThreadPoolExecutor
) -> None:
    sequence_id = world.define("s", [step("a", "external")])
    begun = while_open(
        world,
        other,
        lambda tx: world.engine.begin(tx, [request_for(world, sequence_id)]),
        lambda: catalogue.delete(sequence_id, tenant=None),
    )
    with pytest.raises(Conflict, match=r"1 active instance"):
        begun.result(LONG)
    assert count(world, "instances", sequence_id) == 1


def test_s1_instance_of_a_version_that_is_being_deleted_is_not_made(
    world: StoredWorld, other: ThreadPoolExecutor
) -> None:
    sequence_id = world.define("s", [step("a", "external")])
    Flow(world, world.engine.start_many([request_for(world, sequence_id)])[0].id).complete("a")  # its plan is cached
    started = while_open(
        world,
        other,
        take_away(sequence_id),
        lambda: world.engine.start_many([request_for(world, sequence_id)]),
    )
    with pytest.raises(NotFound, match=str(sequence_id)):
        started.result(LONG)
    assert count(world, "instances", sequence_id) == 1


def test_s1_instances_begun_in_one_message_are_not_made_of_a_version_that_is_being_deleted(
    world: StoredWorld, other: ThreadPoolExecutor
) -> None:
    sequence_id = world.define("s", [step("a", "external")])
    Flow(world, world.engine.start_many([request_for(world, sequence_id)])[0].id).complete("a")  # its plan is cached
    with world.store.transaction() as tx:
        seen = definitions.heads(tx, [sequence_id])[sequence_id]
    begin = partial(world.engine.start_at_once, [request_for(world, sequence_id)] * 2, [seen])
    begun = begin()
    assert begun is not None
    for each in begun:
        Flow(world, each.id).complete("a")
    assert while_open(world, other, take_away(sequence_id), begin).result(LONG) is None
    assert count(world, "instances", sequence_id) == 3


def test_s3_8_child_of_a_version_that_is_being_deleted_fails_its_block(
    world: StoredWorld, other: ThreadPoolExecutor
) -> None:
    child = world.define("child", [step("a", "external")])
    flow = world.start([step("w", "external"), {"type": "sub_sequence", "id": "sub", "sequence_name": "child"}])
    while_open(world, other, take_away(child), lambda: flow.complete("w")).result(LONG)
    assert flow.check().state == "failed"
    assert count(world, "instances", child) == 0


def test_s1_migration_to_a_version_that_is_being_deleted_changes_nothing(
    world: StoredWorld, other: ThreadPoolExecutor
) -> None:
    target = world.define("target", [step("a", "external")])
    flow = world.start([step("w", "external")])
    source = world.instance(flow.id).sequence_id
    migrated = while_open(world, other, take_away(target), lambda: world.engine.interventions.migrate(flow.id, target))
    with pytest.raises(NotFound, match=str(target)):
        migrated.result(LONG)
    assert world.instance(flow.id).sequence_id == source
    assert flow.check().state == "waiting"


@pytest.mark.parametrize("reopen", ["retry", "resume"])
def test_s9_7_instance_of_a_version_that_is_being_deleted_is_not_reopened(
    world: StoredWorld, other: ThreadPoolExecutor, reopen: str
) -> None:
    flow = world.start([fail("a")])
    flow.run()
    sequence_id = world.instance(flow.id).sequence_id

    def again() -> None:
        if reopen == "retry":
            world.engine.interventions.retry(flow.id)
        else:
            world.engine.interventions.set_state_of_many([flow.id], InstanceState.PAUSED)

    future = while_open(world, other, take_away(sequence_id), again)
    if reopen == "retry":
        with pytest.raises(NotFound):
            future.result(LONG)
    future.exception(LONG)
    assert world.instance(flow.id).state == "failed"


def test_s1_version_whose_instance_is_being_reopened_is_not_deleted(
    world: StoredWorld, catalogue: Catalogue, other: ThreadPoolExecutor
) -> None:
    flow = world.start([fail("a")])
    flow.run()
    sequence_id = world.instance(flow.id).sequence_id
    with world.store.transaction() as tx:
        tx.lock([flow.id], [])
        world.engine._turnstile.pass_within(tx, {flow.id: [RetryRequested()]}, tx.now())
        deleted = other.submit(lambda: catalogue.delete(sequence_id, tenant=None))
        wait_until_blocked(world.store, deleted)
    with pytest.raises(Conflict):
        deleted.result(LONG)


def test_s1_instance_without_definition_breaks_no_batch_of_others(world: StoredWorld) -> None:
    lost, flow = world.start([step("a", "noop")]), world.start([step("a", "noop")])
    claims = world.claim_many()
    assert {claim.instance_id for claim in claims} == {lost.id, flow.id}
    with world.store.transaction() as tx:
        tx.execute("DELETE FROM sequences WHERE id = %s", (world.instance(lost.id).sequence_id,))
    world.restart()
    work = world.engine.inputs(claims)
    assert [each.claim.instance_id for each in work] == [flow.id]
    world.finish([(claim, world.outcome(each)) for claim, each in zip([work[0].claim], work, strict=True)])
    assert flow.check().state == "completed"
    assert world.engine.lose([claim for claim in claims if claim.instance_id == lost.id], "test") == 0


def document(sequence_id: UUID, name: str, handler: str) -> dict[str, Any]:
    return {
        "id": str(sequence_id),
        "tenant_id": "t",
        "namespace": "n",
        "name": name,
        "version": 1,
        "created_at": datetime.now(UTC).isoformat(),
        "blocks": [{"type": "step", "id": "a", "handler": handler}],
    }


def test_s1_id_of_a_deleted_version_stands_for_the_same_content_only(
    world: StoredWorld, catalogue: Catalogue, other: ThreadPoolExecutor
) -> None:
    """Processes keep definitions by id: were it given to other content, some would run the old one."""
    sequence_id, name = uuid4(), f"s-{uuid4()}"
    catalogue.create(document(sequence_id, name, "noop"), tenant=None)
    catalogue.delete(sequence_id, tenant=None)
    with pytest.raises(AlreadyExists, match=str(sequence_id)):
        catalogue.create(document(sequence_id, name, "log"), tenant=None)
    with pytest.raises(NotFound):
        catalogue.get(sequence_id, tenant=None)
    catalogue.create(document(uuid4(), name, "log"), tenant=None)  # the name is free
    catalogue.create(
        document(sequence_id, f"{name}-2", "log")
        | {"name": name, "version": 2, "blocks": [{"type": "step", "id": "a", "handler": "noop"}]},
        tenant=None,
    )
    # A deletion that is not committed yet counts, too.
    created = while_open(
        world,
        other,
        take_away(sequence_id),
        lambda: catalogue.create(document(sequence_id, f"{name}-3", "log"), tenant=None),
    )
    with pytest.raises(AlreadyExists):
        created.result(LONG)


def test_s1_instances_of_a_deleted_version_go_in_parts_and_others_stay(
    world: StoredWorld, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal, "AT_ONCE", 4)
    sequence_id = world.define("s", [step("a", "noop")])
    stays = world.start([step("a", "noop")])
    started = world.engine.start_many([request_for(world, sequence_id) for _ in range(10)])
    world.engine.interventions.set_state_of_many([each.id for each in started], InstanceState.CANCELLED)
    with world.store.transaction() as tx:
        take_away(sequence_id)(tx)
        assert removal.remove_of_deleted(tx) == 4
    # The process has died here: the id is not free, nothing left can be reopened, and the reconciler goes on.
    again = document(sequence_id, "s", "noop")
    with pytest.raises(AlreadyExists):
        catalogue.create(again, tenant=None)
    world.restart()
    with pytest.raises(NotFound):
        world.engine.interventions.set_state(started[-1].id, InstanceState.SCHEDULED)
    reconciler = Reconciler(world.engine, world.settings)
    assert [reconciler._clear_away() for _ in range(3)] == [4, 2, 0]
    assert count(world, "instances", sequence_id) == 0
    with world.store.transaction() as tx:
        assert instances.states_of(tx, [stays.id])
    stays.run()
    assert stays.check().state == "completed"


def test_s1_one_lock_is_taken_for_all_instances_of_a_sequence(world: StoredWorld) -> None:
    """Row locks stand in the row: one row of `sequences` carries the mark of the transaction, however many start."""
    sequence_id = world.define("s", [step("a", "external")])
    with world.store.transaction() as tx:
        statements: list[str] = []
        ask = tx.ask
        tx.ask = lambda form, *rest: (statements.append(form.whole), ask(form, *rest))[1]  # type: ignore[method-assign]
        world.engine.begin(tx, [request_for(world, sequence_id) for _ in range(1200)])
        assert len([text for text in statements if "FOR KEY SHARE" in text]) == 1
