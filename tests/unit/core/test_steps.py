"""Open steps: what they count for in the state of their instance, and how they end."""

import pytest

from tests.support.drive import PureWorld, step, try_catch


@pytest.mark.parametrize("handler", ["ap://a", "wasm://a", "https://a.example/b"])
def test_step_that_cannot_run_leaves_no_count_behind(handler: str) -> None:
    flow = PureWorld().start([try_catch("t", [step("a", handler)], [step("c")]), step("w", "external")])
    flow.run().check()
    assert flow.state == "waiting"
    assert flow.tree()["a"] == "failed"
    assert flow.row_ids() == ["c"]
