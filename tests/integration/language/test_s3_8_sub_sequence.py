"""Section 3.8: a block that runs another sequence as a child instance."""

import pytest

from orchestrator.core.children import MAX_DEPTH
from orchestrator.errors import InvalidArgument
from tests.support.drive import (
    Completed,
    Flow,
    World,
    ext,
    fail,
    for_each,
    loop,
    parallel,
    say,
    step,
    sub_sequence,
    try_catch,
)

CALL = sub_sequence("call", "child")


def run_all(flow: Flow) -> Flow:
    """Run a flow and everything below it until nothing is ready."""
    while True:
        ran = len(flow.world.executed)
        for each in family(flow):
            each.run().check()
        if len(flow.world.executed) == ran:
            return flow


def family(flow: Flow) -> list[Flow]:
    return [flow, *(each for child in flow.children() for each in family(child))]


def only_child(flow: Flow) -> Flow:
    (child,) = flow.children()
    return child


# -- what the child is --------------------------------------------------------------------------------------------


def test_s3_8_parent_waits_and_goes_on_with_the_rows_of_its_child(world: World) -> None:
    world.define("child", [say("a", "{{ data.x }}"), say("b", "two")])
    flow = world.start([sub_sequence("call", "child", input={"x": "{{ data.n }}"}), step("after")], data={"n": 7})
    assert (flow.check().state, flow.tree()["call"]) == ("waiting", "waiting")
    assert run_all(flow).state == "completed"
    rows = flow.output("call")
    assert [(row["block_id"], row["output"]) for row in rows] == [("a", {"message": 7}), ("b", {"message": "two"})]
    assert flow.row_ids() == ["call", "after"]
    assert flow.tree() == {"call": "completed", "after": "completed"}


def test_s3_8_rows_of_interceptors_are_no_rows_of_the_child(world: World) -> None:
    world.define("child", [step("a")], interceptors={"before_step": {"handler": "noop"}}, sla={"max_runtime": 1000})
    flow = world.start([CALL])
    only_child(flow).ring()
    assert run_all(flow).state == "completed"
    assert [row["block_id"] for row in flow.output("call")] == ["a"]
    assert "_sla:runtime" in only_child(flow).row_ids()


def test_s3_8_child_inherits_config_priority_zone_and_dry_run(world: World) -> None:
    world.define("child", [step("a", wait_for_input={})])
    flow = world.start([CALL], config={"c": 1}, priority=3, timezone="Europe/Berlin", dry_run=True)
    child = only_child(flow)
    found = child.check().instance
    assert world.context(child.id) == ({}, {"c": 1})
    assert (found.priority, found.timezone, found.dry_run, found.depth) == (3, "Europe/Berlin", True, 1)
    assert found.parent is not None
    assert (found.parent.instance_id, found.parent.key.block_id, child.state) == (flow.id, "call", "waiting")


def test_s3_8_outputs_of_the_child_are_read_by_block_id(world: World) -> None:
    world.define("child", [say("a", "old"), loop("l", [say("again", "{{ data.word }}")], max_iterations=2)])
    flow = world.start(
        [
            sub_sequence("call", "child", input={"word": "hi"}),
            say("text", "{{ outputs.call.again.message }} {{ outputs.call.0.output.message }}"),
            step("skipped", when="outputs.call.again.message == 'no'"),
            step("taken", when="outputs.call.a.message == 'old'"),
        ]
    )
    assert run_all(flow).output("text") == {"message": "hi old"}
    assert (flow.tree()["skipped"], flow.tree()["taken"]) == ("skipped", "completed")


def test_s3_8_a_child_without_rows_gives_an_empty_array(world: World) -> None:
    world.define("child", [step("never", when="false")])
    flow = world.start([CALL, step("after")])
    assert run_all(flow).outputs("call") == [[]]
    assert flow.state == "completed"


def test_s3_8_newest_version_unless_one_is_named(world: World) -> None:
    world.define("child", [say("a", "one")], version=1)
    world.define("child", [say("a", "two")], version=2)
    flow = world.start([sub_sequence("newest", "child"), sub_sequence("first", "child", version=1)])
    run_all(flow)
    assert [flow.output(name)[0]["output"]["message"] for name in ("newest", "first")] == ["two", "one"]


@pytest.mark.parametrize("version", [None, 9])
def test_s3_8_unknown_sequence_fails_the_block_catchably(world: World, version: int | None) -> None:
    if version is not None:
        world.define("child", [step("a")])
    flow = world.start([try_catch("t", [sub_sequence("call", "child", version=version)], [step("caught")])])
    assert (run_all(flow).state, flow.row_ids(), flow.children()) == ("completed", ["caught"], [])
    assert "not found: child" in flow.data["_error"]["message"]


def test_s3_8_input_schema_of_the_child_applies(world: World) -> None:
    world.define("child", [step("a")], input_schema={"type": "object", "required": ["x"]})
    flow = world.start([CALL])
    assert (flow.check().state, flow.children()) == ("failed", [])
    good = world.start([sub_sequence("call", "child", input={"x": None})])
    assert run_all(good).state == "completed"


def test_s3_8_bad_template_in_the_input_fails_the_block(world: World) -> None:
    world.define("child", [step("a")])
    flow = world.start([sub_sequence("call", "child", input="{{ nowhere.x }}")])
    assert (flow.check().state, flow.children()) == ("failed", [])


def test_s3_8_nesting_ends_at_a_depth_of_sixteen(world: World) -> None:
    world.define("child", [CALL])
    flow = world.start([CALL])
    generations = family(flow)
    assert [each.instance.depth for each in generations] == list(range(MAX_DEPTH + 1))
    assert {each.check().state for each in generations} == {"failed"}
    assert world.moves(generations[-1].id)[-1] == ("running", "failed")


def test_s3_8_every_iteration_has_a_child_of_its_own(world: World) -> None:
    world.define("child", [say("a", "{{ data.item }}")])
    call = sub_sequence("call", "child", input={"item": "{{ item }}"})
    flow = world.start([for_each("f", "items", [call], concurrency=2), step("after")], data={"items": [1, 2, 3]})
    assert len(flow.check().children()) == 2
    assert run_all(flow).state == "completed"
    assert len(flow.children()) == 3
    assert sorted(rows[0]["output"]["message"] for rows in flow.outputs("call")) == [1, 2, 3]


def test_s3_8_a_loop_over_children_that_end_at_once_comes_to_its_end(world: World) -> None:
    world.define("child", [step("never", when="false")])
    flow = world.start([loop("l", [CALL], max_iterations=30)])
    world.deliver_mail()
    assert (flow.check().state, len(flow.rows("call"))) == ("completed", 30)


def test_s3_8_children_in_branches_run_side_by_side(world: World) -> None:
    world.define("child", [ext("a")])
    flow = world.start([parallel("p", [sub_sequence("one", "child")], [sub_sequence("two", "child")], [step("own")])])
    assert flow.state == "running"
    assert flow.run().check().state == "waiting"
    first, second = flow.children()
    first.complete("a")
    assert (flow.check().state, flow.tree()["one"], flow.tree()["two"]) == ("waiting", "completed", "waiting")
    second.complete("a")
    assert flow.check().state == "completed"


# -- how it ends --------------------------------------------------------------------------------------------------


def test_s3_8_failed_child_fails_the_block(world: World) -> None:
    world.define("child", [fail("a", "broken")])
    flow = world.start([CALL, step("after")])
    assert (run_all(flow).state, flow.rows()) == ("failed", [])
    caught = world.start([try_catch("t", [CALL], [say("c", "{{ data._error.message }}")])])
    assert run_all(caught).state == "completed"
    assert caught.output("c")["message"].endswith("failed: broken")
    assert caught.data["_error"]["details"]["state"] == "failed"


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_s3_8_child_whose_state_is_set_by_hand_wakes_its_parent(world: World, state: str) -> None:
    world.define("child", [ext("a")])
    flow = world.start([try_catch("t", [CALL], [step("caught")]), step("after")])
    only_child(flow).force(state) if state != "completed" else only_child(flow).complete("a")
    assert run_all(flow).state == "completed"
    assert flow.tree()["caught"] == ("skipped" if state == "completed" else "completed")


def test_s3_8_cancelled_child_fails_the_block(world: World) -> None:
    world.define("child", [ext("a")])
    flow = world.start([CALL])
    only_child(flow).cancel()
    assert flow.check().state == "failed"


def test_s9_5_cancelling_the_parent_cancels_children_and_grandchildren(world: World) -> None:
    world.define("middle", [sub_sequence("inner", "child")])
    world.define("child", [ext("a")])
    flow = world.start([sub_sequence("call", "middle")])
    flow.cancel()
    assert [each.check().state for each in family(flow)] == ["cancelled"] * 3
    assert flow.tree() == {"call": "cancelled"}


def test_s9_5_a_child_in_a_finally_list_is_shielded(world: World) -> None:
    world.define("child", [ext("a")])
    flow = world.start([try_catch("t", [ext("x")], [], [CALL]), step("after")])
    flow.cancel()
    assert (flow.check().state, only_child(flow).state) == ("waiting", "waiting")
    only_child(flow).complete("a")
    assert (flow.check().state, only_child(flow).state, flow.tree()["after"]) == ("cancelled", "completed", "cancelled")


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_s9_2_a_parent_whose_state_is_set_by_hand_ends_its_children(world: World, state: str) -> None:
    world.define("child", [ext("a")])
    flow = world.start([CALL]).force(state)
    assert (flow.check().state, only_child(flow).check().state) == (state, "cancelled")


def test_s3_2_failing_fast_cancels_the_child_of_a_sibling(world: World) -> None:
    world.define("child", [ext("a")])
    flow = world.start([parallel("p", [CALL], [fail("f")], failure_policy="fail_fast")])
    child = only_child(flow)
    flow.run()
    assert (flow.check().state, child.check().state) == ("failed", "cancelled")


def test_s3_3_a_lost_race_cancels_the_child(world: World) -> None:
    world.define("child", [ext("a")])
    race = {"type": "race", "id": "r", "branches": [[CALL], [step("quick")]]}
    flow = world.start([race, step("after")])
    child = only_child(flow)
    assert run_all(flow).state == "completed"
    assert (child.check().state, flow.tree()["call"], flow.rows("call")) == ("cancelled", "cancelled", [])


def test_s3_10_a_cancellation_scope_shields_the_child(world: World) -> None:
    world.define("child", [ext("a")])
    flow = world.start([{"type": "cancellation_scope", "id": "s", "blocks": [CALL]}, step("after")])
    flow.cancel()
    child = only_child(flow)
    assert (flow.check().state, child.state) == ("waiting", "waiting")
    child.complete("a")
    assert (flow.check().state, child.state, flow.row_ids()) == ("cancelled", "completed", ["call"])


def test_s3_11_a_failed_child_rolls_a_saga_back(world: World) -> None:
    world.define("child", [fail("a", "broken")])
    steps = [{"id": "one", "action": step("do"), "compensation": step("undo")}, {"id": "two", "action": CALL}]
    flow = world.start([{"type": "saga", "id": "s", "steps": steps}])
    assert run_all(flow).state == "failed"
    assert (flow.row_ids(), flow.data["_error"]["failed_step"]) == (["do", "undo"], "two")


def test_s9_7_retry_starts_a_new_child_for_the_failed_block_only(world: World) -> None:
    world.define("child", [ext("a")])
    flow = world.start([sub_sequence("one", "child"), sub_sequence("two", "child"), step("after")])
    flow.children()[0].complete("a")
    flow.children()[1].fail("a")
    assert flow.check().state == "failed"
    flow.retry()
    assert (flow.check().state, len(flow.children())) == ("waiting", 3)
    flow.children()[2].complete("a")
    assert run_all(flow).state == "completed"
    assert flow.row_ids() == ["one", "two", "after"]


def test_s9_7_a_retried_child_no_longer_concerns_its_parent(world: World) -> None:
    world.define("child", [ext("a")])
    flow = world.start([try_catch("t", [CALL], [ext("c")])])
    child = only_child(flow)
    child.fail("a")
    child.retry().complete("a")
    assert (child.check().state, flow.check().state, flow.rows()) == ("completed", "waiting", [])


def test_s9_4_pause_of_a_waiting_parent_holds_what_comes_after_the_child(world: World) -> None:
    world.define("child", [ext("a")])
    flow = world.start([CALL, sub_sequence("next", "child"), step("after")])
    flow.pause()
    assert flow.check().state == "waiting"
    flow.children()[0].complete("a")
    assert (flow.check().state, len(flow.children())) == ("paused", 1)
    flow.resume()
    assert (flow.check().state, len(flow.children())) == ("waiting", 2)
    flow.children()[1].complete("a")
    assert run_all(flow).state == "completed"


def test_s9_4_cancel_of_a_parent_that_is_paused_before_its_child(world: World) -> None:
    world.define("child", [ext("a")])
    flow = world.start([ext("x"), CALL]).pause()
    flow.complete("x")
    assert flow.check().state == "paused"
    assert (flow.cancel().check().state, flow.children()) == ("cancelled", [])


# -- crashes ------------------------------------------------------------------------------------------------------


def test_s3_8_a_death_right_after_each_commit_loses_nothing(world: World) -> None:
    world.define("child", [ext("a")])
    world.hold_mail()
    flow = world.start([CALL, step("after")])
    child = only_child(flow)
    assert (child.check().state, child.steps()) == ("scheduled", [])
    world.deliver_mail()
    world.hold_mail()
    child.complete("a")
    assert (child.state, flow.check().state) == ("completed", "waiting")
    world.deliver_mail()
    assert run_all(flow).state == "completed"
    assert flow.row_ids() == ["call", "after"]


def test_s9_5_cancel_and_the_end_of_the_child_cross(world: World) -> None:
    world.define("child", [ext("a")])
    flow = world.start([CALL])
    child = only_child(flow)
    world.hold_mail()
    child.complete("a")
    flow.cancel()
    world.deliver_mail()
    assert (flow.check().state, child.check().state, flow.rows()) == ("cancelled", "completed", [])


def test_s9_5_a_child_that_has_not_started_can_be_cancelled(world: World) -> None:
    world.define("child", [ext("a")])
    world.hold_mail()
    flow = world.start([CALL]).cancel()
    world.deliver_mail()
    assert [each.check().state for each in family(flow)] == ["cancelled", "cancelled"]


def test_s3_8_late_outcome_of_a_child_that_was_forced_is_dropped(world: World) -> None:
    world.define("child", [ext("a")])
    flow = world.start([CALL, step("after")])
    child = only_child(flow)
    claim = child.claim("a")
    child.force("failed")
    child.finish(claim, Completed(output={"x": 1}))
    assert (flow.check().state, child.rows()) == ("failed", [])


def test_s9_4_a_signal_to_an_ended_child_is_refused(world: World) -> None:
    world.define("child", [step("a")])
    flow = world.start([CALL])
    run_all(flow)
    with pytest.raises(InvalidArgument, match="terminal"):
        only_child(flow).cancel()
