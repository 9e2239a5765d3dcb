"""Which handlers are trusted to be quick."""

from workers.pace import QUICK_SECONDS, SLOW_SECONDS, TRUSTED_AFTER, Pace


def paced(*seconds: float) -> frozenset[str]:
    pace = Pace()
    for each in seconds:
        pace.note("a", each)
    return pace.quick


def test_a_handler_is_trusted_after_some_quick_runs() -> None:
    assert paced(*[0.0] * (TRUSTED_AFTER - 1)) == frozenset()
    assert paced(*[0.0] * TRUSTED_AFTER) == {"a"}


def test_a_run_that_is_not_quick_begins_the_count_anew() -> None:
    almost = [0.0] * (TRUSTED_AFTER - 1)
    assert paced(*almost, QUICK_SECONDS, *almost) == frozenset()


def test_trust_outlasts_a_hiccup_and_ends_with_a_slow_run() -> None:
    quick = [0.0] * TRUSTED_AFTER
    assert paced(*quick, SLOW_SECONDS) == {"a"}
    assert paced(*quick, SLOW_SECONDS * 1.01) == frozenset()
    assert paced(*quick, 1.0, *quick) == {"a"}
