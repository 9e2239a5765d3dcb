"""Pausing, resuming and forcing a state: what is kept back, what goes on, what the state then reads."""

from datetime import timedelta

import pytest

from orchestrator.core.model import ROOT_KEY
from tests.support.drive import PureWorld, gate, parallel, step

HOUR = timedelta(hours=1)


def test_pause_stops_a_sleep_whose_handler_had_not_reported_yet() -> None:
    world = PureWorld()
    flow = world.start([step("s", "sleep", {"duration_ms": 1000})])
    claim = flow.claim("s")
    flow.pause()
    flow.finish(claim, world.outcome(world.work(claim)))
    assert flow.check().state == "paused"
    assert flow.resume().settle().state == "completed"
    assert flow.outputs("s") == [{"slept_ms": 1000}]


def test_pause_comes_before_a_gate_that_is_not_open_yet() -> None:
    flow = PureWorld().start([step("a", "external"), gate("g")])
    flow.pause()
    flow.complete("a")
    assert flow.check().state == "paused"
    assert flow.standing() == {"g": "held"}
    flow.answer("g")
    assert flow.check().state == "paused"
    flow.resume().run()
    assert flow.state == "completed"
    assert len(flow.rows("g")) == 2


def test_gate_behind_a_delay_opens_after_the_pause() -> None:
    flow = PureWorld().start([gate("g", delay={"duration": 1000})])
    flow.pause()
    flow.pass_time()
    assert (flow.check().state, flow.standing()) == ("paused", {"g": "held"})
    flow.resume()
    assert (flow.check().state, flow.standing()) == ("waiting", {"g": "gate"})


def test_paused_flow_with_an_open_gate_stays_paused_whatever_comes_in() -> None:
    flow = PureWorld().start([parallel("p", [step("s", "sleep", {"duration_ms": 500})], [gate("g")])]).run()
    flow.force("paused")
    flow.signal("update_context", {"data": {"a": 1}})
    assert flow.check().state == "paused"
    flow.answer("g")
    assert flow.check().state == "paused"
    assert flow.resume().settle().state == "completed"


def test_start_timer_that_fires_twice_means_nothing_the_second_time() -> None:
    """Two services may read the same due timer; only the first finds the instance waiting for it."""
    world = PureWorld()
    flow = world.start([step("a", "external"), step("b")], not_before=world.clock + HOUR)
    assert flow.check().pass_time()
    assert not world.fire(flow.id, ROOT_KEY)
    assert (flow.check().state, flow.standing()) == ("waiting", {"a": "ready"})
    flow.pause()
    flow.complete("a")
    assert not world.fire(flow.id, ROOT_KEY)
    assert (flow.check().state, flow.standing()) == ("paused", {"b": "held"})


@pytest.mark.parametrize("state", ["cancelled", "paused", "running"])
def test_flow_set_to_go_on_later_can_be_set_to_something_else(state: str) -> None:
    world = PureWorld()
    flow = world.start([parallel("p", [step("a")], [step("b", delay={"duration": 7_200_000})])])
    flow.force("paused").force("scheduled", world.clock + HOUR)
    assert (flow.check().state, flow.standing()) == ("scheduled", {"a": "held", "b": "delayed"})
    flow.force(state)
    assert flow.check().state == state
    if state == "paused":
        flow.force("scheduled", world.clock + 3 * HOUR).check()
    assert flow.settle().check().state == ("cancelled" if state == "cancelled" else "completed")


def test_cancel_of_a_flow_that_goes_on_later_leaves_no_timer() -> None:
    world = PureWorld()
    flow = world.start([step("a")])
    flow.force("paused").force("scheduled", world.clock + HOUR).cancel()
    assert flow.check().state == "cancelled"


@pytest.mark.parametrize("state", ["completed", "failed", "cancelled"])
def test_end_that_is_set_by_hand_stays_as_set_while_a_cancel_is_under_way(state: str) -> None:
    flow = PureWorld().start([step("s", "sleep", {"duration_ms": 1000}, cancellable=False)]).run()
    assert flow.cancel().state == "running"
    flow.force(state)
    assert flow.check().state == state


def test_flow_that_is_put_off_ends_no_sooner_though_its_last_gate_is_answered() -> None:
    world = PureWorld()
    flow = world.start([gate("g", gate={"choices": [{"label": "A", "value": "a"}]}, when="true")])
    flow.force("scheduled", world.clock + HOUR).check()
    flow.answer("g", "a")
    flow.run()
    assert (flow.check().state, flow.standing()) == ("scheduled", {"g": "held"})
    assert flow.resume().check().state == "scheduled"
    assert flow.settle().check().state == "completed"


def test_flow_that_fails_before_the_moment_it_was_to_go_on_leaves_no_timer() -> None:
    world = PureWorld()
    flow = world.start([gate("g", gate={"timeout": 1000})])
    flow.force("scheduled", world.clock + HOUR).check()
    flow.pass_time()
    assert flow.check().state == "failed"


def test_flow_whose_last_step_ends_while_it_is_put_off_completes_at_the_moment() -> None:
    world = PureWorld()
    flow = world.start([step("g", wait_for_signal=True)]).run()
    flow.force("scheduled", world.clock + HOUR).check()
    flow.signal("custom", {"a": 1})
    assert flow.check().state == "scheduled"
    assert flow.settle().check().state == "completed"
