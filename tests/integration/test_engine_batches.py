"""Reports that are committed together, and what each of them may leave to others."""

import pytest

from orchestrator.settings import Settings
from orchestrator.store.session import Store
from tests.support.drive import StoredWorld, fail, parallel, step


@pytest.fixture
def world(store: Store, settings: Settings) -> StoredWorld:
    return StoredWorld(store, settings)


@pytest.mark.parametrize("carry", [False, True])
def test_step_that_a_later_report_of_the_batch_cancels_is_not_handed_out(world: StoredWorld, *, carry: bool) -> None:
    """The first report makes `b` ready, the second stops its branch: `b` must be gone after the commit."""
    flow = world.start([parallel("p", [step("a"), step("b")], [fail("f")], failure_policy="fail_fast")])
    claims = world.claim_many()
    assert [claim.key.block_id for claim in claims] == ["a", "f"]
    reports = [(claim, world.outcome(world.work(claim))) for claim in claims]
    assert world.finish(reports, carry=carry) == []
    assert flow.check().state == "failed"
    assert flow.tree()["b"] == "cancelled"
