"""Sections 5.5 and 5.8: deadlines, escalations, notifications and what else surrounds waiting for people."""

from typing import Any

import pytest

from tests.support.drive import (
    RETRY,
    Completed,
    Failed,
    World,
    ext,
    for_each,
    gate,
    loop,
    parallel,
    race,
    router,
    saga,
    say,
    scope,
    split,
    step,
    try_catch,
)

# -- 5.8 deadline ----------------------------------------------------------------------------------------------------


def is_breach(row: Any, deadline: int) -> bool:
    return (
        set(row) == {"_error", "_deadline_ms", "_elapsed_ms"}
        and row["_error"] == "sla_deadline_breached"
        and row["_deadline_ms"] == deadline
        and deadline <= row["_elapsed_ms"] < deadline + 60_000
    )


@pytest.mark.parametrize("state", ["ready", "claimed", "backoff", "gate", "asleep"])
@pytest.mark.parametrize("nested", [False, True])
def test_s5_8_a_breach_fails_the_step_wherever_it_stands(world: World, state: str, nested: bool) -> None:
    retry = {"max_attempts": 3, "initial_backoff": 60_000, "max_backoff": 60_000}
    escalation = {"handler": "outside", "params": {"why": "{{ data.x }}", "who": "{{ step | nobody }}"}}
    fields = {"deadline": 3000, "on_deadline_breach": escalation}
    blocks = {
        "gate": [gate("a", **fields)],
        "asleep": [step("a", "sleep", {"duration_ms": 9_000_000}, **fields)],
    }.get(state, [ext("a", retry=retry, **fields)])
    flow = world.start(
        [try_catch("t", blocks, [say("c", "{{ outputs.a._error }}")])] if nested else blocks, data={"x": 1}
    )
    flow.run()
    claim = flow.claim("a") if state in {"claimed", "backoff"} else None
    if state == "backoff" and claim is not None:
        flow.finish(claim, Failed(message="no", retryable=True))
    assert flow.standing() == {"a": state}
    world.restart()
    flow.pass_time()
    flow.run()
    assert flow.check().state == ("completed" if nested else "failed")
    (row,) = flow.outputs("a")
    assert is_breach(row, 3000)
    assert flow.tree()["a"] == "failed"
    if nested:
        assert flow.output("c") == {"message": "sla_deadline_breached"}
    (told,) = flow.called("a")
    assert told == {
        "why": 1,
        "who": {},
        "_breach_block_id": "a",
        "_breach_instance_id": str(flow.id),
        "_breach_elapsed_ms": row["_elapsed_ms"],
        "_breach_deadline_ms": 3000,
    }
    if claim is not None:
        flow.finish(claim, Completed(output={"late": True}, merges=True))
        assert flow.outputs("a") == [row]
    flow.answer_call("a", Completed(output={"noted": True}))
    assert (flow.check().outputs("a"), flow.asides()) == ([row], [])


def test_s5_8_a_deadline_counts_from_the_start_over_all_attempts(world: World) -> None:
    retry = {"max_attempts": 100, "initial_backoff": 100_000, "max_backoff": 100_000}
    flow = world.start([ext("a", delay={"duration": 600_000}, deadline=250_000, retry=retry)])
    assert flow.due_in("a") == pytest.approx(600, abs=30)
    flow.pass_time()
    attempts = 0
    while flow.state != "failed":
        flow.fail("a", retryable=True)
        attempts += 1
        flow.pass_time()
    assert (attempts, flow.check().output("a")["_error"]) == (3, "sla_deadline_breached")


def test_s5_8_a_failure_after_the_deadline_is_a_breach(world: World) -> None:
    flow = world.start([ext("a", deadline=1000)])
    claim = flow.claim("a")
    world.elapse(flow.id, world.timers(flow.id)[claim.key] - world.now())
    flow.finish(claim, Failed(message="timed out", retryable=True))
    assert (flow.check().state, flow.output("a")["_error"]) == ("failed", "sla_deadline_breached")


def test_s5_8_a_step_in_time_has_no_breach_and_no_timer_left(world: World) -> None:
    flow = world.start([ext("a", deadline=1000), loop("l", [step("b", deadline=1000)], max_iterations=2)])
    flow.complete("a")
    flow.run()
    assert (flow.check().state, world.timers(flow.id)) == ("completed", {})


def test_s5_8_a_pause_holds_the_breach_up_until_the_resume(world: World) -> None:
    flow = world.start([step("a", "sleep", {"duration_ms": 50_000}, deadline=1000)]).run().pause()
    assert (flow.check().state, world.timers(flow.id)) == ("paused", {})
    flow.resume()
    flow.pass_time()
    assert (flow.check().state, flow.output("a")["_error"]) == ("failed", "sla_deadline_breached")


def test_s9_7_a_retry_drops_the_row_of_the_breach(world: World) -> None:
    flow = world.start([ext("a", deadline=1000)])
    flow.pass_time()
    flow.retry()
    flow.complete("a", {"v": 1})
    assert (flow.check().state, flow.outputs("a")) == ("completed", [{"v": 1}])


def test_s5_8_a_breach_whose_params_cannot_be_made_is_escalated_without_them(world: World) -> None:
    flow = world.start(
        [ext("a", deadline=1000, on_deadline_breach={"handler": "outside", "params": "{{ nowhere.x }}"})]
    )
    flow.pass_time()
    assert set(flow.called("a")[0]) == {
        "_breach_block_id",
        "_breach_instance_id",
        "_breach_elapsed_ms",
        "_breach_deadline_ms",
    }


# -- 5.5 escalation --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("open_gate", [False, True])
def test_s5_5_a_gate_that_times_out_calls_its_escalation_once(world: World, open_gate: bool) -> None:
    fields = {"timeout": 1500, "escalation_handler": "manager", "prompt": "Ship?"}
    kind = {"wait_for_signal": fields} if open_gate else {"wait_for_input": fields}
    flow = world.start([step("g", **kind), step("b")]).run()
    flow.pass_time()
    flow.run()
    assert flow.check().state == "completed"
    marker = {"_escalated": True, "_escalation_handler": "manager", "_timeout_seconds": 1.5}
    assert flow.outputs("g") == ([{}, marker] if open_gate else [marker])
    told = {"instance_id": str(flow.id), "block_id": "g", "prompt": "Ship?", "reason": "timeout"}
    assert flow.called("g") == [told]
    flow.answer_call("g", Completed(output={"told": True}))
    assert flow.output("g") == marker


@pytest.mark.parametrize("disturb", ["restart", "pause", "signal", "update"])
def test_s5_5_the_time_out_counts_from_the_first_opening(world: World, disturb: str) -> None:
    flow = world.start([gate("g", gate={"timeout": 60_000})])
    due = world.timers(flow.id)
    match disturb:
        case "restart":
            world.restart()
        case "pause":
            flow.pause().resume()
        case "signal":
            flow.answer("g", "maybe").signal({"custom": "other"})
        case "update":
            flow.signal("update_context", {"data": {"x": 1}})
    assert world.timers(flow.id) == due
    flow.pass_time()
    assert flow.check().state == "failed"


def test_s5_5_two_gates_in_a_row_take_answers_that_come_early(world: World) -> None:
    flow = world.start([gate("g"), gate("h")])
    flow.answer("h", "no").answer("g", "yes").run()
    assert (flow.check().state, flow.data) == ("completed", {"g": "yes", "h": "no"})


@pytest.mark.parametrize(
    "where", ["parallel", "loop", "for_each", "router", "try_catch", "race", "scope", "saga", "split"]
)
def test_s5_5_a_gate_inside_a_composite_is_a_gate(world: World, where: str) -> None:
    inside = gate("g", gate={"choices": [{"label": "Go", "value": "go"}]})
    blocks = {
        "parallel": parallel("c", [inside], [step("x")]),
        "loop": loop("c", [inside], max_iterations=1),
        "for_each": for_each("c", "items", [inside]),
        "router": router("c", ("true", [inside])),
        "try_catch": try_catch("c", [inside]),
        "race": race("c", [inside], [step("x", "sleep", {"duration_ms": 60_000})]),
        "scope": scope("c", inside),
        "saga": saga("c", (inside, None)),
        "split": split("c", ("A", 1, [inside])),
    }
    flow = world.start([blocks[where]], data={"items": [1]}).run()
    assert (flow.check().standing()["g"], flow.tree()["g"]) == ("gate", "waiting")
    assert flow.state == ("running" if where == "race" else "waiting")
    flow.answer("g", "go").run()
    assert (flow.check().state, len(flow.outputs("g"))) == ("completed", 2)


@pytest.mark.parametrize(("dry_run", "approved"), [(True, True), (False, False)])
def test_s5_5_only_dry_runs_are_approved_by_themselves(world: World, dry_run: bool, approved: bool) -> None:
    choices = [{"label": "Go", "value": "go"}, {"label": "Stop", "value": "stop"}]
    flow = world.start([gate("g", gate={"choices": choices})], dry_run=dry_run, dry_run_auto_approve=True).run()
    assert flow.check().state == ("completed" if approved else "waiting")
    assert flow.data == ({"g": "go"} if approved else {})


# -- 11 human_review -------------------------------------------------------------------------------------------------


def review(block_id: str = "r", *, url: str | None = None, **fields: Any) -> dict[str, Any]:
    params = {"reviewer": "ann", "review_data": "{{ data.doc }}", "instructions": "read", "notify_url": url}
    return step(block_id, "human_review", params if url else params | {"notify_url": ""}, **fields)


GATE = {"choices": [{"label": "Go", "value": "go"}], "allow_comment": True}


def test_s11_human_review_without_a_gate_is_pending(world: World) -> None:
    flow = world.start([review()], data={"doc": [1]}).run()
    assert flow.check().output("r") == {
        "type": "human_review",
        "status": "pending",
        "reviewer": "ann",
        "instructions": "read",
        "review_data": [1],
        "instance_id": str(flow.id),
        "block_id": "r",
        "choices": [],
        "allow_comment": False,
    }


def test_s11_human_review_after_an_answer_tells_it(world: World) -> None:
    flow = world.start([loop("l", [review(wait_for_input=GATE)], max_iterations=2)])
    flow.answer("r", "go", comment="fine").run()
    first = flow.output("r")
    assert (first["status"], first["value"], first["comment"]) == ("answered", "go", "fine")
    assert first["responded_at"] == flow.outputs("r")[0]["responded_at"]
    assert (first["choices"], first["allow_comment"]) == ([{"label": "Go", "value": "go"}], True)
    flow.answer("r", "go").run()
    assert (flow.check().state, flow.output("r")["comment"]) == ("completed", None)


def test_s5_5_the_notification_goes_out_when_the_gate_opens_and_never_again(world: World) -> None:
    flow = world.start([review(url="https://example.org/{{ data.doc }}", wait_for_input=GATE)], data={"doc": "d"})
    (request,) = flow.called("r")
    assert (request["url"], request["method"], request["timeout_ms"]) == ("https://example.org/d", "POST", 10_000)
    assert request["body"] == {
        "type": "human_review_pending",
        "instance_id": str(flow.id),
        "block_id": "r",
        "reviewer": "ann",
        "instructions": "read",
        "review_data": "d",
        "choices": GATE["choices"],
    }
    flow.answer_call("r", Failed(message="HTTP 500 from somewhere", retryable=True))
    assert (flow.check().state, flow.rows()) == ("waiting", [])
    flow.answer("r", "go").run()
    assert (flow.check().state, flow.asides(), flow.output("r")["status"]) == ("completed", [], "answered")


def test_s11_a_blocked_notification_fails_the_step_for_good(world: World) -> None:
    flow = world.start([review(url="http://127.0.0.1:1/x", wait_for_input=GATE, retry=RETRY)]).run()
    assert (flow.check().state, flow.tree()["r"]) == ("failed", "failed")
    without_gate = world.start([review(url="http://127.0.0.1:1/x", retry=RETRY)]).run()
    assert without_gate.check().state == "failed"
    assert without_gate.output("r")["message"].startswith("blocked: ")


def test_s9_9_a_dry_run_notifies_nobody(world: World) -> None:
    flow = world.start([review(url="http://127.0.0.1:1/x", wait_for_input=GATE)], dry_run=True)
    assert flow.asides() == []
    flow.answer("r", "go").run()
    assert flow.check().state == "completed"


def test_s5_5_an_open_gate_behind_a_review_is_notified_by_the_review_alone(world: World) -> None:
    flow = world.start([review(url="https://example.org/x", wait_for_signal=True)], dry_run=True).run()
    assert (flow.check().state, flow.asides(), len(flow.outputs("r"))) == ("waiting", [], 1)
