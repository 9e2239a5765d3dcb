"""Composites: what starts, what stops, and what a retry goes on with."""

import pytest

from orchestrator.core.composites import nodes
from tests.support.drive import PureWorld, fail, for_each, loop, parallel, router, scope, step, try_catch

FAST = {"failure_policy": "fail_fast"}


def test_fail_fast_stops_what_was_about_to_start() -> None:
    """The first branch fails while the others are still being entered, block by block, in the same decision."""
    later = [
        [parallel("q", [step("x", "external")], [step("y", "external")])],
        [loop("l", [step("z", "external")])],
        [router("r", ("true", [for_each("e", "items", [step("u", "external")], concurrency=2)]))],
    ]
    flow = PureWorld().start([parallel("p", [fail("f", when="((")], *later, **FAST)], data={"items": [1, 2]})
    assert flow.check().state == "failed"
    assert flow.standing() == {}
    assert flow.row_ids() == []


def test_fail_fast_lets_a_finally_list_run_and_nothing_after_it() -> None:
    cleaned_up = try_catch("t", [step("x")], [], [step("fin", "external"), step("fin_2")])
    flow = PureWorld().start([parallel("p", [step("w", "external")], [cleaned_up, step("after")], **FAST)]).run()
    flow.fail("w")
    assert (flow.check().state, flow.standing()) == ("waiting", {"fin": "ready"})
    flow.complete("fin")
    assert flow.run().check().state == "failed"
    assert flow.row_ids() == ["x", "fin", "fin_2"]
    assert flow.tree()["after"] == "cancelled"


def test_fail_fast_inside_of_a_finally_list_stops_its_own_branches() -> None:
    inner = parallel("p", [step("w", "external")], [step("x", "external")], **FAST)
    flow = PureWorld().start([try_catch("t", [fail("f")], [], [inner])]).run()
    flow.fail("w")
    assert flow.check().state == "failed"
    assert flow.tree()["x"] == "cancelled"


def test_fail_fast_ends_a_loop_that_pauses_between_iterations() -> None:
    polling = loop("outer", [loop("l", [step("x")], poll_interval=60)])
    flow = PureWorld().start([parallel("p", [step("w", "external")], [polling], **FAST)]).run()
    assert flow.tree()["l"] == "running"
    flow.fail("w")
    assert flow.check().state == "failed"
    assert (flow.tree()["outer"], flow.tree()["l"]) == ("cancelled", "cancelled")


def test_retry_runs_the_items_again_that_were_cancelled() -> None:
    """A sibling's failure cancelled the item in progress; the retry must not take it for done."""
    items = for_each("e", "items", [step("x", "external"), step("y")], concurrency=2)
    flow = PureWorld().start([parallel("p", [step("w", "external")], [items], **FAST)], data={"items": [1, 2, 3, 4]})
    flow.complete("x")
    flow.run()
    flow.fail("w")
    assert flow.check().state == "failed"
    flow.retry().check()
    assert sorted(s.key.iteration for s in flow.steps("x")) == [(1,), (2,)]
    flow.complete("w")
    for _ in range(3):
        flow.complete("x")
        flow.run().check()
    assert flow.state == "completed"
    assert [row.iteration for row in flow.rows("y")] == [(0,), (1,), (2,), (3,)]
    assert [output["_index"] for output in flow.outputs("e")] == [1, 2, 3, 4]


def test_retry_of_a_loop_that_ended_between_two_iterations_tests_its_condition() -> None:
    waiting = loop("l", [step("x")], "go == true", poll_interval=60)
    flow = PureWorld().start([parallel("p", [step("w", "external")], [waiting], **FAST)], data={"go": True}).run()
    flow.signal("update_context", {"data": {"go": False}})
    flow.fail("w")
    assert (flow.check().state, flow.tree()["l"]) == ("failed", "cancelled")
    flow.retry().check()
    flow.complete("w")
    assert flow.run().check().state == "completed"
    assert len(flow.rows("x")) == 1


def test_cancelled_loop_does_not_pause_before_it_ends() -> None:
    flow = PureWorld().start([loop("l", [step("x", "external", cancellable=False)], poll_interval=60)])
    assert flow.cancel().state == "waiting"
    flow.complete("x")
    assert flow.check().state == "cancelled"


def test_loop_in_a_stopped_branch_does_not_pause_before_it_ends() -> None:
    body = [try_catch("t", [step("x")], [], [step("fin", "external")])]
    flow = PureWorld().start([parallel("p", [step("w", "external")], [loop("l", body, poll_interval=60)], **FAST)])
    flow.run().fail("w")
    flow.complete("fin")
    assert flow.check().state == "failed"


# -- one decision begins a bounded number of iterations ----------------------------------------------------------------

MANY = {"items": list(range(25))}


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nodes, "LISTS_PER_TURN", 10)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("concurrency", [1, 3, 100])
def test_for_each_whose_bodies_all_skip_lets_go_after_a_number_of_items(concurrency: int) -> None:
    world = PureWorld()
    body = [step("a", when="false"), router("r", ("false", []))]
    flow = world.start([for_each("e", "items", body, concurrency=concurrency), step("z")], data=MANY)
    assert (flow.check().state, len(flow.rows("e"))) == ("scheduled", 10)
    flow.pass_time()
    assert (flow.check().state, len(flow.rows("e"))) == ("scheduled", 20)
    flow.pass_time()
    assert (flow.check().standing(), len(flow.rows("e"))) == ({"z": "ready"}, 25)


@pytest.mark.usefixtures("bounded")
def test_for_each_of_many_items_at_once_starts_them_in_portions() -> None:
    flow = PureWorld().start([for_each("e", "items", [step("a", "external")], concurrency=25)], data=MANY)
    assert (flow.check().state, len(flow.steps())) == ("waiting", 10)
    flow.complete("a")
    assert len(flow.check().steps()) == 19
    flow.pass_time()
    assert len(flow.check().steps()) == 24
    for _ in range(24):
        flow.complete("a")
    assert (flow.check().state, len(flow.rows("a"))) == ("completed", 25)


@pytest.mark.usefixtures("bounded")
def test_for_each_that_fails_amid_starting_items_starts_no_more() -> None:
    flow = PureWorld().start([for_each("e", "items", [step("a", "external")], concurrency=25)], data=MANY)
    flow.fail("a")
    assert (len(flow.check().steps()), len(flow.world.timers(flow.id))) == (9, 0)
    for _ in range(9):
        flow.complete("a")
    assert flow.check().state == "failed"
    flow.retry()
    assert len(flow.check().steps()) == 11
    flow.settle()
    for _ in range(16):
        flow.complete("a")
        flow.settle()
    assert (flow.check().state, len(flow.rows("a"))) == ("completed", 25)


@pytest.mark.usefixtures("bounded")
def test_cancel_of_a_for_each_amid_starting_items_waits_for_those_that_are_shielded() -> None:
    body = [step("a", "external", cancellable=False)]
    flow = PureWorld().start([for_each("e", "items", body, concurrency=25), step("z")], data=MANY)
    flow.cancel()
    assert (flow.check().state, len(flow.steps()), flow.world.timers(flow.id)) == ("waiting", 10, {})
    for _ in range(10):
        flow.complete("a")
    assert (flow.check().state, flow.tree()["e"]) == ("cancelled", "cancelled")


@pytest.mark.usefixtures("bounded")
def test_for_each_in_a_scope_goes_on_amid_starting_items_after_a_cancel() -> None:
    flow = PureWorld().start([scope("s", for_each("e", "items", [step("a", when="false")])), step("z")], data=MANY)
    flow.cancel()
    assert flow.settle().check().state == "cancelled"
    assert (len(flow.rows("e")), flow.tree()["s"]) == (25, "completed")


def test_items_in_progress_when_the_state_was_set_by_hand_run_again() -> None:
    flow = PureWorld().start(
        [for_each("e", "items", [step("a", "external")], concurrency=2)], data={"items": [1, 2, 3]}
    )
    flow.complete("a")
    flow.force("cancelled").force("scheduled")
    assert sorted(s.key.iteration for s in flow.check().steps()) == [(1,), (2,)]
    flow.complete("a")
    flow.complete("a")
    assert (flow.check().state, len(flow.rows("a"))) == ("completed", 3)
