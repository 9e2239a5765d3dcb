"""Sections 8 to 10: context, signals, pausing, cancelling, retrying, the tree."""

from datetime import timedelta

import pytest

from orchestrator.core.model import ROOT_KEY
from orchestrator.errors import InvalidArgument
from tests.support.drive import (
    Completed,
    PureWorld,
    World,
    ext,
    fail,
    for_each,
    gate,
    loop,
    parallel,
    say,
    scope,
    step,
    try_catch,
)

NAP = step("nap", "sleep", {"duration_ms": 60_000})


# -- 8 context -------------------------------------------------------------------------------------------------------


def test_s8_1_worker_output_merges(world: World) -> None:
    flow = world.start([ext("a"), say("b", "{{ data.x }}{{ data.y }}")], data={"x": 1, "deep": {"k": 1}})
    flow.complete("a", {"y": 2, "deep": {"l": 2}})
    assert flow.run().check().data == {"x": 1, "y": 2, "deep": {"l": 2}}
    assert flow.output("b") == {"message": "12"}


def test_s8_1_change_made_while_a_step_runs_survives_its_end(world: World) -> None:
    flow = world.start([ext("a")], data={"x": 1})
    claim = flow.claim("a")
    flow.signal("update_context", {"data": {"x": 2, "z": 3}, "config": {"no": 1}})
    flow.finish(claim, Completed(output={"y": 1}, merges=True))
    assert flow.check().data == {"x": 2, "z": 3, "y": 1}


def test_s8_1_context_can_be_replaced_after_the_end(world: World) -> None:
    flow = world.start([step("a")]).run()
    world.replace_context(flow.id, {"n": 1}, {"c": 1})
    assert (flow.check().state, world.context(flow.id)) == ("completed", ({"n": 1}, {"c": 1}))


def test_s8_2_hidden_sections_are_empty_for_the_step(world: World) -> None:
    access = {"data": {"fields": ["a"]}, "config": False}
    message = "{{ data.a }}-{{ data.b | hidden }}-{{ config.c | hidden }}"
    flow = world.start([say("s", message, context_access=access)], data={"a": 1, "b": 2}, config={"c": 3}).run()
    assert flow.check().output("s") == {"message": "1-hidden-hidden"}


def test_s8_3_three_steps_leave_three_rows(world: World) -> None:
    flow = world.start([step("a"), step("b"), step("c")]).run(carry=True)
    assert flow.check().row_ids() == ["a", "b", "c"]


def test_s8_4_state_is_kept_over_a_retry(world: World) -> None:
    body = [step("set", "set_state", {"key": "k", "value": {"v": 1}}), ext("x"), say("s", "{{ state.k.v }}")]
    flow = world.start(body).run()
    flow.fail("x")
    world.restart()
    flow.retry().complete("x")
    assert flow.run().check().output("s") == {"message": 1}
    assert flow.kv == {"k": {"v": 1}}


# -- 9.4 signals -----------------------------------------------------------------------------------------------------

STANDING = {
    "delayed": ([step("a", delay={"duration": 60_000})], "scheduled"),
    "asleep": ([NAP], "running"),
    "task": ([ext("a")], "waiting"),
    "gate": ([gate("a")], "waiting"),
    "backoff": (
        [fail("a", retryable=True, retry={"max_attempts": 2, "initial_backoff": 9000, "max_backoff": 9000})],
        "scheduled",
    ),
    "polling": ([loop("l", [step("a")], poll_interval=60)], "scheduled"),
}


@pytest.mark.parametrize("where", STANDING)
def test_s9_4_pause_and_resume_wherever_a_flow_stands(world: World, where: str) -> None:
    blocks, state = STANDING[where]
    flow = world.start(blocks).run()
    assert flow.check().state == state
    before = world.timers(flow.id)
    flow.pause()
    assert flow.check().state == ("waiting" if state == "waiting" else "paused")
    flow.signal("update_context", {"data": {"k": 1}})
    assert flow.check().state == ("waiting" if state == "waiting" else "paused")
    world.restart()
    flow.resume()
    assert flow.run().check().state == state
    if where != "asleep":
        assert world.timers(flow.id) == before


def test_s9_4_resume_makes_due_what_was_put_off_to_the_future(world: World) -> None:
    flow = world.start([step("a")], not_before=world.now() + timedelta(hours=1))
    flow.signal("update_context", {"data": {"k": 1}}).resume().pause()
    assert flow.run().check().state == "paused"
    flow.resume()
    assert (flow.run().check().state, flow.row_ids()) == ("completed", ["a"])


def test_s9_4_first_pick_up_waits_for_more_signals_after_a_resume() -> None:
    world = PureWorld(first_wait=timedelta(milliseconds=100))
    flow = world.start([step("a")], not_before=world.now() + timedelta(milliseconds=100))
    flow.pause().resume().pause().resume()
    assert (flow.run().check().state, flow.due_in()) == ("scheduled", 0.1)
    flow.pass_time()
    assert flow.run().check().state == "completed"


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("where", STANDING)
def test_s9_5_cancel_ends_a_flow_wherever_it_stands(world: World, where: str, *, paused: bool) -> None:
    flow = world.start(STANDING[where][0]).run()
    if paused:
        flow.pause()
    flow.cancel()
    assert flow.check().state == "cancelled"
    with pytest.raises(InvalidArgument, match="terminal"):
        flow.cancel()


def test_s9_4_burst_of_pause_resume_ends_unpaused(world: World) -> None:
    flow = world.start([NAP, step("a")]).run()
    flow.pause().resume().pause().resume()
    assert flow.settle().check().state == "completed"


def test_s9_4_pause_lets_a_running_handler_finish_first(world: World) -> None:
    flow = world.start([step("a"), step("b")])
    claim = flow.claim("a")
    flow.pause()
    assert flow.check().state == "running"
    flow.finish(claim, Completed(output={}))
    assert (flow.check().state, flow.standing()) == ("paused", {"b": "held"})
    assert flow.resume().run().check().state == "completed"


def test_s9_4_pause_of_a_waiting_flow_is_applied_when_the_wait_ends(world: World) -> None:
    flow = world.start([parallel("p", [ext("a"), step("b")], [ext("c")])])
    flow.pause()
    flow.complete("a")
    assert flow.check().state == "waiting"
    flow.complete("c")
    assert (flow.check().state, flow.row_ids()) == ("paused", ["a", "c"])
    assert flow.resume().run().check().state == "completed"


@pytest.mark.parametrize("nested", [False, True])
def test_s9_4_pause_is_applied_before_the_flow_may_finish(world: World, *, nested: bool) -> None:
    flow = world.start([try_catch("t", [ext("a")])] if nested else [ext("a")], data={})
    run_id = flow.instance.run_id
    flow.pause().complete("a", {"k": 1})
    assert (flow.check().state, flow.row_ids(), flow.data) == ("paused", ["a"], {"k": 1})
    assert flow.resume().check().state == "completed"
    assert (flow.row_ids(), flow.instance.run_id) == (["a"], run_id)


@pytest.mark.parametrize("is_paused", [False, True])
def test_s9_4_resume_before_the_end_leaves_the_rows_of_failures_that_were_caught(*, is_paused: bool) -> None:
    world = PureWorld()
    late = try_catch("t", [ext("f", deadline=1000)], [step("c")])
    flow = world.start([late, ext("a")])
    flow.pass_time()
    flow.run()
    if is_paused:
        flow.pause()
    flow.complete("a", {})
    if is_paused:
        assert flow.check().state == "paused"
        flow.resume()
    assert flow.check().state == "completed"
    assert flow.row_ids() == ["f", "c", "a"]


def test_s9_4_pause_does_not_put_off_a_failure(world: World) -> None:
    flow = world.start([ext("a")]).pause()
    flow.fail("a")
    assert flow.check().state == "failed"


def test_s9_4_custom_signal_without_a_gate_has_no_effect(world: World) -> None:
    flow = world.start([ext("a")])
    before = flow.steps()
    flow.signal({"custom": "hello"}, [1]).signal({"custom": "x"}).signal("update_context", {"data": 7})
    assert (flow.check().state, flow.steps(), flow.data) == ("waiting", before, {})


def test_s9_4_signal_never_brings_a_due_time_forward(world: World) -> None:
    flow = world.start([step("a", delay={"duration": 60_000})])
    flow.pause().resume().signal({"custom": "x"}, {}).signal("update_context", {"data": {}})
    assert flow.check().due_in() > 50


# -- 9.5 cancel ------------------------------------------------------------------------------------------------------


def test_s9_5_shielded_step_finishes_and_nothing_after_it_starts(world: World) -> None:
    flow = world.start([parallel("p", [ext("a", cancellable=False), step("b")], [ext("c")]), step("z")])
    flow.cancel()
    assert (flow.check().state, flow.standing()) == ("waiting", {"a": "ready"})
    world.restart()
    flow.complete("a")
    assert (flow.run().check().state, flow.row_ids()) == ("cancelled", ["a"])


def test_s9_5_late_result_of_a_cancelled_step_is_dropped(world: World) -> None:
    flow = world.start([parallel("p", [ext("a")], [ext("b", cancellable=False)])])
    claim = flow.claim("a")
    flow.cancel()
    flow.finish(claim, Completed(output={"late": 1}, merges=True))
    assert (flow.check().rows(), flow.data) == ([], {})


def test_s9_5_finally_at_every_depth_is_run(world: World) -> None:
    inner = try_catch("i", [ext("a")], [step("no")], [step("y")])
    flow = world.start(
        [try_catch("o", [for_each("e", "items", [inner])], [step("no2")], [step("z")])], data={"items": [1, 2]}
    )
    flow.cancel().run()
    assert (flow.check().state, flow.row_ids()) == ("cancelled", ["y", "z"])


def test_s9_5_catch_does_not_run_after_a_cancel(world: World) -> None:
    flow = world.start([try_catch("t", [ext("a")], [step("c")])])
    flow.cancel()
    assert (flow.check().state, flow.rows()) == ("cancelled", [])
    assert "_error" not in flow.data


# -- 9.2 states by hand ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_s9_2_state_set_by_hand_withdraws_the_work(world: World, state: str) -> None:
    flow = world.start([parallel("p", [NAP], [ext("a")])]).run()
    claim = flow.claim("a")
    flow.force(state)
    assert flow.check().state == state
    flow.finish(claim, Completed(output={}))
    assert flow.check().rows() == []
    assert set(flow.tree().values()) == {"cancelled"}


@pytest.mark.parametrize(
    ("source", "target"), [("waiting", "paused"), ("waiting", "completed"), ("completed", "failed")]
)
def test_s9_2_other_moves_are_refused(world: World, source: str, target: str) -> None:
    flow = world.start([ext("a")])
    if source == "completed":
        flow.complete("a")
    with pytest.raises(InvalidArgument, match=f"cannot transition from {source} to {target}"):
        flow.force(target)


def test_s9_2_paused_flow_set_to_scheduled_starts_at_once(world: World) -> None:
    later = world.now().replace(year=2050)
    flow = world.start([step("a")], not_before=later)
    assert flow.check().state == "scheduled"
    flow.force("paused").force("scheduled")
    assert flow.run().check().state == "completed"


@pytest.mark.parametrize("target", ["running", "scheduled"])
def test_s9_2_flow_set_to_waiting_waits_until_its_state_is_set_again(world: World, target: str) -> None:
    flow = world.start([NAP, step("z")]).run()
    assert flow.force("waiting").check().state == "waiting"
    assert flow.standing() == {"nap": "held"}
    flow.signal("update_context", {"data": {"k": 1}}).pass_time()
    assert (flow.check().state, flow.data) == ("waiting", {"k": 1})
    flow.force(target).run().pass_time()
    assert flow.run().check().state == "completed"


def test_s9_2_flow_set_to_waiting_keeps_the_task_it_waits_for(world: World) -> None:
    flow = world.start([parallel("p", [NAP], [ext("a")])]).run()
    assert flow.force("waiting").check().state == "waiting"
    assert flow.standing() == {"nap": "held", "a": "ready"}
    flow.complete("a", {})
    assert flow.check().state == "paused"
    assert flow.resume().run().check().state == "running"


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_s9_2_ended_flow_is_reopened_at_the_moment_that_was_given(world: World, state: str) -> None:
    later = world.now().replace(year=2050)
    flow = world.start([step("a"), NAP]).run().force(state)
    flow.force("scheduled", later)
    assert (flow.check().state, flow.standing(), world.timers(flow.id)) == ("scheduled", {}, {ROOT_KEY: later})
    flow.pass_time()
    assert flow.run().check().state == "running"
    flow.pass_time()
    assert [row.block_id for row in flow.run().check().rows()] == ["a", "nap"]


@pytest.mark.parametrize("state", ["paused", "waiting"])
def test_s9_2_cancel_that_shielded_work_puts_off_outlasts_a_state_set_by_hand(world: World, state: str) -> None:
    flow = world.start([scope("s", NAP), step("z")]).run().cancel()
    assert flow.force(state).check().state == state
    flow.force("scheduled").run().pass_time()
    assert (flow.check().state, flow.row_ids(), flow.tree()["z"]) == ("cancelled", ["nap"], "cancelled")


# -- 9.7 retry -------------------------------------------------------------------------------------------------------


def test_s9_7_only_failed_flows_can_be_retried(world: World) -> None:
    flow = world.start([ext("a")])
    with pytest.raises(InvalidArgument, match="can only retry failed"):
        flow.retry()
    flow.complete("a")
    with pytest.raises(InvalidArgument, match="can only retry failed"):
        flow.retry()


def test_s9_7_retry_is_repeatable_and_drops_only_the_error_row(world: World) -> None:
    flow = world.start([step("a"), fail("f")]).run()
    runs = {flow.instance.run_id}
    for _ in range(3):
        assert [(row.block_id, row.ref) for row in flow.rows()] == [("a", None), ("f", "__error__")]
        flow.retry()
        runs.add(flow.instance.run_id)
        assert flow.check().row_ids() == ["a"]
        assert flow.run().check().state == "failed"
    assert len(runs) == 4
    assert flow.executed() == ["a", "f", "f", "f", "f"]


def test_s9_7_attempt_counters_start_anew(world: World) -> None:
    flow = world.start([ext("a", retry={"max_attempts": 2, "initial_backoff": 10, "max_backoff": 10})])
    for _ in range(2):
        flow.fail("a", retryable=True)
        flow.pass_time()
        assert flow.steps()[0].attempt == 1
        flow.fail("a", retryable=True)
        assert flow.check().state == "failed"
        flow.retry()
    assert flow.steps()[0].attempt == 0


# -- 10 tree -----------------------------------------------------------------------------------------------------------


def test_s10_running_and_waiting_nodes_are_shown_while_the_flow_runs(world: World) -> None:
    flow = world.start(
        [parallel("p", [NAP], [ext("a")], [gate("g")], [step("d", delay={"duration": 60_000})]), step("z")]
    )
    flow.run()
    expected = {"p": "running", "nap": "running", "a": "waiting", "g": "waiting", "d": "pending", "z": "pending"}
    assert flow.check().tree() == expected
