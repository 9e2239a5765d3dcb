"""Values that are stored apart: nobody who reads through the store can tell (sequences contract §8.5)."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest

from orchestrator import embedded
from orchestrator.catalogue import Catalogue
from orchestrator.core.states import InstanceState
from orchestrator.exchange import Restart
from orchestrator.settings import Settings
from orchestrator.store import instances
from orchestrator.store.apart import Apart, Mode
from orchestrator.store.postgres import PostgresStore
from tests.support.drive import Completed, PureWorld, StoredWorld, World, for_each, say, step, sub_sequence

BIG = "x" * 300
MIMIC = {"_externalized": True, "_ref": "data:secret"}


@pytest.fixture(scope="module")
def small_store(servers: embedded.Servers, migrated_template: str) -> Iterator[PostgresStore]:
    """A store to which 200 bytes are much."""
    url = embedded.fresh_database(servers, "apart", template=migrated_template)
    opened = PostgresStore(url, pool_size=3, apart=Apart(threshold=200))
    yield opened
    opened.close()


@pytest.fixture(params=["pure", "apart"])
def world(request: pytest.FixtureRequest) -> World:
    """The core in memory, and the engine over a store that puts large values apart."""
    if request.param == "pure":
        return PureWorld()
    return StoredWorld(request.getfixturevalue("small_store"), Settings())


@pytest.fixture
def stored(small_store: PostgresStore) -> StoredWorld:
    return StoredWorld(small_store, Settings())


def payloads(world: StoredWorld, instance_id: UUID) -> dict[str, Any]:
    with world.store.transaction() as tx:
        return dict(tx.query("SELECT key, value FROM payloads WHERE instance_id = %s", (instance_id,)))


def hot(world: StoredWorld, instance_id: UUID) -> Any:
    with world.store.transaction() as tx:
        return tx.query("SELECT data FROM contexts WHERE instance_id = %s", (instance_id,))[0][0]


def test_s8_5_templates_expressions_and_workers_see_the_whole_values(world: World) -> None:
    flow = world.start(
        [
            say("t", {"text": "{{ data.big.0 }}", "whole": "{{ data.big }}"}),
            step("w", "external", {"seen": "{{ outputs.t.message.whole }}"}, when="len(outputs.t.message.text) == 300"),
            say("u", {"merged": "{{ data.answer }}", "row": "{{ outputs.w.answer }}"}),
        ],
        data={"big": [BIG], "small": 1},
    )
    flow.run()
    world.restart()
    work = world.work(flow.claim("w"))
    assert work.params == {"seen": [BIG]}
    assert flow.data == {"big": [BIG], "small": 1}
    world.restart()
    world.finish([(work.claim, Completed(output={"answer": BIG}, merges=True))])
    flow.run()
    assert flow.check().state == "completed"
    assert flow.outputs("u") == [{"message": {"merged": BIG, "row": BIG}}]
    assert flow.data == {"big": [BIG], "small": 1, "answer": BIG}


def test_s8_5_value_that_looks_like_a_marker_is_a_value_like_any_other(world: World) -> None:
    flow = world.start([step("w", "external"), say("u", "{{ outputs.w }}")], data={"secret": BIG, "mine": MIMIC})
    world.finish([(flow.claim("w"), Completed(output=MIMIC))])
    world.restart()
    flow.run()
    assert flow.outputs("w") == [MIMIC]
    assert flow.outputs("u") == [{"message": MIMIC}]
    assert flow.data == {"secret": BIG, "mine": MIMIC}


def test_s8_5_items_of_a_for_each_and_children_are_whole(world: World) -> None:
    world.define("child", [say("c", "{{ data.big }}")])
    flow = world.start(
        [
            for_each("f", "big_list", [say("t", "{{ item }}")]),
            sub_sequence("sub", "child", input={"big": BIG}),
            say("u", "{{ outputs.sub.c.message }}"),
        ],
        data={"big_list": [BIG, "small", BIG]},
    )
    flow.run()
    (child,) = world.children(flow.id)
    type(flow)(world, child).run()
    flow.run()
    assert flow.outputs("t") == [{"message": BIG}, {"message": "small"}, {"message": BIG}]
    assert flow.outputs("u") == [{"message": BIG}]
    assert [row["output"] for row in flow.outputs("sub")[0]] == [{"message": BIG}]


def test_s8_5_row_keeps_a_marker_and_the_value_stands_apart(stored: StoredWorld) -> None:
    flow = stored.start([say("t", "{{ data.big }}")], data={"big": BIG, "small": "é" * 98})
    flow.run()
    assert hot(stored, flow.id) == {"big": {"_externalized": True, "_ref": "data:big"}, "small": "é" * 98}
    with stored.store.transaction() as tx:
        row = tx.query("SELECT id, output, output_ref, output_size FROM outputs WHERE instance_id = %s", (flow.id,))[0]
        shown = instances.outputs(tx, flow.id)[0]
        page = instances.outputs_page(tx, flow.id, offset=0, limit=5)[0]
    assert row[1:] == ({"_externalized": True, "_ref": f"output:{row[0]}"}, f"output:{row[0]}", 314)
    assert shown[2:5] == ({"message": BIG}, f"output:{row[0]}", 314)
    assert page[3] == {"message": BIG}
    assert payloads(stored, flow.id) == {"data:big": BIG, f"output:{row[0]}": {"message": BIG}}


def test_s8_5_new_value_takes_the_place_of_the_former_one(stored: StoredWorld) -> None:
    flow = stored.start([step("w", "external")], data={"big": BIG, "n" * 300: BIG})
    for text in (BIG, "y" * 300, "z" * 400):
        stored.replace_context(flow.id, {"big": text}, None)
        assert flow.data == {"big": text}
        assert payloads(stored, flow.id)["data:big"] == text
        assert len(payloads(stored, flow.id)) == 2
    stored.replace_context(flow.id, {"big": 1}, None)
    assert flow.data == {"big": 1}


def test_s8_5_loop_that_keeps_few_rows_keeps_few_payloads(stored: StoredWorld) -> None:
    body = [say("t", "{{ data.big }}")]
    loop = {"type": "loop", "id": "l", "condition": "true", "max_iterations": 5, "retain_iterations": 2, "body": body}
    flow = stored.start([loop], data={"big": BIG})
    flow.run()
    assert flow.outputs("t") == [{"message": BIG}] * 2
    assert len([key for key in payloads(stored, flow.id) if key.startswith("output:")]) == 2


def test_s9_9_fork_and_s9_8_resume_take_the_payloads_along(stored: StoredWorld) -> None:
    flow = stored.start([say("a", "{{ data.big }}"), say("b", "{{ outputs.a.message }}")], data={"big": BIG})
    flow.run()
    fork = type(flow)(stored, stored.fork(flow.id, Restart(block_id="b"), dry_run=False))
    fork.run()
    assert (fork.outputs("a"), fork.outputs("b"), fork.data) == ([{"message": BIG}], [{"message": BIG}], {"big": BIG})
    stored.resume_from(flow.id, Restart(block_id="a"))
    flow.run()
    assert flow.outputs("b") == [{"message": BIG}]
    assert len(payloads(stored, flow.id)) == 3


def test_s8_5_deleting_the_instance_deletes_its_payloads(stored: StoredWorld) -> None:
    flow = stored.start([say("a", "{{ data.big }}")], data={"big": BIG})
    flow.run()
    assert flow.check().state == InstanceState.COMPLETED
    assert payloads(stored, flow.id)
    Catalogue(stored.store).delete(stored.instance(flow.id).sequence_id, tenant=None)
    assert payloads(stored, flow.id) == {}


@pytest.mark.parametrize(
    ("apart", "keys"),
    [
        (Apart(threshold=0), 0),
        (Apart(threshold=200, outputs=Mode.NEVER), 1),
        (Apart(threshold=200, outputs=Mode.THRESHOLD), 2),
        (Apart(threshold=0, outputs=Mode.ALWAYS), 1),
    ],
)
def test_s8_5_what_goes_apart_is_a_setting(small_store: PostgresStore, apart: Apart, keys: int) -> None:
    opened = PostgresStore(small_store.url, apart=apart)
    world = StoredWorld(opened, Settings())
    flow = world.start([say("t", "{{ data.big }}")], data={"big": BIG})
    flow.run()
    assert len(payloads(world, flow.id)) == keys
    assert (flow.outputs("t"), flow.data) == ([{"message": BIG}], {"big": BIG})
    opened.close()


def test_s8_5_threshold_and_mode_come_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().apart == Apart(threshold=65_536, outputs=Mode.THRESHOLD)
    monkeypatch.setenv("ORCH8_EXTERNALIZE_THRESHOLD", "1000")
    monkeypatch.setenv("ORCHESTRATOR_EXTERNALIZE_OUTPUTS", "always")
    assert Settings().apart == Apart(threshold=1000, outputs=Mode.ALWAYS)
