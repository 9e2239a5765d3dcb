"""Cancelling: what ends at once, what is finished first, and what nothing may hold up."""

from tests.support.drive import PureWorld, fail, step, try_catch


def test_cancel_lets_go_of_shielded_work_that_a_pause_kept_back() -> None:
    last = [step("s", "sleep", {"duration_ms": 1000}), step("z")]
    flow = PureWorld().start([try_catch("t", [fail("f")], [], last), step("after")]).run()
    flow.pause()
    assert (flow.state, flow.standing()) == ("paused", {"s": "held"})
    flow.cancel().check()
    flow.settle()
    assert flow.check().state == "cancelled"
    assert flow.row_ids() == ["s", "z"]
