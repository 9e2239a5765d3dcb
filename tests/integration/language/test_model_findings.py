"""What the comparison with the reference interpreter has found: the smallest program of each finding."""

from datetime import timedelta

import pytest

from tests.support.drive import World, ext, fail, loop, router, scope, split, step, sub_sequence, try_catch


def test_s5_6_task_of_a_lost_worker_keeps_the_end_of_its_time_out(world: World) -> None:
    """The time-out runs from the moment the task is queued: not from the flow's start, and not anew after a loss."""
    flow = world.start([ext("a", delay={"duration": 900_000}, timeout=100_000)])
    flow.pass_time()
    assert flow.due_in("a") == pytest.approx(100, abs=15)
    claim = flow.claim("a")
    world.elapse(flow.id, timedelta(seconds=40))
    flow.lose(claim)
    assert flow.due_in("a") == pytest.approx(60, abs=15)
    flow.complete("a")
    assert flow.check().state == "completed"


@pytest.mark.parametrize("pause_first", [False, True])
def test_s11_shielded_sleep_is_not_interrupted_by_a_pause(world: World, *, pause_first: bool) -> None:
    flow = world.start([step("nap", "sleep", {"duration_ms": 60_000}, cancellable=False), step("b")])
    if pause_first:
        claim = flow.claim("nap")
        flow.pause()
        flow.finish(claim, world.outcome(world.work(claim)))
    else:
        flow.run()
        flow.pause()
    assert (flow.check().state, flow.standing()) == ("running", {"nap": "asleep"})
    flow.pass_time()
    assert (flow.check().state, flow.row_ids(), flow.standing()) == ("paused", ["nap"], {"b": "held"})
    assert flow.resume().run().check().state == "completed"


@pytest.mark.parametrize("after", ["resume", "cancel"])
def test_s9_4_paused_flow_begins_no_iteration(world: World, after: str) -> None:
    """The moment of the next iteration comes in the pause; neither condition nor body may run before the resume."""
    flow = world.start(
        [loop("l", [ext("a", when="go")], "true", max_iterations=2, poll_interval=5)], data={"go": False}
    )
    flow.pause()
    flow.pass_time()
    assert (flow.check().state, flow.instance.is_held, world.timers(flow.id)) == ("paused", True, {})
    flow.signal("update_context", {"data": {"go": True}})
    if after == "cancel":
        assert flow.cancel().check().state == "cancelled"
        return
    flow.resume().pass_time()
    assert (flow.check().state, flow.standing()) == ("waiting", {"a": "ready"})
    flow.complete("a")
    assert (flow.check().state, flow.outputs("l")) == ("completed", [{"_iterations": 1}, {"_iterations": 2}])


def test_s3_4_loop_waits_for_what_a_block_in_an_inner_loop_says(world: World) -> None:
    """As long as the block has said nothing in this activation, the condition counts as satisfied."""
    inner = loop("inner", [ext("analyze")], "data.go", max_iterations=1)
    body = [router("r", ("iteration > 9", []), default=[inner]), ext("turn")]
    flow = world.start([loop("outer", body, "outputs.analyze.more == true", max_iterations=9)], data={"go": False})
    flow.complete("turn", {"go": False})
    assert flow.check().standing() == {"turn": "ready"}
    flow.complete("turn", {"go": True})
    flow.complete("analyze", {"more": False, "go": False})
    flow.complete("turn")
    assert (flow.check().state, len(flow.outputs("outer"))) == ("completed", 3)


def test_s5_6_error_row_has_the_number_of_the_last_attempt(world: World) -> None:
    policy = {"max_attempts": 3, "initial_backoff": 10, "max_backoff": 10}
    flow = world.start([fail("a", retryable=True, retry=policy)]).settle()
    assert [(row.attempt, row.ref) for row in flow.rows()] == [(2, "__error__")]


def test_s6_2_unknown_root_is_the_message_of_the_failure(world: World) -> None:
    flow = world.start([try_catch("t", [step("a", "log", {"message": "{{ nowhere.x }}"})])]).run()
    assert flow.data["_error"]["message"] == "unknown template root: nowhere.x"


@pytest.mark.parametrize(
    "block",
    [ext("a", cache_key="{{ nowhere.x }}"), sub_sequence("a", "child", input="{{ nowhere.x }}")],
    ids=["cache_key", "input"],
)
def test_s6_2_unknown_root_has_one_message_wherever_the_template_stands(world: World, block) -> None:
    world.define("child", [step("inner")])
    flow = world.start([try_catch("t", [block], [])])
    assert (flow.check().state, flow.data["_error"]["message"]) == ("completed", "unknown template root: nowhere.x")


def test_s9_7_retry_after_a_missed_deadline_asks_for_nothing_again(world: World) -> None:
    """The delay is over, the human has answered and the handler before an open gate has run: all of that stays."""
    asked = ext("asked", delay={"duration": 60_000}, deadline=5000, wait_for_input={})
    flow = world.start([asked, ext("released", deadline=5000, wait_for_signal=True)])
    flow.pass_time()
    flow.answer("asked").pass_time()
    assert (flow.check().state, flow.output("asked")["_error"]) == ("failed", "sla_deadline_breached")
    assert flow.retry().check().standing() == {"asked": "ready"}
    flow.complete("asked")
    flow.complete("released")
    flow.pass_time()
    assert flow.check().state == "failed"
    assert flow.retry().check().standing() == {"released": "gate"}
    assert flow.answer("released").check().state == "completed"


@pytest.mark.parametrize("handler", ["external", "log"])
def test_s5_1_wrong_params_fail_a_step_whose_output_is_cached(world: World, handler: str) -> None:
    """Params are built before the cache is asked."""
    wrong = step("b", handler, {"message": "{{ nowhere.x }}"}, cache_key="k")
    flow = world.start([step("a", cache_key="k"), wrong]).run()
    assert (flow.check().state, flow.tree()["b"]) == ("failed", "failed")


def test_s9_7_finally_list_that_is_retried_leaves_the_context_as_it_is(world: World) -> None:
    """The list reads the error that it had read before, not the one that its catch list has dealt with."""
    last = [try_catch("inner", [fail("b", "second")], []), ext("c")]
    flow = world.start([try_catch("outer", [fail("a", "first")], [], last)]).run()
    flow.fail("c")
    before = flow.data
    assert (flow.check().state, before["_error"]["message"]) == ("failed", "second")
    assert flow.retry().check().data == before
    flow.complete("c")
    assert (flow.check().state, flow.data["_error"]["block_id"]) == ("completed", "inner")


@pytest.mark.parametrize("shield", ["step", "scope"])
def test_s9_5_flow_is_cancelled_when_shielded_work_is_done_whatever_pause_came_since(world: World, shield: str) -> None:
    last = ext("a", cancellable=False) if shield == "step" else scope("s", ext("a"))
    flow = world.start([last])
    flow.cancel()
    flow.pause()
    flow.complete("a")
    assert (flow.check().state, flow.tree()["a"]) == ("cancelled", "completed")


@pytest.mark.parametrize("chooser", [router("r", ("true", [ext("b")])), split("r", ("v", 1, [ext("b")]), ("w", 0, []))])
def test_s10_blocks_of_a_choice_that_was_never_made_are_cancelled(world: World, chooser) -> None:
    """A cancel comes before the router or split has begun: no list of it was passed over by design."""
    flow = world.start([scope("s", ext("a")), chooser])
    flow.cancel()
    flow.complete("a")
    assert (flow.check().state, flow.tree()) == (
        "cancelled",
        {"s": "completed", "a": "completed", "r": "cancelled", "b": "cancelled"},
    )
