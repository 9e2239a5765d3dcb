"""Sections 5.7 and 9.6: cached outputs and budgets; and what pauses and retries leave to people (§9.2, §9.4, §5.5)."""

from datetime import timedelta

import pytest

from tests.support.drive import (
    RETRY,
    Completed,
    Failed,
    Flow,
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


# -- 5.7 cache -------------------------------------------------------------------------------------------------------


def test_s5_7_handler_is_not_run_when_the_key_is_cached(world: World) -> None:
    body = [step("s", "log", {"message": "{{ data.item }}"}, cache_key="k-{{ data.item }}")]
    flow = world.start([for_each("f", "items", body)], data={"items": ["a", "b", "a", "a"]}).run()
    assert flow.check().outputs("s") == [{"message": name} for name in ("a", "b", "a", "a")]
    assert [iteration for _, iteration, _ in world.executed] == [(0,), (1,)]
    assert flow.kv == {"_cache:k-a": {"message": "a"}, "_cache:k-b": {"message": "b"}}
    assert [outcome for _, _, outcome in world.attempts(flow.id)] == ["completed", "completed", "cached", "cached"]
    assert flow.instance.total_steps == 4


def test_s5_7_no_task_is_queued_on_a_hit_and_the_output_merges_as_it_did(world: World) -> None:
    flow = world.start(
        [
            ext("a", cache_key="k"),
            step("b", "transform", {"target": "data.x", "value": 0}),
            ext("c", cache_key="k"),
            say("d", "{{ data.x }}"),
        ]
    )
    flow.complete("a", {"x": 7})
    assert flow.run().check().state == "completed"
    assert (flow.output("c"), flow.output("d")) == ({"x": 7}, {"message": 7})


def test_s5_7_output_that_was_not_merged_is_not_merged_from_the_cache(world: World) -> None:
    flow = world.start([ext("a", cache_key="k"), ext("b", cache_key="k")])
    flow.finish(flow.claim("a"), Completed(output={"x": 7}, merges=False))
    assert (flow.check().state, flow.output("b"), flow.data) == ("completed", {"x": 7}, {})


def test_s5_7_key_is_the_one_of_the_look_up_and_null_is_a_value(world: World) -> None:
    flow = world.start(
        [ext("a", cache_key="{{ data.k }}"), step("b", "fail", cache_key="{{ data.first }}")],
        data={"k": "one", "first": "one"},
    )
    claim = flow.claim("a")
    flow.signal("update_context", {"data": {"k": "two"}})
    flow.finish(claim, Completed(output=None))
    assert flow.run().check().state == "completed"
    assert (flow.output("b"), flow.kv) == (None, {"_cache:one": None})


def test_s5_7_failures_are_not_cached_and_a_primed_key_is_a_hit(world: World) -> None:
    body = [
        fail("f", cache_key="k", retryable=True, retry={"max_attempts": 2, "initial_backoff": 1, "max_backoff": 1}),
    ]
    flow = world.start(body).settle()
    assert (flow.check().state, flow.kv) == ("failed", {})
    primed = [step("p", "set_state", {"key": "_cache:k", "value": {"v": 1}}), fail("f", cache_key="k")]
    assert world.start(primed).run().check().output("f") == {"v": 1}


@pytest.mark.parametrize("key", ["{{ data.missing }}", ""])
def test_s5_7_key_that_comes_to_nothing_caches_nothing(world: World, key: str) -> None:
    flow = world.start([step("a", cache_key=key), step("b", cache_key=key)]).run()
    assert (flow.check().state, flow.kv, flow.executed()) == ("completed", {}, ["a", "b"])


def test_s5_7_bad_key_fails_for_good_and_a_long_one_is_hashed(world: World) -> None:
    flow = world.start([step("a", cache_key="{{ nowhere.x }}", retry=RETRY)]).run()
    assert (flow.check().state, flow.executed()) == ("failed", [])
    assert "unknown template root" in flow.output("a")["message"]
    flow = world.start([step("a", cache_key="k" * 5000), step("b", cache_key="k" * 5000)]).run()
    assert (flow.check().state, flow.executed()) == ("completed", ["a"])
    assert [len(name) for name in flow.kv] == [len("_cache:sha256:") + 64]


def test_s5_1_of_two_wrong_templates_the_one_in_the_params_is_told_of(world: World) -> None:
    step_with_both = step("a", "log", {"message": "{{ first.x }}"}, cache_key="{{ second.x }}")
    flow = world.start([try_catch("t", [step_with_both], [])]).run()
    assert "first.x" in flow.check().data["_error"]["message"]


def test_s5_7_human_is_asked_before_the_cache(world: World) -> None:
    primed = step("p", "set_state", {"key": "_cache:k", "value": 1})
    flow = world.start([primed, gate("g", cache_key="k")]).run()
    assert flow.check().standing() == {"g": "gate"}
    assert flow.answer("g").run().check().outputs("g")[-1] == 1


def test_s5_7_branch_that_is_cancelled_with_a_hit_leaves_nothing() -> None:
    world = PureWorld()
    primed = step("p", "set_state", {"key": "_cache:k", "value": 1})
    racing = parallel("r", [step("x", when="a b")], [step("h", cache_key="k"), step("z")], failure_policy="fail_fast")
    flow = world.start([primed, racing]).run()
    assert (flow.check().state, "z" in flow.executed()) == ("failed", False)


# -- 9.6 budget ------------------------------------------------------------------------------------------------------


def test_s9_6_flow_pauses_before_the_step_that_comes_after_too_many(world: World) -> None:
    flow = world.start([step(name) for name in "abcd"], budget={"max_steps": 1, "max_total_tokens": -1}).run()
    assert (flow.check().state, flow.executed(), flow.standing()) == ("paused", ["a", "b"], {"c": "held"})
    breach = {"limit": "max_steps", "limit_value": 1, "actual": 2}
    assert world.metadata(flow.id) == {"paused_reason": "budget_exceeded", "budget_breach": breach}
    world.restart()
    assert flow.resume().run().check().state == "paused"
    assert flow.executed() == ["a", "b"]
    assert flow.cancel().check().state == "cancelled"


def test_s9_6_last_step_over_the_limit_completes_the_flow(world: World) -> None:
    assert world.start([step("a"), step("b")], budget={"max_steps": 1}).run().check().state == "completed"


def test_s9_6_negative_and_unknown_limits_never_stop_a_flow(world: World) -> None:
    budget = {"max_steps": -1, "max_cost_microunits": 0, "max_external_calls": 0}
    assert world.start([step(name) for name in "abc"], budget=budget).run().check().state == "completed"


@pytest.mark.parametrize(
    ("usage", "breach"),
    [
        ({"input_tokens": 10, "output_tokens": 5}, {"limit": "max_total_tokens", "limit_value": 12, "actual": 15}),
        ({"prompt_tokens": 13}, {"limit": "max_total_tokens", "limit_value": 12, "actual": 13}),
    ],
)
def test_s9_6_tokens_that_outputs_report_are_counted(world: World, usage: dict[str, int], breach: object) -> None:
    flow = world.start([ext("a"), ext("b")], budget={"max_total_tokens": 12})
    flow.complete("a", {"usage": usage})
    assert (flow.check().state, world.metadata(flow.id)["budget_breach"]) == ("paused", breach)


def test_s9_6_time_is_counted_from_the_start(world: World) -> None:
    flow = world.start([NAP, step("b")], budget={"max_wall_time_ms": 30_000}).run()
    if isinstance(world, PureWorld):
        flow.pass_time()
        assert flow.check().state == "paused"
        assert world.metadata(flow.id)["budget_breach"]["actual"] >= 60_000


def test_s9_6_human_is_not_asked_when_the_budget_is_exceeded(world: World) -> None:
    flow = world.start([step("a"), step("b"), gate("g")], budget={"max_steps": 1}).run()
    assert (flow.check().state, flow.standing()) == ("paused", {"g": "held"})


def test_s9_6_running_branches_finish_before_the_pause_shows(world: World) -> None:
    flow = world.start([parallel("p", [step("a"), step("b")], [step("c")])], budget={"max_steps": 0})
    slow = flow.claim("c")
    flow.run()
    assert (flow.check().state, flow.standing()) == ("running", {"b": "held", "c": "claimed"})
    flow.finish(slow, Completed(output={}))
    assert flow.check().state == "paused"


@pytest.mark.parametrize("shielded", ["finally_block", "cancellation_scope"])
def test_s9_6_cancelled_flow_finishes_what_is_shielded_whatever_it_has_used(world: World, shielded: str) -> None:
    steps = [step(name) for name in "abc"]
    block = try_catch("t", steps, [], [step("f"), gate("g")])
    if shielded == "cancellation_scope":
        block = scope("t", *steps, step("f"), gate("g"))
    flow = world.start([block, step("z")], budget={"max_steps": 1}).run()
    assert (flow.check().state, flow.executed()) == ("paused", ["a", "b"])
    flow.cancel().run()
    assert flow.check().state == "waiting"
    flow.answer("g", "yes").run()
    left = ["c"] if shielded == "cancellation_scope" else []
    assert (flow.check().state, flow.executed()) == ("cancelled", ["a", "b", *left, "f", "g"])


# -- 9.2, 9.4 a pause with a gate beside a running branch ------------------------------------------------------------


def beside(world: World, other: list[object]) -> Flow:
    flow = world.start([parallel("p", [gate("g"), step("after")], other)])
    assert flow.check().state == "running"
    return flow


def test_s9_4_running_flow_pauses_although_a_gate_is_open(world: World) -> None:
    flow = beside(world, [step("a"), step("b")])
    claim = flow.claim("a")
    flow.pause()
    assert flow.check().state == "running"
    flow.finish(claim, Completed(output={}))
    assert (flow.check().state, flow.standing()) == ("paused", {"g": "gate", "b": "held"})
    flow.answer("g").run()
    assert (flow.check().state, flow.standing()) == ("paused", {"g": "held", "b": "held"})
    world.restart()
    assert flow.resume().run().check().state == "completed"


def test_s9_4_pause_interrupts_a_sleep_beside_a_gate(world: World) -> None:
    flow = beside(world, [NAP]).run()
    assert flow.pause().check().state == "paused"
    assert flow.resume().run().check().state == "running"
    assert flow.standing() == {"g": "gate", "nap": "asleep"}


def test_s9_4_task_that_nobody_has_claimed_is_withdrawn_with_the_pause(world: World) -> None:
    flow = world.start([parallel("p", [ext("t")], [NAP])]).run()
    assert flow.pause().check().standing() == {"t": "held", "nap": "held"}
    assert flow.state == "paused"
    flow.resume().run()
    assert (flow.check().state, flow.standing()) == ("running", {"t": "ready", "nap": "asleep"})


def test_s9_4_claimed_task_is_finished_before_the_pause_shows(world: World) -> None:
    flow = world.start([parallel("p", [ext("t"), step("after")], [NAP])]).run()
    claim = flow.claim("t")
    assert flow.pause().check().state == "waiting"
    flow.finish(claim, Completed(output={}))
    assert (flow.check().state, flow.standing()) == ("paused", {"after": "held", "nap": "held"})


# -- 9.7 a retry asks nobody twice -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "blocks",
    [
        [ext("g", wait_for_input={"store_as": "said"})],
        [parallel("p", [ext("g", wait_for_input={"store_as": "said"})], [step("x")])],
    ],
)
def test_s5_5_retry_behind_an_answered_gate_does_not_ask_again(world: World, blocks: list[object]) -> None:
    flow = world.start(blocks).run().answer("g")
    flow.fail("g")
    assert flow.check().state == "failed"
    for _ in range(2):
        world.restart()
        assert (flow.retry().check().standing(), flow.data["said"]) == ({"g": "ready"}, "yes")
        flow.fail("g")
    flow.retry().complete("g", {"done": 1})
    assert flow.check().state == "completed"
    assert [row.get("value", row) for row in flow.outputs("g")] == ["yes", {"done": 1}]


def test_s5_5_retry_of_a_gate_that_timed_out_asks_again(world: World) -> None:
    flow = world.start([gate("g", gate={"timeout": 1000})]).run()
    assert flow.pass_time()
    assert flow.check().state == "failed"
    assert flow.retry().check().standing() == {"g": "gate"}
    assert flow.answer("g").run().check().state == "completed"


def test_s5_5_other_iteration_is_asked_although_the_one_before_failed_behind_its_gate(world: World) -> None:
    body = [ext("g", wait_for_input={})]
    flow = world.start([loop("l", body, continue_on_error=True, max_iterations=2), ext("end")]).run().answer("g")
    flow.fail("g")
    assert flow.check().standing() == {"g": "gate"}
    flow.answer("g").complete("g")
    flow.fail("end")
    assert flow.retry().check().standing() == {"end": "ready"}


def test_s5_5_retry_of_an_open_gate_that_timed_out_does_not_run_the_handler_again(world: World) -> None:
    flow = world.start([step("g", wait_for_signal={"timeout": 1000})]).run()
    flow.pass_time()
    assert flow.check().state == "failed"
    flow.retry().run()
    assert (flow.check().standing(), flow.executed()) == ({"g": "gate"}, ["g"])
    assert flow.signal({"custom": "g"}, {"a": 1}).check().state == "completed"


def test_s5_3_retry_does_not_wait_for_a_delay_that_is_over(world: World) -> None:
    flow = world.start([ext("a", delay={"duration": 60_000})])
    flow.pass_time()
    flow.fail("a")
    assert flow.retry().check().standing() == {"a": "ready"}


def test_s9_4_cancelled_flow_that_is_opened_again_does_not_ask_again(world: World) -> None:
    flow = world.start([ext("g", wait_for_input={})]).run().answer("g").cancel()
    assert flow.force("scheduled").check().standing() == {"g": "ready"}


def test_s9_7_gate_of_a_failure_that_was_handled_is_not_touched(world: World) -> None:
    flow = world.start([ext("a", wait_for_input={}, retry=RETRY)]).run().answer("a")
    flow.finish(flow.claim("a"), Failed(message="x", retryable=True))
    world.elapse(flow.id, timedelta(seconds=1))
    flow.pass_time()
    assert flow.check().standing() == {"a": "ready"}
