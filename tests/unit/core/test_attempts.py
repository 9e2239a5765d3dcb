"""The gates and attempts of a step."""

import pytest

from tests.support.drive import PureWorld, step

DAY_MS = 86_400_000


@pytest.mark.parametrize("members", [{"count": "business"}, {"business_days_only": True}])
def test_holidays_of_the_config_count_for_both_kinds_of_business_days(members: dict[str, object]) -> None:
    """The clock stands on a Monday; the Tuesday is a holiday."""
    delayed = step("a", delay={"duration": DAY_MS, **members})
    flow = PureWorld().start([delayed], config={"holidays": ["2026-03-03", 7, "soon"]})
    assert flow.due_in() == 2 * 86_400
