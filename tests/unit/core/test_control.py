"""Pausing, resuming and forcing a state: what is kept back, what goes on, what the state then reads."""

from datetime import timedelta

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
