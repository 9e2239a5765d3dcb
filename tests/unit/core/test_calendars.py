import doctest
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any
from zoneinfo import TZPATH, ZoneInfo, reset_tzpath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.core import calendars
from orchestrator.core.calendars import delay_due, is_open, next_opening
from sequences.document import Delay, SendWindow

BERLIN = "Europe/Berlin"
ZONES = [
    "UTC",
    BERLIN,
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Antarctica/Troll",
    "America/Havana",
    "Pacific/Apia",
    "America/St_Johns",
    "Nowhere/Land",
]


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def local(text: str, zone: str = BERLIN) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


def due(start: datetime, zone: str = "UTC", holidays: tuple[str, ...] = (), seed: int = 0, **members: Any) -> datetime:
    delay = Delay(**{"duration": 0, **members})
    return delay_due(delay, start=start, timezone=zone, holidays=holidays, random=Random(seed))


def opening(now: datetime, zone: str = "UTC", **members: Any) -> datetime | None:
    return next_opening(SendWindow(**members), now=now, timezone=zone)


def moments(first_year: int, last_year: int) -> st.SearchStrategy[datetime]:
    return st.integers(0, (last_year - first_year) * 365 * 86_400).map(
        lambda seconds: datetime(first_year, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
    )


# --- delays


def test_duration_is_added_to_the_instant_and_not_to_the_clock():
    spring = local("2026-03-28T12:00:00")
    assert due(spring, BERLIN, duration="1d") == local("2026-03-29T13:00:00")


@pytest.mark.parametrize(
    ("fire_at_local", "expected"),
    [
        ("2026-06-01T09:30:00", "2026-06-01T07:30:00"),
        ("2026-12-01T09:30:00", "2026-12-01T08:30:00"),
        ("2026-03-29T01:59:59", "2026-03-29T00:59:59"),
        ("2026-03-29T02:00:00", "2026-03-29T01:00:00"),  # gap 02:00-03:00 -> 03:00 CEST
        ("2026-03-29T02:30:00", "2026-03-29T01:30:00"),
        ("2026-03-29T03:00:00", "2026-03-29T01:00:00"),
        ("2026-10-25T01:59:59", "2026-10-24T23:59:59"),
        ("2026-10-25T02:00:00", "2026-10-25T00:00:00"),  # twice -> the earlier, CEST
        ("2026-10-25T02:59:59", "2026-10-25T00:59:59"),
        ("2026-10-25T03:00:00", "2026-10-25T02:00:00"),
    ],
)
def test_fixed_local_times_follow_the_clocks(fire_at_local: str, expected: str):
    start = utc("2026-01-01T00:00:00")
    assert due(start, BERLIN, fire_at_local=fire_at_local) == utc(expected)
    assert due(start, "Asia/Tokyo", fire_at_local=fire_at_local, timezone=BERLIN) == utc(expected)


@pytest.mark.parametrize(
    ("zone", "fire_at_local", "expected"),
    [
        ("Australia/Lord_Howe", "2026-10-04T02:15:00", "2026-10-03T16:15:00"),  # gap of 30 min: +1 h is 03:15 +11
        ("Pacific/Apia", "2011-12-30T12:00:00", "2011-12-30T22:00:00"),  # the day did not exist
        ("America/Havana", "2026-03-08T00:30:00", "2026-03-08T05:30:00"),  # gap at midnight
    ],
)
def test_unusual_gaps(zone: str, fire_at_local: str, expected: str):
    assert due(utc("2010-01-01T00:00:00"), zone, fire_at_local=fire_at_local) == utc(expected)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "2026-01-01",
        "2026-01-01T09:00",
        "2026-01-01 09:00:00",
        "2026-13-01T09:00:00",
        "2026-02-30T09:00:00",
        "2026-01-01T09:00:00Z",
        "2026-01-01T09:00:00+01:00",
        "2026-01-01T09:00:00.5",
        "２026-01-01T09:00:00",
    ],
)
def test_unreadable_local_time_leaves_the_duration(text: str):
    start = utc("2025-06-01T00:00:00")
    assert due(start, fire_at_local=text, duration="2h") == start + timedelta(hours=2)


def test_past_target_runs_now():
    start = utc("2026-06-01T00:00:00")
    for past in ("2026-05-30T23:59:59", "0001-01-01T00:00:00"):
        for zone in ZONES:
            assert due(start, zone, fire_at_local=past) == start
    for zone in ZONES:
        assert due(start, zone, fire_at_local="0001-01-01T00:00:00", timezone="UTC", business_days_only=True) == start
        assert due(start, zone, fire_at_local="0001-01-01T00:00:00", timezone="Asia/Tokyo", count="business") == start


@pytest.mark.parametrize("zone", ["Nowhere/Land", "", "America", "../etc/passwd", "UTC\x00", "\ud800", "x" * 5000])
def test_zone_that_does_not_exist_is_utc(zone: str):
    start = utc("2026-01-01T00:00:00")
    assert due(start, zone, fire_at_local="2026-06-01T09:00:00") == utc("2026-06-01T09:00:00")
    assert due(start, BERLIN, fire_at_local="2026-06-01T09:00:00", timezone=zone) == utc("2026-06-01T09:00:00")
    assert opening(utc("2026-06-01T08:59:00"), zone) == utc("2026-06-01T09:00:00")


@pytest.fixture
def zones_of_another_machine(tmp_path: Path) -> Iterator[Path]:
    """A zone database that is asked before the one of this machine."""
    reset_tzpath([str(tmp_path), *TZPATH])
    _forget_zones()
    yield tmp_path
    reset_tzpath()
    _forget_zones()


def _forget_zones() -> None:
    ZoneInfo.clear_cache()
    calendars.zone_of.cache_clear()
    calendars.zone_names.cache_clear()


@pytest.mark.parametrize("zone", ["localtime", "posixrules", "posix/Europe/Berlin", "right/Europe/Berlin"])
def test_zone_that_another_machine_has_not_or_has_otherwise_is_utc(zones_of_another_machine: Path, zone: str):
    file = zones_of_another_machine / zone
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(resources.files("tzdata").joinpath("zoneinfo", "Asia", "Tokyo").read_bytes())
    assert datetime(2026, 6, 1, tzinfo=ZoneInfo(zone)).utcoffset() == timedelta(hours=9)
    test_zone_that_does_not_exist_is_utc(zone)


# 2026-01-01 is a Thursday.
@pytest.mark.parametrize(
    ("start", "duration", "holidays", "expected"),
    [
        ("2026-01-02T10:00:00", "3d", (), "2026-01-05T10:00:00"),  # Friday + 3 d = Monday: days are not counted
        ("2026-01-02T10:00:00", "1d", (), "2026-01-05T10:00:00"),  # Saturday -> Monday
        ("2026-01-02T10:00:00", "2d", (), "2026-01-05T10:00:00"),  # Sunday -> Monday
        ("2026-01-01T10:00:00", "1d", (), "2026-01-02T10:00:00"),
        ("2026-01-02T10:00:00", "1d", ("2026-01-05",), "2026-01-06T10:00:00"),
        ("2026-01-01T10:00:00", "1d", ("2026-01-02",), "2026-01-05T10:00:00"),  # holiday Friday -> Saturday -> Monday
        ("2026-01-03T10:00:00", 0, (), "2026-01-05T10:00:00"),
        ("2026-01-01T10:00:00", "1d", ("2026-01-2", "02.01.2026", "20260102", "", "2026-02-30"), "2026-01-02T10:00:00"),
    ],
)
def test_landing_date_rolls_over_weekends_and_holidays(start: str, duration: Any, holidays: Any, expected: str):
    assert due(utc(start), duration=duration, business_days_only=True, holidays=holidays) == utc(expected)
    delay = Delay(duration=duration, business_days_only=True, holidays=holidays)
    assert delay_due(delay, start=utc(start), timezone="UTC", holidays=(), random=Random(0)) == utc(expected)


def test_day_and_clock_are_those_of_the_instances_zone():
    start = utc("2026-01-02T23:30:00")  # Saturday 00:30 in Berlin
    assert due(start, BERLIN, business_days_only=True) == local("2026-01-05T00:30:00")
    assert due(start, "UTC", business_days_only=True) == start


def test_clock_time_stays_over_a_change_of_the_clocks():
    saturday = local("2026-03-28T09:00:00")
    assert due(saturday, BERLIN, business_days_only=True) == local("2026-03-30T09:00:00")
    assert local("2026-03-30T09:00:00") - saturday == timedelta(hours=47)


def test_rolled_time_in_a_gap_moves_on():
    saturday = local("2026-03-07T02:30:00", "America/New_York")
    rolled = due(saturday - timedelta(days=6), "America/New_York", duration="6d", business_days_only=True)
    assert rolled == local("2026-03-09T02:30:00", "America/New_York")
    holidays = tuple(str(date(2026, 3, day)) for day in range(24, 28))
    everyday = due(local("2026-03-24T02:30:00"), BERLIN, business_days_only=True, holidays=holidays)
    assert everyday == local("2026-03-30T02:30:00")


def test_endless_holidays_end_after_thirty_steps():
    holidays = tuple(str(date(2026, 1, 1) + timedelta(days=day)) for day in range(1000))
    rolled = due(utc("2026-01-01T10:00:00"), business_days_only=True, holidays=holidays)
    assert timedelta(days=30) <= rolled - utc("2026-01-01T10:00:00") <= timedelta(days=60)


@pytest.mark.parametrize(
    ("start", "duration", "expected"),
    [
        ("2026-01-02T10:00:00", "3d", "2026-01-07T10:00:00"),  # Friday + 3 working days = Wednesday
        ("2026-01-03T10:00:00", "1d", "2026-01-05T10:00:00"),
        ("2026-01-04T10:00:00", "5d", "2026-01-09T10:00:00"),
        ("2026-01-02T10:00:00", "1w", "2026-01-13T10:00:00"),  # 7 working days
        ("2026-01-02T20:00:00", "6h", "2026-01-05T02:00:00"),  # lands on Saturday 02:00, rolls
        ("2026-01-02T10:00:00", "36h", "2026-01-05T22:00:00"),
        ("2026-01-03T10:00:00", 0, "2026-01-05T10:00:00"),
    ],
)
def test_business_count_counts_working_days(start: str, duration: Any, expected: str):
    assert due(utc(start), duration=duration, count="business") == utc(expected)
    assert due(utc(start), duration=duration, count="business", business_days_only=True) == utc(expected)


def working_days_one_by_one(day: date, count: int, holidays: set[date]) -> date:
    while count > 0:
        day += timedelta(days=1)
        count -= day.weekday() < 5 and day not in holidays
    return day


@given(st.dates(date(1990, 1, 1), date(2100, 1, 1)), st.integers(0, 60), st.sets(st.integers(-5, 100), max_size=30))
def test_business_count_equals_counting_one_by_one(day: date, count: int, offsets: set[int]):
    holidays = {day + timedelta(days=offset) for offset in offsets}
    start = datetime.combine(day, time(10), UTC)
    found = due(start, duration=f"{count}d", count="business", holidays=tuple(map(str, holidays)))
    if count:
        assert found.date() == working_days_one_by_one(day, count, holidays)
    assert found.date().weekday() < 5
    assert found.date() not in holidays
    assert found.time() == time(10)


def test_jitter_is_uniform_to_both_sides_and_in_milliseconds():
    start = utc("2026-01-01T00:00:00")
    offsets = [due(start, duration="1h", jitter=10, seed=seed) - start - timedelta(hours=1) for seed in range(2000)]
    milliseconds = {offset / timedelta(milliseconds=1) for offset in offsets}
    assert milliseconds == set(range(-10, 11))


def test_jitter_never_goes_before_the_start():
    start = utc("2026-01-01T00:00:00")
    found = [due(start, duration="1s", jitter="1h", seed=seed) for seed in range(100)]
    assert min(found) == start
    assert max(found) > start + timedelta(minutes=30)


def test_jitter_comes_last_and_may_leave_the_business_day():
    friday = utc("2026-01-02T23:59:00")
    assert any(due(friday, jitter="1h", business_days_only=True, seed=seed).weekday() == 5 for seed in range(20))


def test_delays_beyond_the_calendar_end_with_it():
    start = utc("2026-01-01T00:00:00")
    for members in ({}, {"business_days_only": True}, {"count": "business"}, {"jitter": "9999d"}):
        for zone in ZONES:
            assert due(start, zone, duration="9999999d", **members) == calendars.LATEST
    for zone in ZONES:
        end = due(start, zone, fire_at_local="9999-12-31T23:59:59", business_days_only=True, jitter="1d")
        assert end > utc("9999-12-28T00:00:00")


@given(
    moment=moments(1971, 2100),
    zone=st.sampled_from(ZONES),
    fixed=st.none() | st.datetimes().map(lambda moment: moment.replace(microsecond=0).isoformat()) | st.text(),
    duration=st.timedeltas(timedelta(0)),
    jitter=st.none() | st.timedeltas(timedelta(0)),
    business=st.booleans(),
    count=st.sampled_from([None, "business", "calendar"]),
    holidays=st.lists(st.dates().map(str) | st.text(), max_size=5).map(tuple),
)
def test_no_delay_is_an_error_or_before_its_start(  # type: ignore[no-untyped-def]
    moment, zone, fixed, duration, jitter, business, count, holidays
):
    members = {"duration": duration, "jitter": jitter, "business_days_only": business, "count": count}
    found = due(moment, zone, holidays, fire_at_local=fixed, **members)
    assert found >= moment
    assert found.tzinfo is UTC


# --- windows


# 2026-01-05 is a Monday.
@pytest.mark.parametrize(
    ("now", "members", "expected"),
    [
        ("2026-01-05T09:00:00", {}, None),
        ("2026-01-05T16:59:59", {}, None),
        ("2026-01-05T17:00:00", {}, "2026-01-06T09:00:00"),
        ("2026-01-05T08:59:59", {}, "2026-01-05T09:00:00"),
        ("2026-01-04T12:00:00", {"days": [0, 1, 2, 3, 4]}, "2026-01-05T09:00:00"),  # Sunday -> Monday
        ("2026-01-02T18:00:00", {"days": [0, 1, 2, 3, 4]}, "2026-01-05T09:00:00"),
        ("2026-01-05T18:00:00", {"days": [0]}, "2026-01-12T09:00:00"),  # a week ahead
        ("2026-01-05T08:00:00", {"days": [0]}, "2026-01-05T09:00:00"),
        ("2026-01-05T22:00:00", {"start_hour": 22, "end_hour": 6}, None),
        ("2026-01-05T05:59:59", {"start_hour": 22, "end_hour": 6}, None),
        ("2026-01-05T06:00:00", {"start_hour": 22, "end_hour": 6}, "2026-01-05T22:00:00"),
        ("2026-01-05T03:00:00", {"start_hour": 22, "end_hour": 6, "days": [0]}, None),  # Monday counts, not Sunday
        ("2026-01-06T03:00:00", {"start_hour": 22, "end_hour": 6, "days": [0]}, "2026-01-12T22:00:00"),
        ("2026-01-04T23:00:00", {"start_hour": 22, "end_hour": 6, "days": [0]}, "2026-01-05T22:00:00"),
        ("2026-01-05T00:00:00", {"start_hour": 0, "end_hour": 23}, None),
        ("2026-01-05T23:30:00", {"start_hour": 0, "end_hour": 23}, "2026-01-06T00:00:00"),
        ("2026-01-05T12:00:00", {"start_hour": 23, "end_hour": 0}, "2026-01-05T23:00:00"),
    ],
)
def test_window_opens(now: str, members: dict[str, Any], expected: str | None):
    assert opening(utc(now), **members) == (None if expected is None else utc(expected))


def test_weekly_window_that_a_gap_swallows_opens_a_week_later():
    friday = utc("2011-03-12T01:30:00")
    found = opening(friday, "America/New_York", start_hour=2, end_hour=3, days=[6])
    assert found == local("2011-03-20T02:00:00", "America/New_York")


def test_window_is_in_local_time():
    assert opening(utc("2026-07-01T06:59:59"), BERLIN) == utc("2026-07-01T07:00:00")
    assert opening(utc("2026-07-01T07:00:00"), BERLIN) is None
    assert opening(utc("2026-01-04T23:30:00"), BERLIN, days=[0], start_hour=0, end_hour=1) is None


@pytest.mark.parametrize(
    ("zone", "now", "start_hour", "end_hour", "expected"),
    [
        (BERLIN, "2026-03-29T00:30:00", 2, 5, "2026-03-29T01:00:00"),  # gap: opens at 03:00 CEST
        (BERLIN, "2026-03-29T00:30:00", 2, 3, "2026-03-30T00:00:00"),  # the whole window fell into the gap
        (BERLIN, "2026-10-24T23:30:00", 2, 5, "2026-10-25T00:00:00"),  # overlap: the first 02:00
        ("Australia/Lord_Howe", "2026-10-03T15:00:00", 2, 5, "2026-10-03T15:30:00"),  # gap 02:00-02:30
        ("America/Havana", "2026-03-08T04:30:00", 0, 5, "2026-03-08T05:00:00"),  # gap 00:00-01:00
        ("Pacific/Apia", "2011-12-30T09:00:00", 9, 17, "2011-12-30T19:00:00"),  # a day that did not exist
        ("Antarctica/Troll", "2026-10-25T01:10:00", 2, 3, "2026-10-25T02:00:00"),  # 03:00 went back to 01:00
    ],
)
def test_window_and_the_change_of_clocks(zone: str, now: str, start_hour: int, end_hour: int, expected: str):
    assert opening(utc(now), zone, start_hour=start_hour, end_hour=end_hour) == utc(expected)


@settings(max_examples=200, deadline=None)
@given(
    moment=moments(2008, 2030),
    zone=st.sampled_from(ZONES),
    hours=st.tuples(st.integers(0, 23), st.integers(0, 23)).filter(lambda pair: pair[0] < pair[1]),
    days=st.sets(st.integers(0, 6)),
)
def test_opening_is_the_first_open_moment(moment: datetime, zone: str, hours: tuple[int, int], days: set[int]):
    window = SendWindow(start_hour=hours[0], end_hour=hours[1], days=tuple(days))
    moment = moment.replace(minute=moment.minute // 15 * 15, second=0, microsecond=0)
    found = next_opening(window, now=moment, timezone=zone)
    tzinfo = calendars.zone_of(zone)
    quarters = (moment + timedelta(minutes=15 * number) for number in range(4 * 24 * 9))
    first = next(quarter for quarter in quarters if is_open(window, quarter.astimezone(tzinfo)))
    assert (moment if found is None else found) == first


@given(
    moment=moments(1971, 2100),
    zone=st.sampled_from(ZONES),
    start_hour=st.integers(0, 23),
    end_hour=st.integers(0, 23),
    days=st.sets(st.integers(0, 6)),
)
def test_window_is_open_when_it_opens(moment: datetime, zone: str, start_hour: int, end_hour: int, days: set[int]):
    window = SendWindow(start_hour=start_hour, end_hour=end_hour, days=tuple(days))
    found = next_opening(window, now=moment, timezone=zone)
    if found is not None:
        assert found > moment
        assert next_opening(window, now=found, timezone=zone) is None


def test_delay_then_window():
    sunday = due(utc("2026-01-01T12:00:00"), duration="3d")
    assert opening(sunday, days=[0, 1, 2, 3, 4]) == utc("2026-01-05T09:00:00")


def test_examples_in_docstrings_are_true():
    tried = doctest.testmod(calendars)
    assert tried.attempted
    assert not tried.failed
