"""Section 14: interceptors, hooks and alerts; what is called beside the flow and never moves it."""

from typing import Any

import pytest

from tests.support.drive import (
    Completed,
    Failed,
    Flow,
    World,
    ext,
    fail,
    for_each,
    gate,
    loop,
    parallel,
    say,
    step,
    try_catch,
)

SAY = {"handler": "log", "params": {"message": "{{ step.id }}"}}


def intercepted(**interceptors: Any) -> dict[str, Any]:
    return {"interceptors": interceptors}


# -- interceptors: rows ----------------------------------------------------------------------------------------------


def test_s14_rows_stand_around_the_row_of_each_step_at_every_depth(world: World) -> None:
    members = intercepted(before_step=SAY, after_step=SAY)
    flow = world.start(
        [step("a"), loop("l", [step("b")], max_iterations=2), parallel("p", [step("c")])], members=members
    )
    flow.run()
    assert flow.check().state == "completed"
    rows = [row for row in flow.row_ids() if row != "l"]
    around = lambda block: [f"_interceptor:before:{block}", block, f"_interceptor:after:{block}"]  # noqa: E731
    assert rows == [*around("a"), *around("b"), *around("b"), *around("c")]
    assert flow.output("_interceptor:before:c") == {"message": "c", "_result": {"message": "c"}}


def test_s14_a_skipped_step_is_not_intercepted(world: World) -> None:
    flow = world.start([step("a", when="false")], members=intercepted(before_step=SAY, after_step=SAY)).run()
    assert (flow.check().state, flow.rows()) == ("completed", [])


def test_s14_a_step_is_announced_once_however_often_it_is_tried(world: World) -> None:
    retry = {"max_attempts": 3, "initial_backoff": 1, "max_backoff": 1}
    flow = world.start([ext("a", retry=retry)], members=intercepted(before_step=SAY, after_step=SAY))
    flow.lose(flow.claim("a"))
    flow.fail("a", retryable=True)
    flow.pass_time()
    flow.pause().resume()
    flow.complete("a")
    flow.run()
    assert flow.check().row_ids() == ["_interceptor:before:a", "a", "_interceptor:after:a"]


def test_s14_params_read_step_instance_and_the_context(world: World) -> None:
    params = {
        "step": "{{ step }}",
        "of": "{{ instance.id }}",
        "x": "{{ data.x }}",
        "none": "{{ signal.type | no signal }}",
    }
    hooks = intercepted(
        before_step={"handler": "noop", "params": params}, after_step={"handler": "noop", "params": params}
    )
    flow = world.start([say("a", "{{ data.x }}!")], data={"x": 1}, members=hooks).run()
    before, _, after = flow.rows()
    seen = {"id": "a", "handler": "log", "params": {"message": "1!"}, "output": None, "error": None, "attempt": 0}
    assert before.output == {"step": seen, "of": str(flow.id), "x": 1, "none": "no signal"}
    assert after.output["step"] == {**seen, "output": {"message": "1!"}}


def test_s14_a_wrong_template_is_noted_and_changes_nothing(world: World) -> None:
    flow = world.start([step("a")], members=intercepted(before_step={"handler": "noop", "params": "{{ nowhere.x }}"}))
    flow.run()
    assert (flow.check().state, flow.row_ids()) == ("completed", ["_interceptor:before:a", "a"])
    assert "unknown template root" in flow.output("_interceptor:before:a")["_error"]


def test_s14_an_error_of_the_handler_is_kept_and_changes_nothing(world: World) -> None:
    flow = world.start([step("a")], members=intercepted(before_step={"handler": "fail", "params": {"message": "no"}}))
    flow.run()
    assert flow.check().state == "completed"
    assert flow.output("_interceptor:before:a") == {"message": "no", "_error": "no"}


def test_s14_a_handler_that_nobody_can_run_is_noted(world: World) -> None:
    flow = world.start([step("a")], members=intercepted(before_step={"handler": "wasm://x"})).run()
    assert flow.check().state == "completed"
    assert "outside this product" in flow.output("_interceptor:before:a")["_error"]
    assert flow.asides() == []


def test_s14_an_external_worker_is_not_waited_for(world: World) -> None:
    flow = world.start([step("a")], members=intercepted(after_step={"handler": "outside", "params": {"k": 1}})).run()
    assert (flow.check().state, flow.output("_interceptor:after:a")) == ("completed", {"k": 1})
    flow.answer_call("_interceptor:after:a", Completed(output={"seen": True}, merges=True))
    assert flow.output("_interceptor:after:a") == {"k": 1, "_result": {"seen": True}}
    assert (flow.check().state, flow.data) == ("completed", {})


def test_s14_a_call_that_nobody_takes_ends_after_a_day(world: World) -> None:
    flow = world.start([step("a")], members=intercepted(before_step={"handler": "outside"})).run()
    flow.ring()
    assert (flow.check().state, flow.asides()) == ("completed", [])
    assert "24 hours" in flow.output("_interceptor:before:a")["_error"]


def test_s14_effects_of_an_interceptor_are_kept(world: World) -> None:
    note = {"handler": "set_state", "params": {"key": "last", "value": "{{ step.id }}"}}
    flow = world.start([step("a"), step("b")], members=intercepted(before_step=note)).run()
    assert flow.check().kv == {"last": "b"}


def test_s14_calls_do_not_count_as_steps_and_survive_pause_and_cancel(world: World) -> None:
    flow = world.start([ext("a")], members=intercepted(on_signal={"handler": "outside"}))
    flow.pause().cancel()
    assert (flow.check().state, len(flow.asides()), flow.instance.total_steps) == ("cancelled", 2, 0)


def test_s14_a_dead_worker_gives_its_call_to_another(world: World) -> None:
    flow = world.start([step("a")], members=intercepted(on_complete={"handler": "outside"})).run()
    claim = world.claim(flow.id, flow.asides()[0])
    assert claim is not None
    assert flow.lose(claim)
    assert not flow.lose(claim)
    flow.answer_call("_interceptor:on_complete", Completed(output=1))
    assert flow.output("_interceptor:on_complete") == {"_result": 1}


# -- after_step may replace the output -------------------------------------------------------------------------------

HIDE = {"handler": "transform", "params": {"output": {"card": "***"}, "of": "{{ step.id }}"}}


def test_s14_after_step_replaces_the_output_before_it_is_stored(world: World) -> None:
    blocks = [ext("a"), say("b", "{{ outputs.a.card }} {{ data.card }}")]
    flow = world.start(blocks, members=intercepted(after_step=HIDE))
    flow.complete("a", {"card": "4711"})
    assert (flow.state, flow.rows(), flow.standing()) == ("running", [], {"a": "intercepted"})
    world.restart()
    flow.run()
    assert flow.check().state == "completed"
    assert flow.outputs("a") == [{"card": "***"}]
    assert flow.data == {"card": "***"}
    assert "4711" not in repr(flow.rows())


def test_s14_an_output_is_held_back_for_thirty_seconds_at_the_most(world: World) -> None:
    flow = world.start([ext("a"), ext("b")], members=intercepted(after_step=HIDE))
    flow.complete("a", {"card": "4711"})
    assert flow.due_in("a") == pytest.approx(30, abs=15)
    flow.pass_time()
    assert (flow.check().state, flow.output("a"), flow.standing()) == ("waiting", {"card": "4711"}, {"b": "ready"})
    flow.run()
    assert flow.output("a") == {"card": "4711"}
    assert flow.output("_interceptor:after:a")["_result"]["output"] == {"card": "***"}


def test_s14_a_replacement_that_cannot_be_stored_is_noted(world: World) -> None:
    flow = world.start([step("a", output_schema={"maxProperties": 0})], members=intercepted(after_step=HIDE)).run()
    assert (flow.check().state, flow.output("a")) == ("completed", {})
    assert "output_schema" in flow.output("_interceptor:after:a")["_error"]


@pytest.mark.parametrize("act", ["cancel", "pause", "force"])
def test_s14_nothing_is_stranded_while_an_output_is_held_back(world: World, act: str) -> None:
    flow = world.start([ext("a"), step("b")], members=intercepted(after_step=HIDE))
    flow.complete("a", {})
    if act == "force":
        flow.force("paused")
        assert (flow.check().state, flow.standing(), len(flow.rows("a"))) == ("paused", {"b": "held"}, 1)
        flow.resume()
    else:
        flow.signal(act)
        flow.run()
    if act == "pause":
        assert (flow.check().state, flow.standing()) == ("paused", {"b": "held"})
        flow.resume()
    flow.run()
    assert flow.check().state == ("cancelled" if act == "cancel" else "completed")


# -- signals and ends ------------------------------------------------------------------------------------------------


def test_s14_every_accepted_signal_leaves_a_row(world: World) -> None:
    hook = {"handler": "noop", "params": {"type": "{{ signal.type }}"}}
    flow = world.start([ext("a")], members=intercepted(on_signal=hook, on_complete={"handler": "noop"}))
    flow.signal("update_context", {"data": {"x": 1}}).signal({"custom": "hi"}, [1]).pause().resume()
    flow.complete("a")
    flow.run()
    rows = flow.check().outputs("_interceptor:on_signal")
    assert [row["_signal"] for row in rows] == [
        {"signal_type": "update_context", "payload": {"data": {"x": 1}}},
        {"signal_type": {"custom": "hi"}, "payload": [1]},
        {"signal_type": "pause", "payload": None},
        {"signal_type": "resume", "payload": None},
    ]
    assert rows[0]["type"] == "update_context"
    assert flow.row_ids()[-1] == "_interceptor:on_complete"


def test_s14_a_signal_right_after_creation_leaves_its_row(world: World) -> None:
    flow = world.start([step("a")], members=intercepted(on_signal={"handler": "noop"}))
    flow.cancel()
    assert flow.check().row_ids() == ["_interceptor:on_signal"]


def test_s14_on_complete_stands_when_the_end_can_be_seen(world: World) -> None:
    flow = world.start(
        [ext("a")], members=intercepted(on_complete={"handler": "outside", "params": "{{ instance.state }}"})
    )
    flow.complete("a")
    assert (flow.check().state, flow.row_ids()) == ("completed", ["a", "_interceptor:on_complete"])
    assert flow.output("_interceptor:on_complete") == {"params": "completed"}


def test_s14_on_failure_reads_the_error(world: World) -> None:
    hook = {"handler": "noop", "params": {"why": "{{ error.message | unknown }}", "where": "{{ step.id }}"}}
    flow = world.start([fail("f", "no")], members=intercepted(on_failure=hook, on_complete=hook)).run()
    assert (flow.check().state, flow.row_ids()) == (
        "failed",
        ["f", "_interceptor:on_failure"],
    )
    assert flow.output("_interceptor:on_failure") == {"why": "no", "where": "f"}
    forced = world.start([ext("a")], members=intercepted(on_failure=hook)).force("failed")
    assert forced.output("_interceptor:on_failure") == {"why": "unknown", "where": None}


def test_s8_3_rows_of_interceptors_are_never_read_by_templates(world: World) -> None:
    blocks = [step("a"), say("b", "{{ outputs }}")]
    flow = world.start(blocks, members=intercepted(before_step=SAY)).run()
    assert list(flow.check().output("b")["message"]) == ["a"]


# -- hooks -----------------------------------------------------------------------------------------------------------


def cleaned(world: World, *hook: Any, blocks: Any = None, name: str = "on_failure") -> Flow:
    return world.start(blocks or [fail("f", "no")], members={name: list(hook)})


def test_s14_each_root_step_of_the_hook_runs_once_in_order(world: World) -> None:
    flow = cleaned(world, step("x"), fail("y"), parallel("p", [step("in")]), say("z", "{{ error.message }}"))
    flow.run()
    assert flow.executed() == ["f", "x", "y", "z"]
    assert (flow.check().state, flow.row_ids()) == ("failed", ["f", "x", "z"])
    assert flow.output("z") == {"message": "no"}
    assert flow.asides() == []


def test_s14_what_a_hook_writes_is_of_no_block_although_one_has_its_id(world: World) -> None:
    hook = [
        step("a", "transform", {"target": "data.item", "value": 1}),
        step("c", "transform", {"target": "data._error.more", "value": 2}),
    ]
    handled = [try_catch(name, [fail(f"fail_{name}", name)], [step(block)]) for name, block in (("t", "c"), ("u", "d"))]
    flow = cleaned(world, *hook, blocks=[for_each("e", "items", [step("a")]), *handled, fail("f")]).run()
    assert flow.check().state == "failed"
    assert (flow.data["item"], flow.data["_error"]["message"], flow.data["_error"]["more"]) == (1, "u", 2)


def test_s14_guards_delays_retries_and_gates_do_not_apply_in_hooks(world: World) -> None:
    retry = {"max_attempts": 3, "initial_backoff": 1, "max_backoff": 1}
    flow = cleaned(
        world,
        step("x", when="false", delay={"duration": 60_000}),
        gate("y"),
        fail("z", retryable=True, retry=retry),
        step("last"),
    ).run()
    assert (flow.check().row_ids(), flow.executed().count("z")) == (["f", "x", "y", "last"], 1)


def test_s14_a_sleep_in_a_hook_is_waited_for_as_long_as_it_may_be(world: World) -> None:
    flow = cleaned(
        world, step("x", "sleep", {"duration_ms": 50}), step("y", "sleep", {"duration_ms": 40_000}), step("z")
    )
    flow.run()
    assert flow.row_ids() == ["f"]
    flow.ring().run()
    assert (flow.check().state, flow.row_ids()) == ("failed", ["f", "x", "z"])


def test_s14_external_steps_of_a_hook_are_queued_without_waiting(world: World) -> None:
    flow = cleaned(world, ext("x", queue_name="q"), step("y")).run()
    assert flow.row_ids() == ["f", "y"]
    assert [(call.queue, call.is_queue_named) for call in flow.asides("x")] == [("q", True)]
    flow.answer_call("x", Completed(output={"done": 1}, merges=True))
    assert (flow.check().state, flow.output("x"), flow.data) == ("failed", {"done": 1}, {})
    assert flow.row_ids() == ["f", "y", "x"]


def test_s14_on_cancel_runs_after_a_cancel_and_on_failure_does_not(world: World) -> None:
    members = {"on_cancel": [step("undo")], "on_failure": [step("no")]}
    flow = world.start([ext("a")], members=members).cancel().run()
    assert (flow.check().state, flow.row_ids()) == ("cancelled", ["undo"])
    assert world.start([step("a")], members=members).run().row_ids() == ["a"]


def test_s9_7_a_retry_after_hooks_is_exact(world: World) -> None:
    """A hook may use ids of the flow: its rows are no outputs of these steps, and none of them is taken for done."""
    blocks = [step("a"), ext("b"), say("c", "{{ outputs.a }}{{ outputs.b.v }}")]
    flow = cleaned(world, step("b"), say("a", "cleaned"), blocks=blocks).run()
    flow.fail("b")
    flow.run()
    assert flow.check().row_ids() == ["a", "b", "a"]
    flow.retry()
    flow.complete("b", {"v": 2})
    world.restart()
    flow.run()
    assert (flow.check().state, flow.output("c")) == ("completed", {"message": "{}2"})
    assert flow.executed().count("a") == 2


def test_s9_7_a_retry_forgets_what_a_hook_has_not_begun(world: World) -> None:
    flow = cleaned(world, step("x"), step("y"), blocks=[ext("a")])
    flow.fail("a")
    flow.retry()
    assert flow.check().asides() == []
    flow.fail("a")
    flow.run()
    assert flow.check().row_ids() == ["x", "y"]


def test_s14_a_hook_step_that_ends_after_a_retry_starts_no_other(world: World) -> None:
    flow = cleaned(world, step("x"), step("y"), blocks=[ext("a")])
    flow.fail("a")
    claim = world.claim(flow.id, flow.asides()[0])
    assert claim is not None
    flow.retry()
    flow.finish(claim, Completed(output={}))
    assert (flow.check().state, flow.asides(), flow.row_ids()) == ("waiting", [], ["x"])


# -- alerts ----------------------------------------------------------------------------------------------------------


def test_s14_sla_runtime_is_alerted_once_and_the_flow_goes_on(world: World) -> None:
    flow = world.start([ext("a"), step("b")], members={"sla": {"max_runtime": 5_000}})
    before = flow.instance.state
    flow.ring()
    assert (flow.check().state, world.alarms(flow.id)) == (before, {})
    (event,) = world.events(flow.id)
    assert event[0] == "sla_breached"
    assert (event[1]["type"], event[1]["limit_ms"]) == ("max_runtime", 5000)
    assert 5000 <= event[1]["elapsed_ms"] < 60_000
    flow.fail("a")
    flow.retry()
    assert len(world.alarms(flow.id)) == 1
    flow.ring()
    assert len(world.events(flow.id)) == 1
    flow.complete("a")
    flow.run()
    assert (flow.check().state, flow.row_ids()) == ("completed", ["_sla:runtime", "a", "b"])


def test_s14_sla_of_steps_is_alerted_once_for_each_step(world: World) -> None:
    blocks = [parallel("p", [loop("l", [ext("a")], max_iterations=2)], [ext("b")])]
    flow = world.start(blocks, members={"sla": {"max_step_runtime": 1000}})
    flow.ring().ring()
    flow.complete("a")
    flow.ring()
    flow.complete("a")
    flow.complete("b")
    assert (flow.check().state, world.alarms(flow.id)) == ("completed", {})
    assert [(kind, about["type"], about["step_id"]) for kind, about in world.events(flow.id)] == [
        ("sla_breached", "max_step_runtime", "a"),
        ("sla_breached", "max_step_runtime", "b"),
    ]
    assert [row for row in flow.row_ids() if row.startswith("_sla")] == ["_sla:step:a", "_sla:step:b"]


def test_s14_sla_counts_from_the_start_of_the_step_not_from_its_delay(world: World) -> None:
    flow = world.start([ext("a", delay={"duration": 600_000})], members={"sla": {"max_step_runtime": 1000}})
    assert world.alarms(flow.id) == {}
    flow.pass_time()
    flow.ring()
    assert world.events(flow.id)[0][1]["elapsed_ms"] < 60_000


def test_s14_an_alarm_leaves_no_trace_when_the_flow_was_quick(world: World) -> None:
    sla = {"max_runtime": 60_000, "max_step_runtime": 60_000}
    flow = world.start([step("a"), try_catch("t", [fail("f")])], members={"sla": sla}).run()
    assert (flow.check().state, world.alarms(flow.id), flow.row_ids()) == ("completed", {}, ["a"])


def test_s14_items_of_a_for_each_are_seen_by_interceptors(world: World) -> None:
    hook = {"handler": "noop", "params": {"item": "{{ item }}"}}
    flow = world.start(
        [for_each("e", "items", [step("a")])], data={"items": [1, 2]}, members=intercepted(before_step=hook)
    )
    flow.run()
    assert [row["item"] for row in flow.check().outputs("_interceptor:before:a")] == [1, 2]


def test_s14_a_late_report_of_a_call_is_lost(world: World) -> None:
    flow = world.start([step("a")], members=intercepted(on_complete={"handler": "outside"})).run()
    claim = world.claim(flow.id, flow.asides()[0])
    assert claim is not None
    flow.finish(claim, Failed(message="no", retryable=True))
    flow.finish(claim, Completed(output=1))
    assert flow.check().output("_interceptor:on_complete") == {"_error": "no"}
