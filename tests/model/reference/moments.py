"""When a step may run: delays, send windows, back-off (§5.6, §13.1, §13.2). All times are aware UTC datetimes."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

Json = Mapping[str, Any]


def duration(value: Any) -> timedelta:
    """Read a duration: an integer is milliseconds, any other number is seconds."""
    return timedelta(milliseconds=value) if isinstance(value, int) else timedelta(seconds=value)


def zone(name: str | None) -> ZoneInfo:
    """Give a time zone by its IANA name; UTC for a name that is none."""
    try:
        return ZoneInfo(name or "UTC")
    except (ZoneInfoNotFoundError, ValueError):
        return ZoneInfo("UTC")


def delayed_until(delay: Json, start: datetime, timezone: str, holidays: list[Any]) -> datetime:
    """Give the moment a delay ends; jitter is not modelled."""
    target = start + duration(delay["duration"])
    if local := delay.get("fire_at_local"):
        target = _local_moment(datetime.fromisoformat(local), zone(delay.get("timezone") or timezone))
    if delay.get("business_days_only"):
        target = _next_business_day(target, zone(timezone), [*delay.get("holidays", []), *holidays])
    return target


def _local_moment(wanted: datetime, where: ZoneInfo) -> datetime:
    """Place a wall clock time: the earlier one of a doubled time; one hour later inside a gap."""
    placed = wanted.replace(tzinfo=where, fold=0).astimezone(UTC)
    is_real = placed.astimezone(where).replace(tzinfo=None) == wanted
    return placed if is_real else (wanted + timedelta(hours=1)).replace(tzinfo=where).astimezone(UTC)


def _next_business_day(target: datetime, where: ZoneInfo, holidays: list[Any]) -> datetime:
    free = {_day(text) for text in holidays}
    local = target.astimezone(where)
    for _ in range(30):
        if local.weekday() == 5:
            local += timedelta(days=2)
        elif local.weekday() == 6 or local.date() in free:
            local += timedelta(days=1)
        else:
            break
    return local.astimezone(UTC)


def _day(text: Any) -> date | None:
    try:
        return date.fromisoformat(text)
    except (TypeError, ValueError):
        return None


def opening(window: Json, now: datetime, timezone: str) -> datetime:
    """Give `now` inside a send window, otherwise the moment it opens next."""
    start, end = window.get("start_hour", 9), window.get("end_hour", 17)
    days = window.get("days") or list(range(7))
    local = now.astimezone(zone(timezone))
    in_hours = start <= local.hour < end if start < end else local.hour >= start or local.hour < end
    if local.weekday() in days and in_hours:
        return now
    for ahead in range(9):
        day = local.date() + timedelta(days=ahead)
        if day.weekday() in days and (ahead or local.hour < start):
            return datetime(day.year, day.month, day.day, start, tzinfo=local.tzinfo).astimezone(UTC)
    raise AssertionError("a window opens within eight days")


def back_off(retry: Json, attempt: int) -> timedelta:
    """Give the wait after an attempt, counted from 0."""
    wait = duration(retry["initial_backoff"]) * retry.get("backoff_multiplier", 2.0) ** attempt
    return min(wait, duration(retry["max_backoff"]))
