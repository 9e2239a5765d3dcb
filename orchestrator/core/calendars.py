"""When a delayed step is due and when a send window opens. Source: sequence language contract §13.1-13.3.

All instants are aware and in UTC; local time is only a means. Two things happen to local time once a year. In spring
some wall-clock times do not exist (a gap), in autumn some exist twice (an overlap). The rules for both:

* `fire_at_local` in a gap moves on by one hour, in an overlap it means the earlier of the two;
* a window whose start hour falls into a gap opens with the first instant after the gap;
* a day that is rolled over a weekend or a holiday keeps its clock time, by the same rules.

Zones that do not exist are UTC, everywhere. Sums beyond the calendar are its last moment, never an error.
"""

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from random import Random
from typing import Final
from zoneinfo import ZoneInfo, available_timezones

from sequences.document import Delay, SendWindow

EARLIEST: Final = datetime(2, 1, 1, tzinfo=UTC)
"""Long ago, but not so long that a zone west of Greenwich has no name for it."""
LATEST: Final = datetime.max.replace(tzinfo=UTC)
MAX_ROLLS: Final = 30
"""Steps over weekends and holidays for one due time; a calendar full of holidays ends there."""
SEARCHED_DAYS: Final = 14
"""A window has at least one day a week; the second week is for an opening that a gap swallowed whole."""

_DAY: Final = timedelta(days=1)
_HOUR: Final = timedelta(hours=1)
_MILLISECOND: Final = timedelta(milliseconds=1)
_LOCAL_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}", re.ASCII)
_DATE: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_SATURDAY: Final = 5
_SUNDAY: Final = 6


def delay_due(delay: Delay, *, start: datetime, timezone: str, holidays: Iterable[str], random: Random) -> datetime:
    """Return the moment a delayed step may start: never before `start`.

    The target is `fire_at_local` if it can be read, else `start + duration`; then business days, then jitter.

    Args:
        delay: As it stands in the document.
        start: When the step was first reached; aware.
        timezone: The instance's.
        holidays: `YYYY-MM-DD` of the instance's configuration, added to the delay's own; what is no date is ignored.
        random: Source of the jitter.
    """
    try:
        target = _target(delay, start, timezone, _dates([*delay.holidays, *holidays]))
    except OverflowError:
        return LATEST
    return max(start.astimezone(UTC), shifted(target, _jitter(delay.jitter, random)))


def next_opening(window: SendWindow, *, now: datetime, timezone: str) -> datetime | None:
    """Return the next moment at which the window opens, or None if it is open now.

    Args:
        window: Hours and days, in the instance's local time.
        now: Aware.
        timezone: The instance's.
    """
    zone = zone_of(timezone)
    local = now.astimezone(zone)
    if is_open(window, local):
        return None
    days = (local.date() + days_ahead * _DAY for days_ahead in range(SEARCHED_DAYS + 1))
    openings = (opening for day in days for opening in _openings(day, window.start_hour, zone))
    found = (opening for opening in openings if opening > now and is_open(window, opening.astimezone(zone)))
    return next(found, shifted(now.astimezone(UTC), SEARCHED_DAYS * _DAY))


def is_open(window: SendWindow, local: datetime) -> bool:
    """Return whether a local time is inside of the window. Over midnight, the day that counts is the current one.

    >>> is_open(SendWindow(start_hour=22, end_hour=6, days=[0]), datetime(2026, 1, 5, 3))
    True
    """
    if window.days and local.weekday() not in window.days:
        return False
    if window.start_hour < window.end_hour:
        return window.start_hour <= local.hour < window.end_hour
    return local.hour >= window.start_hour or local.hour < window.end_hour


@lru_cache(maxsize=1024)
def zone_of(name: str) -> tzinfo:
    """Return the time zone; UTC for a name that is none.

    >>> zone_of("Mars/Olympus_Mons")
    datetime.timezone.utc
    """
    return ZoneInfo(name) if name in zone_names() else UTC


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Name all time zones; what else the zone database of a machine has under a name is none, on every machine.

    So neither its own zone (`localtime`, `posixrules`) nor a copy that counts leap seconds (`right/…`) is one.
    """
    return frozenset(available_timezones() - {"localtime"})


def _target(delay: Delay, start: datetime, timezone: str, holidays: frozenset[date]) -> datetime:
    zone = zone_of(timezone)
    fixed = None if delay.fire_at_local is None else _local_time(delay.fire_at_local)
    if fixed is not None:
        target = max(EARLIEST, _instant(fixed, zone if delay.timezone is None else zone_of(delay.timezone)))
    elif delay.count == "business":
        target = _counted(start, delay.duration, zone, holidays)
    else:
        target = start.astimezone(UTC) + delay.duration
    if delay.business_days_only or delay.count == "business":
        return _rolled(target, zone, holidays)
    return target


def _counted(start: datetime, duration: timedelta, zone: tzinfo, holidays: frozenset[date]) -> datetime:
    """Add the whole days of a duration as working days, keeping the clock time, and the rest as time."""
    local = start.astimezone(zone)
    day = _working_days_after(local.date(), duration // _DAY, holidays)
    landed = start.astimezone(UTC) if day == local.date() else _instant(datetime.combine(day, _clock(local)), zone)
    return landed + duration % _DAY


def _working_days_after(day: date, count: int, holidays: frozenset[date]) -> date:
    """Return the working day that is number `count` after a day; the day itself for 0.

    Whole weeks are jumped over, so that the work does not grow with the count: it may be millions.
    """
    if count == 0:
        return day
    friday = day - max(0, day.weekday() - _SATURDAY + 1) * _DAY  # from a weekend one counts as from its Friday
    landing = friday + (count // 5) * 7 * _DAY
    for _ in range(count % 5):
        landing = _next_weekday(landing)
    for holiday in sorted(holidays):
        if day < holiday <= landing and holiday.weekday() < _SATURDAY:
            landing = _next_weekday(landing)
    return landing


def _next_weekday(day: date) -> date:
    return day + (3 if day.weekday() == _SATURDAY - 1 else 1) * _DAY


def _rolled(target: datetime, zone: tzinfo, holidays: frozenset[date]) -> datetime:
    """Move a target that lands on a weekend or holiday to a later day, at the same clock time."""
    local = target.astimezone(zone)
    day = local.date()
    for _ in range(MAX_ROLLS):
        days = _days_to_skip(day, holidays)
        if days == 0:
            break
        day += days * _DAY
    return target if day == local.date() else _instant(datetime.combine(day, _clock(local)), zone)


def _days_to_skip(day: date, holidays: frozenset[date]) -> int:
    if day.weekday() == _SATURDAY:
        return 2
    return 1 if day.weekday() == _SUNDAY or day in holidays else 0


def _clock(local: datetime) -> time:
    return local.time().replace(fold=0)


def _instant(local: datetime, zone: tzinfo) -> datetime:
    """Return the UTC instant of a wall-clock time: the earlier one of two, one hour on if there is none."""
    try:
        instant = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
        if exists(local, instant, zone):
            return instant
        later = (local + _HOUR).replace(tzinfo=zone, fold=0).astimezone(UTC)
    except OverflowError:
        return EARLIEST if local.year == 1 else LATEST
    return later if exists(local + _HOUR, later, zone) else instant  # a gap of a day: on by the length of the gap


def _openings(day: date, hour: int, zone: tzinfo) -> Iterable[datetime]:
    """Return the instants at which an hour begins on a day: one, both of an overlap, or the first after a gap."""
    local = datetime.combine(day, time(hour))
    by_old_offset, by_new_offset = (local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))
    if exists(local, by_old_offset, zone):
        return (by_old_offset, by_new_offset)
    return (change_between(by_new_offset, by_old_offset, zone),)


def change_between(before: datetime, after: datetime, zone: tzinfo) -> datetime:
    """Return the instant, to the second, at which the clocks of the zone changed; they did so once in between."""
    offset = after.astimezone(zone).utcoffset()
    while after - before > timedelta(seconds=1):
        middle = before + (after - before) // 2
        if middle.astimezone(zone).utcoffset() == offset:
            after = middle
        else:
            before = middle
    return after.replace(microsecond=0)


def exists(local: datetime, instant: datetime, zone: tzinfo) -> bool:
    """Return whether the clocks of the zone ever showed `local`, whose instant this would be."""
    return instant.astimezone(zone).replace(tzinfo=None, fold=0) == local.replace(fold=0)


def _jitter(jitter: timedelta | None, random: Random) -> timedelta:
    if not jitter:
        return timedelta(0)
    most = jitter // _MILLISECOND
    return random.randint(-most, most) * _MILLISECOND


def shifted(moment: datetime, by: timedelta) -> datetime:
    """Give a moment later by some time, or earlier; beyond the calendar, its end."""
    try:
        return moment + by
    except OverflowError:
        return LATEST if by > timedelta(0) else EARLIEST


def _local_time(text: str) -> datetime | None:
    if _LOCAL_TIME.fullmatch(text) is None:
        return None
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _dates(texts: Iterable[str]) -> frozenset[date]:
    found = (_date(text) for text in texts if _DATE.fullmatch(text))
    return frozenset(day for day in found if day is not None)


def _date(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
