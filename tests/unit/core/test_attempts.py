"""The gates and attempts of a step."""

from datetime import timedelta

import pytest

from tests.support.drive import PureWorld, step

DAY_MS = 86_400_000


@pytest.mark.parametrize("members", [{"count": "business"}, {"business_days_only": True}])
def test_holidays_of_the_config_count_for_both_kinds_of_business_days(members: dict[str, object]) -> None:
    """The clock stands on a Monday; the Tuesday is a holiday."""
    delayed = step("a", delay={"duration": DAY_MS, **members})
    flow = PureWorld().start([delayed], config={"holidays": ["2026-03-03", 7, "soon"]})
    assert flow.due_in() == 2 * 86_400


def test_time_out_of_a_task_goes_on_while_one_worker_dies_and_another_takes_over() -> None:
    world = PureWorld()
    flow = world.start([step("a", "external", timeout=10_000)])
    world.clock += timedelta(seconds=1)
    claim = flow.claim("a")
    world.clock += timedelta(seconds=7)
    assert flow.lose(claim)
    assert flow.check().due_in() == 2
