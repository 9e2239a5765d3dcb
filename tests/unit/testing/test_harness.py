"""The harness runs sequences as production does, in no time, and says clearly what is wrong."""

import asyncio
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestrator.core.model import NodeKey
from orchestrator.errors import InvalidArgument, Unprocessable
from orchestrator.testing import (
    Endless,
    Harness,
    NobodyPlays,
    PermanentError,
    RetryableError,
    after,
    answer,
    at,
    before,
    dies,
    hangs,
    script,
    silent,
    simulation,
    takes,
    waiting,
)
from tests.support.drive import RETRY, fail, for_each, gate, loop, parallel, router, say, step, try_catch
from workers import StepContext

CAMPAIGN = [
    step("welcome", "send", {"to": "{{ data.user }}"}),
    step("pause", delay={"duration": "3d"}),
    step("tips", "send", {"to": "{{ data.user }}"}, send_window={"start_hour": 9, "end_hour": 17}),
    gate("approve", gate={"timeout": "5d"}, delay={"duration": "2d"}),
    router("r", ("data.approve == 'yes'", [step("offer", "send", {"to": "x"})]), default=[step("no")]),
    step("end", delay={"duration": "9d"}),
]


@pytest.fixture
def harness() -> Harness:
    return Harness()


def sent(ctx: StepContext, to: str) -> dict[str, Any]:
    return {"sent": to, "key": ctx.idempotency_key.partition(":")[2]}


# -- running -----------------------------------------------------------------------------------------------------------


def test_a_campaign_of_14_days_takes_less_than_50_ms(harness: Harness) -> None:
    def run() -> Any:
        signals = [at(waiting("approve"), "update_context", {"data": {"seen": True}}), at("6d", answer("approve"))]
        return harness.run(CAMPAIGN, {"user": "ada"}, handlers={"send": sent}, signals=signals)

    done = run()
    done.expect("completed", outputs={"welcome": {"sent": "ada", "key": "welcome"}}, data={"seen": True})
    assert done.elapsed > timedelta(days=14)
    assert min(_seconds(run) for _ in range(5)) < 0.05


def _seconds(run: Any) -> float:
    began = time.thread_time()
    run()
    return time.thread_time() - began


def test_handlers_are_functions_of_every_kind_values_and_errors(harness: Harness) -> None:
    async def waits(ctx: StepContext, n: int) -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"n": n, "attempt": ctx.attempt}

    run = harness.run(
        [
            step("plain", "plain", {"n": 1}),
            step("async", "waits", {"n": 2}),
            step("value", "value"),
            try_catch("t", [step("error", "error")], [say("caught", "{{ context.data._error.message }}")]),
        ],
        handlers={"plain": lambda n: {"n": n}, "waits": waits, "value": {"v": [1]}, "error": PermanentError("no")},
    )
    run.expect("completed", outputs={"plain": {"n": 1}, "async": {"n": 2, "attempt": 0}, "value": {"v": [1]}})
    assert run.outputs["caught"] == {"message": "no"}
    assert [execution.result for execution in run.executions] == ["completed"] * 3 + ["failed", "completed"]
    assert run.data["v"] == [1], "the output of an external worker is merged into the data"


async def _inside_a_loop(harness: Harness) -> Any:
    async def waits() -> dict[str, Any]:
        await asyncio.sleep(0)
        return {"n": 1}

    return harness.run([step("a", "waits")], handlers={"waits": waits})


def test_an_async_test_may_run_async_handlers(harness: Harness) -> None:
    assert asyncio.run(_inside_a_loop(harness)).outputs["a"] == {"n": 1}


def test_a_script_is_played_over_attempts_and_iterations(harness: Harness) -> None:
    run = harness.run(
        [loop("l", [step("a", "poll", retry=RETRY)], "data.done != true", max_iterations=9)],
        handlers={"poll": script(RetryableError("busy"), {"done": False}, RetryableError, {"done": True})},
    )
    run.expect("completed", data={"done": True}, ran=["a"] * 4)
    assert [(row.iteration, row.output) for row in run.rows if row.block_id == "a"] == [
        ((0,), {"done": False}),
        ((1,), {"done": True}),
    ]


def test_what_would_call_out_needs_a_part(harness: Harness) -> None:
    call = [step("a", "http_request", {"url": "https://shop.example/pay"})]
    refused = harness.run(call).expect("failed")
    assert "GET https://shop.example/pay would leave this process; give the test a part" in refused.errors()["a"]
    seen: list[Any] = []

    def played(params: Any) -> Any:
        seen.append(params["url"])
        return {"status": 200, "body": "{}"}

    run = harness.run(call, handlers={"http_request": played})
    run.expect("completed", outputs={"a": {"status": 200, "body": "{}"}})
    assert seen == ["https://shop.example/pay"]


def test_a_handler_that_nobody_plays_is_named(harness: Harness) -> None:
    blocks = [router("r", ("data.x", [step("a", "charge")]), default=[step("b")])]
    harness.run(blocks, {"x": False}).expect("completed")
    with pytest.raises(NobodyPlays, match=r"step `a` needs the handler 'charge'.*silent\(\)"):
        harness.run(blocks, {"x": True})


def test_a_silent_worker_leaves_the_step_to_its_time_out(harness: Harness) -> None:
    waits = harness.run([step("a", "task")], handlers={"task": silent()})
    waits.expect("waiting", ran=[], standing={"a": "ready"})
    assert waits.complete("a", {"by": "hand"}).state == "completed"
    timed = harness.run([step("a", "task", timeout="2h")], handlers={"task": silent()})
    assert (timed.state, timed.elapsed) == ("failed", timedelta(hours=2))


def test_a_worker_that_hangs_is_timed_out_and_one_that_dies_is_replaced(harness: Harness) -> None:
    hung = harness.run([step("a", "task", timeout="2h", retry=RETRY)], handlers={"task": script(hangs(), {"ok": True})})
    hung.expect("completed", outputs={"a": {"ok": True}})
    assert hung.elapsed > timedelta(hours=2)
    died = harness.run([step("a", "task")], handlers={"task": dies()})
    assert (died.state, died.instance.parked_reason is not None) == ("paused", True), "poison is parked"
    assert {execution.result for execution in died.executions} == {"lost"}


def test_parts_that_take_time_run_side_by_side(harness: Harness) -> None:
    run = harness.run(
        [parallel("p", [step("a", "slow")], [step("b", "slower")]), step("z")],
        handlers={"slow": takes("10m", {"a": 1}), "slower": takes(timedelta(minutes=15), {"b": 1})},
    )
    run.expect("completed", data={"a": 1, "b": 1}, ran=["a", "b", "z"])
    assert run.elapsed == timedelta(minutes=15)


def test_a_part_that_takes_longer_than_the_step_allows_is_timed_out(harness: Harness) -> None:
    run = harness.run([step("a", "slow", timeout="1m")], handlers={"slow": takes("10m", {"a": 1})})
    assert (run.state, run.elapsed) == ("failed", timedelta(minutes=1))


# -- acts --------------------------------------------------------------------------------------------------------------


def test_signals_come_at_times_and_at_steps(harness: Harness) -> None:
    log: list[str] = []
    run = harness.run(
        [step("a"), step("b", delay={"duration": "1d"}), gate("g"), say("c", "{{ data.who }}")],
        signals=[
            at("2h", "pause"),
            at(timedelta(hours=30), "resume"),
            at(before("a"), lambda run: log.append(f"before a, {run.standing['a']}")),
            at(after("a"), lambda run: log.append(f"after a, {'a' in run.outputs}")),
            at(waiting("g"), answer("g", "yes")),
            at(before("c"), "update_context", {"data": {"who": "ada"}}),
        ],
    )
    run.expect("completed", outputs={"c": {"message": "ada"}})
    assert log == ["before a, ready", "after a, True"]
    assert ("scheduled", "paused") in run.history
    assert run.elapsed == timedelta(hours=30)


def test_acts_belong_to_the_n_th_time(harness: Harness) -> None:
    run = harness.run([loop("l", [step("a")], max_iterations=5), step("z")], signals=[at(after("a", 3), "cancel")])
    run.expect("cancelled", ran=["a", "a", "a"])


def test_a_run_at_rest_can_be_gone_on_with(harness: Harness) -> None:
    once = script(PermanentError("x"), {})
    run = harness.run([gate("g"), step("a", "task"), step("z")], handlers={"task": once})
    run.expect("waiting", standing={"g": "gate"})
    run.answer("g").expect("failed")
    run.retry().go().expect("completed", ran=["g", "a", "a", "z"])


def test_a_run_stops_where_it_is_told(harness: Harness) -> None:
    run = harness.run([step("a", delay={"duration": "10d"})], until="3d")
    run.expect("scheduled")
    assert run.elapsed == timedelta(days=3)
    assert run.go("8d").state == "completed"
    assert run.elapsed == timedelta(days=10)
    fixed = datetime(2026, 3, 3, tzinfo=UTC)
    assert harness.run([step("a", delay={"duration": "10d"})], until=fixed).clock == fixed


def test_a_bare_number_is_no_duration() -> None:
    with pytest.raises(TypeError, match="10m"):
        takes(10)  # type: ignore[arg-type]


def test_a_run_that_never_rests_is_stopped(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "MAX_TURNS", 200)
    with pytest.raises(Endless):
        harness.run([loop("l", [step("a")], max_iterations=100_000)])


# -- sequences ---------------------------------------------------------------------------------------------------------


def test_a_sequence_comes_in_every_form(harness: Harness, tmp_path: Path) -> None:
    document = {"name": "n", "version": 3, "blocks": [step("a")]}
    path = tmp_path / "n.json"
    path.write_text(json.dumps(document))
    short = {"id": "short", "blocks": [step("a")]}
    for source in (document, json.dumps(document), path, str(path), [step("a")], short):
        harness.run(source).expect("completed", ran=["a"])
    assert harness.run(document).plan.definition.version == 3
    with pytest.raises(LookupError, match="there are: "):
        harness.run("no_such_sequence")
    with pytest.raises(InvalidArgument):
        harness.run([step("a"), step("a")])


def test_data_must_fit_the_input_schema(harness: Harness) -> None:
    document = {"name": "n", "version": 1, "blocks": [step("a")], "input_schema": {"type": "object", "required": ["x"]}}
    harness.run(document, {"x": 1}).expect("completed")
    with pytest.raises(Unprocessable, match="input_schema"):
        harness.run(document, {})


def test_a_run_shows_its_session_state_and_logs(harness: Harness) -> None:
    run = harness.run(
        [step("s", "set_state", {"key": "k", "value": 1}), say("l", "{{ session.name }}")], session={"name": "ada"}
    )
    run.expect("completed", outputs={"l": {"message": "ada"}})
    assert run.kv == {"k": 1}
    assert run.logs == [("l", "info", "ada")]


def test_the_same_seed_gives_the_same_run(harness: Harness) -> None:
    blocks = [loop("l", [router("r", ("random(0, 2) == 1", [step("a")]), default=[step("b")])], max_iterations=20)]

    def path(seed: int) -> list[str]:
        return [execution.block_id for execution in harness.run(blocks, seed=seed).executions]

    assert path(1) == path(1)
    assert path(1) != path(2)


# -- what a person sees ------------------------------------------------------------------------------------------------


def test_a_failed_expectation_tells_all_differences_and_the_tree(harness: Harness) -> None:
    run = harness.run([step("a"), try_catch("t", [fail("b", "card is stolen")], [step("c")]), gate("g")])
    with pytest.raises(AssertionError) as failure:
        run.expect("completed", outputs={"a": 1, "x": 2}, ran=["a"], not_ran=["c"], standing={"g": "ready"})
    text = str(failure.value)
    for line in (
        "state: expected 'completed', found 'waiting'",
        "output of `a`: expected 1, found {}",
        "output of `x`: expected 2, found none",
        "`c` ran",
        "standing of `g`: expected 'ready', found 'gate'",
        "FAILED",
        "! card is stolen",
        "WAITING (gate)",
    ):
        assert line in text


def test_coverage_names_what_no_run_has_entered(harness: Harness) -> None:
    blocks = [
        router("r", ("data.x == 1", [step("one")]), ("data.x == 2", [step("two")]), default=[step("other")]),
        try_catch("t", [step("try", when="data.x > 5")], [step("caught")], [step("last")]),
        for_each("e", "none", [step("item")]),
    ]
    for x in (1, 3):
        harness.run(blocks, {"x": x})
    coverage = harness.coverage(blocks)
    assert coverage.runs == 2
    assert coverage.missed_blocks == ["two", "try", "caught", "item"]
    assert coverage.missed_branches == [
        "router `r`: route 2 (data.x == 2) was never taken",
        "try_catch `t`: try was never taken",
        "try_catch `t`: catch was never taken",
        "for_each `e`: the body was never taken",
    ]
    with pytest.raises(AssertionError, match=r"never entered: two, try, caught"):
        coverage.expect_all(but=("item",))
    coverage.expect_all(but=("two", "try", "caught", "item"))


def test_outputs_of_iterations_are_rows(harness: Harness) -> None:
    run = harness.run([for_each("e", "items", [say("a", "{{ data.item }}")])], {"items": ["x", "y"]})
    rows = [(row.iteration, row.output["message"]) for row in run.rows if row.block_id == "a"]
    assert rows == [((0,), "x"), ((1,), "y")]
    assert NodeKey("a", (1,)) in run.stored.nodes


def test_children_run_in_the_same_world(harness: Harness) -> None:
    child = [step("c", "task"), say("d", "{{ data.n }}")]
    blocks = [{"type": "sub_sequence", "id": "s", "sequence_name": "child", "input": {"n": "{{ data.n }}"}}, step("z")]
    run = harness.run(blocks, {"n": 7}, sub_sequences={"child": child}, handlers={"task": takes("1d", {"ok": True})})
    run.expect("completed", ran=["c", "d", "z"])
    assert [each.state for each in run.children] == ["completed"]
    assert run.children[0].outputs["d"] == {"message": 7}
    assert run.elapsed == timedelta(days=1)
    survived = harness.every_crash(blocks, {"n": 7}, sub_sequences={"child": child}, handlers={"task": {"ok": True}})
    assert survived.schedules > 30


def test_a_flow_signals_itself_through_a_letter(harness: Harness) -> None:
    params = {"instance_id": "{{ data.me }}", "signal_type": {"custom": "human_input:g"}, "payload": {"value": "yes"}}

    def tell(run: Any) -> None:
        run.signal("update_context", {"data": {"me": str(run.id)}})

    blocks = [step("a"), parallel("p", [step("s", "send_signal", params)], [gate("g")])]
    harness.run(blocks, signals=[at(after("a"), tell)]).expect("completed", data={"g": "yes"})
