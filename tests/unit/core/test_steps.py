"""Open steps: what they count for in the state of their instance, and how they end."""

import pytest

from tests.support.drive import Completed, PureWorld, step, try_catch


@pytest.mark.parametrize("handler", ["ap://a", "wasm://a", "https://a.example/b"])
def test_step_that_cannot_run_leaves_no_count_behind(handler: str) -> None:
    flow = PureWorld().start([try_catch("t", [step("a", handler)], [step("c")]), step("w", "external")])
    flow.run().check()
    assert flow.state == "waiting"
    assert flow.tree()["a"] == "failed"
    assert flow.row_ids() == ["c"]


def test_sleeping_step_no_longer_belongs_to_the_claim_that_put_it_to_sleep() -> None:
    """Its worker may die, or report again, after the commit: that must neither start the sleep anew nor end it."""
    world = PureWorld()
    flow = world.start([step("s", "sleep", {"duration_ms": 1000})])
    claim = flow.claim("s")
    flow.finish(claim, world.outcome(world.work(claim)))
    asleep = flow.steps()
    assert flow.standing() == {"s": "asleep"}
    assert not flow.lose(claim)
    flow.finish(claim, world.outcome(world.work(claim)))
    flow.finish(claim, Completed(output="early"))
    assert flow.steps() == asleep
    assert flow.settle().outputs("s") == [{"slept_ms": 1000}]
