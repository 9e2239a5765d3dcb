"""Section 5: guards, delays, results, human gates, retries."""

from datetime import timedelta

import pytest

from orchestrator.errors import InvalidArgument
from tests.support.drive import (
    Completed,
    Failed,
    PureWorld,
    World,
    ext,
    fail,
    for_each,
    gate,
    parallel,
    say,
    step,
    try_catch,
)

# -- 5.2 when --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guard", ["false", "missing.path", "  ", "unknown(1)", "[]"])
def test_s5_2_falsy_guard_skips_without_a_row(world: World, guard: str) -> None:
    flow = world.start([step("a", when=guard), step("b")]).run()
    assert (flow.check().state, flow.row_ids(), flow.tree()["a"]) == ("completed", ["b"], "skipped")
    assert flow.instance.total_steps == 1


@pytest.mark.parametrize("guard", ["((", "a b", "x ? 1"])
def test_s5_2_guard_that_cannot_be_read_fails_the_step(world: World, guard: str) -> None:
    flow = world.start([step("a", when=guard, retry={"max_attempts": 3, "initial_backoff": 1, "max_backoff": 1})])
    assert (flow.check().state, flow.executed()) == ("failed", [])


# -- 5.3 delay -------------------------------------------------------------------------------------------------------


def test_s5_3_delay_is_computed_once_and_survives_a_restart(world: World) -> None:
    flow = world.start([step("a", delay={"duration": 60_000, "jitter": 5_000})])
    due = world.timers(flow.id)
    world.restart()
    flow.signal("update_context", {"data": {"x": 1}})
    assert (flow.check().state, world.timers(flow.id)) == ("scheduled", due)
    assert flow.run().rows() == []
    flow.pass_time()
    assert flow.run().check().state == "completed"


def test_s13_3_window_comes_after_the_delay() -> None:
    """The clock stands on Monday noon; two days later it is Wednesday, when the window is shut."""
    window = {"start_hour": 9, "end_hour": 17, "days": [3]}
    flow = PureWorld().start([step("a", delay={"duration": 2 * 86_400_000}, send_window=window)])
    flow.pass_time()
    assert flow.check().standing() == {"a": "window"}
    flow.pass_time()
    assert flow.world.now().isoformat().startswith("2026-03-05T09:00:00")
    assert flow.run().state == "completed"


def test_s13_1_a_further_attempt_waits_for_the_window_too() -> None:
    """The clock stands on Monday noon; the window shuts at one, and the back-off takes three hours."""
    world = PureWorld()
    window = {"start_hour": 12, "end_hour": 13}
    retry = {"max_attempts": 2, "initial_backoff": "3h", "max_backoff": "3h"}
    flow = world.start([step("a", "fail", {"retryable": True}, retry=retry, send_window=window, deadline="9d")]).run()
    [first] = flow.steps("a")
    assert first.state == "backoff"
    flow.pass_time()
    [again] = flow.check().steps("a")
    assert (again.state, again.attempt) == ("window", 1)
    assert (again.started_at, again.deadline_at) == (first.started_at, first.deadline_at)
    flow.pass_time()
    assert (flow.run().check().state, flow.executed()) == ("failed", ["a", "a"])


# -- 5.4 results -----------------------------------------------------------------------------------------------------


def test_s5_4_root_failure_in_process_leaves_one_error_row(world: World) -> None:
    flow = world.start([fail("f", "no")]).run()
    assert [(row.output, row.ref) for row in flow.check().rows()] == [
        ({"__error__": True, "retryable": False, "message": "no"}, "__error__")
    ]


@pytest.mark.parametrize("root", [True, False])
def test_s5_4_failed_worker_task_leaves_no_row(world: World, *, root: bool) -> None:
    flow = world.start([ext("f")] if root else [try_catch("t", [ext("f")], [])])
    flow.fail("f")
    assert flow.check().rows() == []


def test_s5_4_output_of_a_built_in_never_touches_the_data(world: World) -> None:
    flow = world.start([step("a", "transform", {"k": 1}), say("b", "{{ outputs.a.k }}")]).run()
    assert (flow.check().data, flow.output("b")) == ({}, {"message": 1})


def test_s5_4_unknown_template_root_fails_for_good(world: World) -> None:
    flow = world.start([say("a", "{{ nowhere.x }}", retry={"max_attempts": 3, "initial_backoff": 1, "max_backoff": 1})])
    flow.run()
    assert flow.check().state == "failed"
    assert "unknown template root" in flow.output("a")["message"]
    external = world.start([ext("a", params="{{ nowhere.x }}")])
    assert (external.check().state, external.standing()) == ("failed", {})


def test_s4_output_schema_violation_fails_and_stores_nothing(world: World) -> None:
    schema = {"type": "object", "required": ["v"]}
    flow = world.start([try_catch("t", [ext("a", output_schema=schema)], [say("c", "{{ data._error.message }}")])])
    flow.complete("a", {"w": 1})
    assert flow.run().check().row_ids() == ["c"]
    assert "output_schema" in flow.output("c")["message"]
    assert "w" not in flow.data


# -- 5.5 human gate --------------------------------------------------------------------------------------------------


def test_s5_5_gate_waits_and_an_answer_lets_the_handler_run(world: World) -> None:
    flow = world.start([gate("g", gate={"allow_comment": True})])
    assert (flow.check().state, flow.ready()) == ("waiting", [])
    flow.answer("g", "yes", comment="fine").run()
    assert flow.check().state == "completed"
    first, last = flow.outputs("g")
    assert (first["value"], first["_orch8_human_gate"], first["comment"]) == ("yes", True, "fine")
    assert (last, flow.data) == ({}, {"g": "yes"})


@pytest.mark.parametrize("value", ["maybe", "YES", 1, None, True, ["yes"]])
def test_s5_5_other_values_are_swallowed(world: World, value) -> None:
    flow = world.start([gate("g")])
    flow.answer("g", value)
    flow.signal({"custom": "human_input:other"}, {"value": "yes"})
    flow.signal({"custom": "human_input:g"}, None)
    assert (flow.check().state, flow.rows()) == ("waiting", [])
    assert flow.answer("g").run().state == "completed"


def test_s5_5_store_as_names_the_key(world: World) -> None:
    flow = world.start([gate("g", gate={"store_as": "verdict"})])
    assert flow.answer("g", "no").run().check().data == {"verdict": "no"}


def test_s5_5_early_answer_is_kept(world: World) -> None:
    flow = world.start([ext("a"), gate("g")])
    flow.answer("g", "nonsense").answer("g", "no")
    world.restart()
    flow.complete("a")
    assert flow.run().check().state == "completed"
    assert flow.data["g"] == "no"


def test_s5_5_two_gates_in_a_row_take_answers_sent_at_once(world: World) -> None:
    flow = world.start([gate("g"), gate("h")])
    flow.answer("h", "no").answer("g", "yes").run()
    assert flow.check().state == "completed"
    assert flow.data == {"g": "yes", "h": "no"}


def test_s5_5_time_out_escalates(world: World) -> None:
    flow = world.start([gate("g", gate={"timeout": 1500, "escalation_handler": "boss"}), step("z")])
    flow.signal("update_context", {"data": {"k": 1}})
    assert flow.due_in() <= 1.5
    flow.pass_time()
    assert flow.run().check().state == "completed"
    assert flow.outputs("g") == [{"_escalated": True, "_escalation_handler": "boss", "_timeout_seconds": 1.5}]


def test_s5_5_time_out_without_escalation_fails_and_can_be_caught(world: World) -> None:
    flow = world.start([try_catch("t", [gate("g", gate={"timeout": 1000})], [step("c")])])
    flow.pass_time()
    assert flow.run().check().row_ids() == ["c"]


def test_s5_5_open_gate_comes_after_the_handler(world: World) -> None:
    flow = world.start([say("g", "please", wait_for_signal=True), say("z", "{{ outputs.g.note }}")]).run()
    assert (flow.check().state, flow.outputs("g")) == ("waiting", [{"message": "please"}])
    flow.signal("custom", {"note": "ok"}).run()
    assert flow.check().output("z") == {"message": "ok"}
    assert flow.data["g"] == {"note": "ok"}


def test_s5_5_open_gate_takes_anything(world: World) -> None:
    flow = world.start([step("g", wait_for_signal=True)]).run()
    flow.signal("custom", 7)
    assert (flow.check().state, flow.output("g")) == ("completed", {"value": 7})


def test_s5_5_gates_of_concurrent_items_are_answered_in_turn(world: World) -> None:
    flow = world.start(
        [for_each("e", "items", [gate("g"), say("z", "{{ outputs.g }}")], concurrency=2)], data={"items": [1, 2, 3]}
    )
    for count in range(1, 4):
        flow.answer("g").run()
        assert len(flow.check().rows("z")) == count
    assert flow.state == "completed"
    assert [row.iteration for row in flow.rows("z")] == [(0,), (1,), (2,)]


def test_s16_nameless_signal_is_refused_when_several_gates_are_open(world: World) -> None:
    flow = world.start([parallel("p", [gate("g")], [gate("h")])])
    with pytest.raises(InvalidArgument, match="'g', 'h'"):
        flow.signal("custom", {"value": "yes"})
    flow.answer("g").run()
    assert flow.signal("custom", {"decision": "approved"}).run().check().data == {"g": "yes", "h": "yes"}


# -- 5.6 retry -------------------------------------------------------------------------------------------------------


def test_s5_6_max_attempts_counts_all_executions(world: World) -> None:
    retry = {"max_attempts": 3, "initial_backoff": 1000, "max_backoff": 1500}
    flow = world.start([ext("a", retry=retry)])
    for wait in (1.0, 1.5):
        flow.fail("a", retryable=True)
        assert flow.check().state == "scheduled"
        assert wait - 0.5 < flow.due_in() <= wait
        flow.pass_time()
        assert flow.state == "waiting"
    assert flow.steps()[0].attempt == 2
    flow.fail("a", retryable=True)
    assert flow.check().state == "failed"
    assert [attempt for _, attempt, _ in world.attempts(flow.id)] == [0, 1, 2]


@pytest.mark.parametrize(
    ("policy", "details", "state"),
    [
        ({}, None, "scheduled"),
        ({"retry_if": '_error.message == "boom"'}, None, "scheduled"),
        ({"retry_if": "data._error.details.status >= 500"}, {"status": 404}, "failed"),
        ({"non_retryable_codes": ["404"]}, {"status": 404}, "failed"),
        ({"non_retryable_codes": ["X"]}, {"error_code": "X", "status": 500}, "failed"),
        ({"retryable_errors": ["5xx"]}, {"status": 503}, "scheduled"),
        ({"retryable_errors": ["timeout"]}, {"status": 503}, "failed"),
    ],
)
def test_s5_6_policy_decides_whether_to_try_again(world: World, policy, details, state: str) -> None:
    retry = {"max_attempts": 2, "initial_backoff": 10, "max_backoff": 10, **policy}
    flow = world.start([ext("a", retry=retry)])
    flow.fail("a", retryable=True, details=details)
    assert flow.check().state == state


@pytest.mark.parametrize("retryable", [True, False])
def test_s5_6_no_policy_or_a_permanent_failure_is_final(world: World, *, retryable: bool) -> None:
    fields = {} if retryable else {"retry": {"max_attempts": 9, "initial_backoff": 1, "max_backoff": 1}}
    flow = world.start([ext("a", **fields)])
    flow.fail("a", retryable=retryable)
    assert flow.check().state == "failed"


def test_s5_6_time_out_of_a_task_counts_from_the_queue_and_is_retryable(world: World) -> None:
    retry = {"max_attempts": 2, "initial_backoff": 10, "max_backoff": 10}
    flow = world.start([ext("a", timeout=300, retry=retry)])
    claim = flow.claim("a")
    flow.pass_time()
    assert flow.check().standing() == {"a": "backoff"}
    flow.finish(claim, Completed(output={"late": True}))
    assert flow.check().rows() == []
    flow.pass_time()
    flow.pass_time()
    assert flow.check().state == "failed"


def test_s5_9_lost_worker_keeps_the_attempt_number(world: World) -> None:
    flow = world.start([ext("a")])
    claim = flow.claim("a")
    assert flow.lose(claim)
    assert not flow.lose(claim)
    flow.finish(claim, Failed(message="late", retryable=False))
    assert (flow.check().state, flow.steps()[0].attempt) == ("waiting", 0)
    flow.complete("a", {"v": 1})
    assert [row.attempt for row in flow.rows()] == [0]


def test_s5_9_poison_is_parked_and_goes_on_after_a_resume(world: World) -> None:
    flow = world.start([ext("a")])
    for _ in range(3):
        flow.lose(flow.claim("a"))
    assert flow.check().state == "paused"
    assert "lost its worker 3 times" in (flow.instance.parked_reason or "")
    flow.resume().complete("a")
    assert flow.check().state == "completed"


def test_s5_1_first_stamp_stays_over_retries(world: World) -> None:
    flow = world.start([ext("a", retry={"max_attempts": 2, "initial_backoff": 10, "max_backoff": 10})])
    stamp = flow.instance.current_step_started_at
    flow.fail("a", retryable=True)
    flow.pass_time()
    assert (flow.instance.current_step, flow.instance.current_step_started_at) == ("a", stamp)
    assert stamp is not None
    assert stamp - flow.instance.created_at < timedelta(minutes=1)
