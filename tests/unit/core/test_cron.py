"""Cron expressions: what they name, in every zone, and what is none."""

from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import settings as search
from hypothesis import strategies as st

from orchestrator.core.cron import CronError, first_instant, parse

BERLIN = ZoneInfo("Europe/Berlin")
ZONES = [
    ZoneInfo(name) for name in ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
]
SPRING, AUTUMN = datetime(2026, 3, 29, 1, tzinfo=UTC), datetime(2026, 10, 25, 1, tzinfo=UTC)
"""When the clocks of Berlin change."""


def fires(expression: str, after: str, zone: ZoneInfo = ZONES[0], count: int = 3) -> list[str]:
    """The next moments in the zone's time, without its offset."""
    found = islice(parse(expression).fires(datetime.fromisoformat(after).replace(tzinfo=zone), zone), count)
    return [moment.astimezone(zone).strftime("%Y-%m-%d %H:%M:%S") for moment in found]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", "2026-01-01 00:01:00 2026-01-01 00:02:00"),
        ("* * * * * *", "2026-01-01 00:00:01 2026-01-01 00:00:02"),
        ("30 9 * * *", "2026-01-01 09:30:00 2026-01-02 09:30:00"),
        ("15 30 9 * * *", "2026-01-01 09:30:15 2026-01-02 09:30:15"),
        ("0 0 9 1 1 ? 2027-2029/2", "2027-01-01 09:00:00 2029-01-01 09:00:00"),
        ("*/20 8-9 * * *", "2026-01-01 08:00:00 2026-01-01 08:20:00"),
        ("50/5 * * * *", "2026-01-01 00:50:00 2026-01-01 00:55:00"),
        ("0 12 * jan,MAR fri", "2026-01-02 12:00:00 2026-01-09 12:00:00"),
        ("0 0 * * MON-FRI", "2026-01-02 00:00:00 2026-01-05 00:00:00"),
        ("0 0 * * FRI-SUN", "2026-01-02 00:00:00 2026-01-03 00:00:00"),
        ("0 0 * * 0", "2026-01-04 00:00:00 2026-01-11 00:00:00"),
        ("0 0 * * 0-0", "2026-01-04 00:00:00 2026-01-11 00:00:00"),
        ("0 0 * * 7", "2026-01-04 00:00:00 2026-01-11 00:00:00"),
        ("0 0 * * 5-7", "2026-01-02 00:00:00 2026-01-03 00:00:00"),
        ("0 0 13 * 5", "2026-01-02 00:00:00 2026-01-09 00:00:00"),
        ("0 0 */2 * 5", "2026-01-09 00:00:00 2026-01-23 00:00:00"),
        ("0 0 13 * ?", "2026-01-13 00:00:00 2026-02-13 00:00:00"),
        ("0 0 31 * *", "2026-01-31 00:00:00 2026-03-31 00:00:00"),
        ("0 0 29 2 *", "2028-02-29 00:00:00 2032-02-29 00:00:00"),
        ("0 0 L * *", "2026-01-31 00:00:00 2026-02-28 00:00:00"),
        ("0 0 L-29 * *", "2026-01-02 00:00:00 2026-03-02 00:00:00"),
        ("0 0 LW * *", "2026-01-30 00:00:00 2026-02-27 00:00:00"),
        ("0 0 4W * *", "2026-01-05 00:00:00 2026-02-04 00:00:00"),
        ("0 0 1W 2,8 *", "2026-02-02 00:00:00 2026-08-03 00:00:00"),
        ("0 0 31W 1,5 *", "2026-01-30 00:00:00 2026-05-29 00:00:00"),
        ("0 0 * * 5L", "2026-01-30 00:00:00 2026-02-27 00:00:00"),
        ("0 0 * * THU#1,MON#5", "2026-02-05 00:00:00 2026-03-05 00:00:00"),
        ("@daily", "2026-01-02 00:00:00 2026-01-03 00:00:00"),
        ("@Weekly", "2026-01-04 00:00:00 2026-01-11 00:00:00"),
        ("  0\t0   1 * * ", "2026-02-01 00:00:00 2026-03-01 00:00:00"),
    ],
)
def test_what_an_expression_names(expression: str, expected: str) -> None:
    assert " ".join(fires(expression, "2026-01-01 00:00:00", count=2)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "*", "* * * *", "* * * * \0", "* * * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *",
        "* * * 0 *", "* * * 13 *", "* * * * 8", "60 * * * * *", "0 0 0 1 1 * 1969", "0 0 0 1 1 * 2100", "a * * * *",
        "* * * foo *", "* * * * fri#6", "* * * * L", "* * * L *", "L * * * *", "? * * * *", "* * 32W * *",
        "* * L-31 * *", "*/0 * * * *", "*/61 * * * *", "5-1 * * * *", "1,,2 * * * *", "1, * * * *", "-1 * * * *",
        "1-2-3 * * * *", "1/ * * * *", "1.5 * * * *", "² * * * *", "٣ * * * *", "@never", "@daily @daily", "1 " * 300,
    ],
)  # fmt: skip
def test_what_is_no_expression(text: str) -> None:
    with pytest.raises(CronError):
        parse(text)


@pytest.mark.parametrize("expression", ["0 0 30 2 *", "0 0 31 4,6,9,11 *", "0 0 0 1 1 * 2025"])
def test_what_never_comes(expression: str) -> None:
    assert fires(expression, "2026-01-01 00:00:00") == []


def test_a_skipped_time_is_the_first_moment_after_the_gap() -> None:
    assert fires("30 2 * * *", "2026-03-28 12:00:00", BERLIN, 2) == ["2026-03-29 03:00:00", "2026-03-30 02:30:00"]
    assert next(parse("30 2 * * *").fires(SPRING - timedelta(hours=1), BERLIN)) == SPRING
    expected = ["2026-03-29 01:40:00", "2026-03-29 03:00:00", "2026-03-29 03:20:00"]
    assert fires("*/20 * * * *", "2026-03-29 01:30:00", BERLIN) == expected


def test_a_doubled_time_is_the_first_of_the_two() -> None:
    moments = list(islice(parse("30 2 * * *").fires(AUTUMN - timedelta(days=1), BERLIN), 2))
    assert moments == [AUTUMN - timedelta(minutes=30), AUTUMN + timedelta(hours=24, minutes=30)]
    for minutes in (0, 10, 59):
        assert parse("30 2 * * *").next_fire(AUTUMN + timedelta(minutes=minutes), BERLIN) == moments[1]


def test_a_day_that_a_zone_has_skipped() -> None:
    """Samoa went from the 29th to the 31st of December 2011."""
    apia = ZoneInfo("Pacific/Apia")
    assert fires("0 12 * * *", "2011-12-29 06:00:00", apia) == [
        "2011-12-29 12:00:00",
        "2011-12-31 00:00:00",
        "2011-12-31 12:00:00",
    ]


# -- properties ------------------------------------------------------------------------------------------------------

_MOMENTS = st.integers(157_766_400, 3_786_912_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
_NEAR_CHANGES = st.builds(
    lambda change, seconds: change + timedelta(seconds=seconds),
    st.sampled_from([SPRING, AUTUMN, datetime(2026, 3, 8, 7, tzinfo=UTC), datetime(2026, 11, 1, 6, tzinfo=UTC)]),
    st.integers(-9000, 9000),
)


def _fields(first: int, last: int) -> st.SearchStrategy[str]:
    number = st.integers(first, last)
    spans = st.tuples(number, number).map(lambda pair: f"{min(pair)}-{max(pair)}")
    steps = st.builds(lambda span, step: f"{span}/{step}", spans | st.just("*"), st.integers(1, last - first + 1))
    lists = st.lists(number.map(str) | spans | steps, min_size=1, max_size=3).map(",".join)
    return st.just("*") | lists


_TIMES = st.builds(lambda *fields: " ".join(fields), _fields(0, 59), _fields(0, 59), _fields(0, 23))
_EXPRESSIONS = st.builds(
    lambda times, day, month, weekday: f"{times} {day} {month} {weekday}",
    _TIMES,
    _fields(1, 28) | st.sampled_from(["L", "15W", "LW", "?"]),
    _fields(1, 12),
    _fields(0, 6) | st.sampled_from(["5L", "MON#1", "?"]),
)


@given(_EXPRESSIONS, _MOMENTS | _NEAR_CHANGES, st.sampled_from(ZONES))
def test_fires_are_in_the_future_and_in_order(expression: str, after: datetime, zone: ZoneInfo) -> None:
    found = list(islice(parse(expression).fires(after, zone), 3))
    assert [after, *found] == sorted({after, *found})
    assert all(moment.microsecond == 0 and moment.tzinfo is UTC for moment in found)


@given(_EXPRESSIONS, _MOMENTS | _NEAR_CHANGES, st.sampled_from(ZONES), st.floats(0, 1, exclude_max=True))
def test_the_next_fire_is_the_same_until_it_has_come(
    expression: str, after: datetime, zone: ZoneInfo, part: float
) -> None:
    cron = parse(expression)
    first = cron.next_fire(after, zone)
    assert first is not None
    between = after + (first - after) * part
    assert cron.next_fire(between, zone) == (first if between < first else cron.next_fire(first, zone))


@search(max_examples=20)
@given(_TIMES, _NEAR_CHANGES, st.sampled_from(ZONES))
def test_fires_are_those_of_a_walk_through_all_local_times(times: str, after: datetime, zone: ZoneInfo) -> None:
    """The rule in words: each local time that fits, in order, at its one moment."""
    second, minute, hour = times.split()
    fitting = [parse(f"{second} {minute} {hour} * * *")]
    local = after.astimezone(zone).replace(tzinfo=None, microsecond=0) - timedelta(hours=3)
    named = {
        first_instant(moment, zone)
        for n in range(6 * 3600)
        if (moment := local + timedelta(seconds=n)).second in fitting[0].seconds
        and moment.minute in fitting[0].minutes
        and moment.hour in fitting[0].hours
    }
    until = after + timedelta(hours=1)
    expected = sorted(moment for moment in named if after < moment < until)
    found = []
    for moment in fitting[0].fires(after, zone):
        if moment >= until:
            break
        found.append(moment)
    assert found == expected


@given(st.text(max_size=30) | st.lists(st.sampled_from("*?LW#/-,059 FRI@"), max_size=30).map("".join))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        cron = parse(text)
    except CronError:
        return
    cron.next_fire(datetime(2026, 1, 1, tzinfo=UTC), BERLIN)
