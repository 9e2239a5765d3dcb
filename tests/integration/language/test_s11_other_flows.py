"""Section 11: send_signal and query_instance."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from tests.support.drive import StoredWorld, World, gate, parallel, say, step, sub_sequence, try_catch


def signal(target, signal_type, payload=None, **fields):
    return step(
        "s", "send_signal", {"instance_id": str(target), "signal_type": signal_type, "payload": payload}, **fields
    )


def query(target):
    return step("q", "query_instance", {"instance_id": str(target)})


@pytest.fixture
def stored(world: World) -> StoredWorld:
    if not isinstance(world, StoredWorld):
        pytest.skip("what is read of another flow comes from the store")
    return world


# -- send_signal -----------------------------------------------------------------------------------------------------


def test_s11_send_signal_answers_the_gate_of_another_flow(world: World) -> None:
    target = world.start([gate("g"), step("after", "external")])
    sender = world.start([signal(target.id, {"custom": "human_input:g"}, {"value": "yes"})]).run()
    assert (sender.check().state, list(sender.output("s"))) == ("completed", ["signal_id"])
    assert target.run().check().standing() == {"after": "ready"}
    assert (target.output("g"), target.data["g"]) == ({}, "yes")


@pytest.mark.parametrize(("word", "state"), [("pause", "waiting"), ("cancel", "cancelled")])
def test_s11_send_signal_controls_another_flow(world: World, word: str, state: str) -> None:
    target = world.start([step("a", "external")])
    world.start([signal(target.id, word)]).run()
    assert (target.check().state, target.instance.is_held) == (state, word == "pause")


def test_s11_send_signal_updates_the_context_of_another_flow(world: World) -> None:
    target = world.start([step("a", "external")], data={"x": 1})
    world.start([signal(target.id, "update_context", {"data": {"y": "{{ data.n }}"}})], data={"n": 2}).run()
    assert target.check().data == {"x": 1, "y": 2}


def test_s11_send_signal_to_the_own_flow(world: World) -> None:
    flow = world.start([signal("{{ instance_id }}", "update_context", {"data": {"y": 2}}), say("b", "{{ data.y }}")])
    assert flow.run().check().state == "completed"
    assert flow.data == {"y": 2}


@pytest.mark.parametrize(
    ("word", "payload", "state", "data"),
    [
        ("update_context", {"data": {"y": 2}}, "completed", {"y": 2}),
        ("update_context", {"data": {"y": "much" * 70_000}}, "completed", {}),
        ("cancel", None, "cancelled", {}),
        ("pause", None, "paused", {}),
        ("custom", None, "completed", {}),
    ],
)
@pytest.mark.parametrize("is_last", [False, True])
def test_s9_4_signal_to_the_own_flow_counts_before_the_next_block_and_the_end(
    world: World, word: str, payload: Any, state: str, data: Any, *, is_last: bool
) -> None:
    sender = signal("{{ instance_id }}", word, payload)
    flow = world.start([sender] if is_last else [sender, step("z", cancellable=False)]).run()
    goes_on = state == "completed" and not is_last
    assert (flow.check().state, flow.data) == (state, data)
    assert [row.block_id for row in flow.rows()] == ["s", "z"] if goes_on else ["s"]
    if state == "paused":
        assert flow.resume().run().check().state == "completed"


def test_s9_4_cancel_sent_to_the_own_flow_runs_the_finally_list(world: World) -> None:
    body = try_catch("t", [signal("{{ instance_id }}", "cancel"), step("a")], [], [step("f")])
    flow = world.start([body, step("z")]).run()
    assert flow.check().state == "cancelled"
    assert [row.block_id for row in flow.rows()] == ["s", "f"]


def test_s11_two_signals_arrive_in_order(world: World) -> None:
    target = world.start([step("a", "external")])
    world.start([signal(target.id, "pause"), {**signal(target.id, "resume"), "id": "t"}]).run(carry=True)
    assert not target.check().instance.is_held


@pytest.mark.parametrize(
    ("target", "signal_type", "message"),
    [
        ("unknown", "pause", "target instance not found"),
        ("ended", "pause", "cannot send signal to terminal instance"),
        ("no uuid", "pause", "instance_id must be a UUID"),
        ("living", "explode", "signal_type"),
        ("living", None, "signal_type"),
    ],
)
def test_s11_send_signal_fails_for_good(world: World, target: str, signal_type, message: str) -> None:
    ids = {"ended": world.start([step("a")]).run().id, "living": world.start([step("a", "external")]).id}
    body = signal(ids.get(target) or (uuid4() if target == "unknown" else target), signal_type)
    body["retry"] = {"max_attempts": 3, "initial_backoff": 10, "max_backoff": 10}
    flow = world.start([try_catch("t", [body], [say("c", "{{ data._error.message }}")])]).run()
    assert flow.check().state == "completed"
    assert message in flow.output("c")["message"]


def test_s11_send_signal_to_another_tenant_says_what_it_says_of_an_unknown_flow(stored: StoredWorld) -> None:
    foreign = StoredWorld(stored.store, stored.settings).start([step("a", "external")])
    flow = stored.start([signal(foreign.id, "cancel")]).run()
    assert (flow.state, foreign.state) == ("failed", "waiting")
    assert flow.output("s")["message"] == "target instance not found"


def test_s11_a_signal_is_sent_with_the_report_and_once(world: World) -> None:
    """A worker dies between its handler and its report; the step is run again."""
    target = world.start([gate("g"), gate("h")])
    flow = world.start([signal(target.id, "custom", {"value": "yes"})])
    claim = flow.claim("s")
    world.outcome(world.work(claim))
    flow.lose(claim)
    assert target.check().rows() == []
    flow.run()
    assert target.run().check().standing() == {"h": "gate"}


def test_s9_9_send_signal_in_a_dry_run_sends_nothing(world: World) -> None:
    target = world.start([step("a", "external")])
    flow = world.start([signal(target.id, "cancel")], dry_run=True).run()
    assert (flow.check().output("s")["dry_run"], target.state) == (True, "waiting")


# -- query_instance ---------------------------------------------------------------------------------------------------


def seen(world: World, target) -> dict:
    return world.start([query(target)]).run().output("q")


def test_s11_query_of_a_flow_that_is_not_there_is_no_failure(world: World) -> None:
    assert seen(world, uuid4()) == {"found": False}
    assert world.start([query("no uuid")]).run().state == "failed"


def test_s11_query_of_another_tenant_finds_nothing(stored: StoredWorld) -> None:
    foreign = StoredWorld(stored.store, stored.settings).start([step("a", "external")])
    assert seen(stored, foreign.id) == {"found": False}


def test_s11_query_shows_a_living_flow(stored: StoredWorld) -> None:
    stored.define("child", [step("x", "external")])
    target = stored.start([parallel("p", [sub_sequence("call", "child")])], data={"n": 1}, config={"c": 2})
    found = seen(stored, target.id)
    assert (found["found"], found["state"], found["completed_at"], found["current_node"]) == (
        True,
        "waiting",
        None,
        "call",
    )
    assert (found["context"]["data"], found["context"]["config"]) == ({"n": 1}, {"c": 2})
    assert found["started_at"].endswith("Z")


def test_s11_query_shows_the_step_a_flow_stands_at(stored: StoredWorld) -> None:
    target = stored.start([step("a"), parallel("p", [step("b", "external")])])
    target.run()
    assert seen(stored, target.id)["current_node"] == "b"


def test_s11_query_shows_how_a_flow_has_ended(stored: StoredWorld) -> None:
    target = stored.start([step("a"), step("b")]).run()
    found = seen(stored, target.id)
    assert (found["state"], found["current_node"]) == ("completed", "b")
    ended_at = found["completed_at"]
    stored.replace_context(target.id, {"later": 1}, None)
    assert seen(stored, target.id)["completed_at"] == ended_at
    assert ended_at > found["started_at"]


def test_s11_query_of_a_flow_that_has_not_started_names_its_first_block(stored: StoredWorld) -> None:
    target = stored.start([step("first")], not_before=stored.now() + timedelta(hours=1))
    found = seen(stored, target.id)
    assert (found["state"], found["current_node"]) == ("scheduled", "first")
