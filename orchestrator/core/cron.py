"""Cron expressions: which moments they name.

Five fields, `minute hour day-of-month month day-of-week`; six with the second in front; seven with the year at the end.
A field is a list of `*`, numbers, ranges and steps (`*/5`, `10-30/5`, `7/2`), months and weekdays also by their English
names. Sunday is 0 and 7. Beside these, as users of cron and Quartz know them:

* `L` the last day of the month, `L-2` two days before it, `15W` the weekday nearest to the 15th within its month, `LW`
  the last weekday; `5L` or `FRIL` the last Friday, `FRI#2` the second one; `?` for a day field that says nothing;
* if both day fields say something a day must fit one of them, as in crontab(5); a field that begins with `*` restricts
  the other one instead;
* `@hourly`, `@daily`, `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@annually`.

An expression names local times. Each one is one moment: a time that the clocks skip is the first moment after the gap,
a time that they show twice is the first of the two. So the moments are in the order of the local times, and the next
one after a moment is that of a later local time than the moment's own.
"""

import re
from calendar import monthrange
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from functools import lru_cache
from typing import Final

from orchestrator.core.calendars import change_between, exists

MAX_CHARACTERS: Final = 255
SEARCHED_YEARS: Final = 100
"""A 29 February that falls on a certain weekday comes every 28 years, around a century without a leap year every 40."""
_LAST_YEAR: Final = 9998
_SECOND: Final = timedelta(seconds=1)
_MONTHS: Final = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS: Final = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_SUNDAY: Final = 7
_MACROS: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_ITEM: Final = re.compile(r"(?:(\*)|([0-9A-Z]+)(?:-([0-9A-Z]+))?)(?:/([0-9]{1,4}))?")
_LAST_DAY: Final = re.compile(r"L(?:-([0-9]{1,2}))?")
_NEAREST: Final = re.compile(r"([0-9]{1,2})W")
_LAST_OF_WEEKDAY: Final = re.compile(r"([0-7]|SUN|MON|TUE|WED|THU|FRI|SAT)L")
_NTH_OF_WEEKDAY: Final = re.compile(r"([0-7]|SUN|MON|TUE|WED|THU|FRI|SAT)#([1-5])")

DayRule = Callable[[int, int], frozenset[int]]
"""The days that fit, of a year's month."""


class CronError(ValueError):
    """The text is no cron expression; says which field is wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Field:
    """A field of an expression, and what it may hold."""

    name: str
    first: int
    last: int
    names: tuple[str, ...] = ()
    names_from: int = 0


_FIELD_OF: Final = {
    field.name: field
    for field in (
        _Field(name="second", first=0, last=59),
        _Field(name="minute", first=0, last=59),
        _Field(name="hour", first=0, last=23),
        _Field(name="day of month", first=1, last=31),
        _Field(name="month", first=1, last=12, names=_MONTHS, names_from=1),
        _Field(name="day of week", first=0, last=7, names=_WEEKDAYS),
        _Field(name="year", first=1970, last=2099),
    )
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cron:
    """A parsed expression.

    Args:
        years: None for any.
        days: Which days of a month fit.
    """

    seconds: tuple[int, ...]
    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    months: tuple[int, ...]
    years: frozenset[int] | None
    days: DayRule

    def next_fire(self, after: datetime, zone: tzinfo) -> datetime | None:
        """Give the first moment after another one; None if there is none within a hundred years.

        >>> parse("30 9 * * MON-FRI").next_fire(datetime(2026, 1, 2, 12, tzinfo=UTC), UTC).isoformat()
        '2026-01-05T09:30:00+00:00'

        Args:
            after: Aware.
            zone: Whose clocks the expression means.
        """
        local = after.astimezone(zone).replace(tzinfo=None, microsecond=0, fold=0)
        moments = (first_instant(time_of_day, zone) for time_of_day in self._local_times(local + _SECOND))
        return next((moment for moment in moments if moment > after), None)

    def fires(self, after: datetime, zone: tzinfo) -> Iterator[datetime]:
        """Give the moments after another one, in order."""
        moment = self.next_fire(after, zone)
        while moment is not None:
            yield moment
            moment = self.next_fire(moment, zone)

    def _local_times(self, start: datetime) -> Iterator[datetime]:
        for day in self._days(start.date()):
            first = start.time() if day == start.date() else time.min
            for hour in self.hours:
                if hour < first.hour:
                    continue
                for minute in self.minutes:
                    if (hour, minute) < (first.hour, first.minute):
                        continue
                    for second in self.seconds:
                        if (moment := time(hour, minute, second)) >= first:
                            yield datetime.combine(day, moment)

    def _days(self, start: date) -> Iterator[date]:
        for year in range(start.year, min(start.year + SEARCHED_YEARS, _LAST_YEAR) + 1):
            if self.years is not None and year not in self.years:
                continue
            for month in self.months:
                if (year, month) < (start.year, start.month):
                    continue
                for number in sorted(self.days(year, month)):
                    if (day := date(year, month, number)) >= start:
                        yield day


def first_instant(local: datetime, zone: tzinfo) -> datetime:
    """Give the UTC moment of a local time: the first of two, the end of the gap if there is none."""
    moment = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if exists(local, moment, zone):
        return moment
    return change_between(local.replace(tzinfo=zone, fold=1).astimezone(UTC), moment, zone)


@lru_cache(maxsize=1024)
def parse(text: str) -> Cron:
    """Read an expression.

    >>> parse("* * * *")
    Traceback (most recent call last):
        ...
    orchestrator.core.cron.CronError: a cron expression has 5, 6 or 7 fields, this one has 4

    Raises:
        CronError: It is none.
    """
    if len(text) > MAX_CHARACTERS:
        raise CronError(f"the cron expression is longer than {MAX_CHARACTERS} characters")
    fields = _MACROS.get(text.strip().lower(), text).upper().split()
    if not 5 <= len(fields) <= 7:
        raise CronError(f"a cron expression has 5, 6 or 7 fields, this one has {len(fields)}")
    year = fields.pop() if len(fields) == 7 else "*"
    second = fields.pop(0) if len(fields) == 6 else "0"
    minute, hour, day, month, weekday = fields
    return Cron(
        seconds=_values(second, _FIELD_OF["second"]),
        minutes=_values(minute, _FIELD_OF["minute"]),
        hours=_values(hour, _FIELD_OF["hour"]),
        months=_values(month, _FIELD_OF["month"]),
        years=None if year == "*" else frozenset(_values(year, _FIELD_OF["year"])),
        days=_day_rule(day, weekday),
    )


def _day_rule(day: str, weekday: str) -> DayRule:
    day, weekday = ("*" if written == "?" else written for written in (day, weekday))
    of_month = [_rule_of_days(item) for item in day.split(",")]
    of_week = [_rule_of_weekdays(item) for item in weekday.split(",")]
    is_either = not day.startswith("*") and not weekday.startswith("*")

    def days(year: int, month: int) -> frozenset[int]:
        by_day = frozenset().union(*(rule(year, month) for rule in of_month))
        by_weekday = frozenset().union(*(rule(year, month) for rule in of_week))
        return by_day | by_weekday if is_either else by_day & by_weekday

    return days


def _rule_of_days(item: str) -> DayRule:
    if found := _LAST_DAY.fullmatch(item):
        before = _in_range(found[1] or "0", item, _FIELD_OF["day of month"], first=0, last=30)
        return lambda year, month: _existing(monthrange(year, month)[1] - before, year, month)
    if item == "LW":
        return lambda year, month: frozenset({_nearest_weekday(monthrange(year, month)[1], year, month)})
    if found := _NEAREST.fullmatch(item):
        wanted = _in_range(found[1], item, _FIELD_OF["day of month"], first=1, last=31)
        return lambda year, month: frozenset(
            _nearest_weekday(number, year, month) for number in _existing(wanted, year, month)
        )
    numbers = frozenset(_values(item, _FIELD_OF["day of month"]))
    return lambda year, month: numbers & frozenset(range(1, monthrange(year, month)[1] + 1))


def _rule_of_weekdays(item: str) -> DayRule:
    if found := _LAST_OF_WEEKDAY.fullmatch(item):
        (weekday,) = _values(found[1], _FIELD_OF["day of week"])
        return lambda year, month: frozenset(_of_weekday(weekday, year, month)[-1:])
    if found := _NTH_OF_WEEKDAY.fullmatch(item):
        (weekday,) = _values(found[1], _FIELD_OF["day of week"])
        nth = int(found[2])
        return lambda year, month: frozenset(_of_weekday(weekday, year, month)[nth - 1 : nth])
    weekdays = _values(item, _FIELD_OF["day of week"])
    return lambda year, month: frozenset(day for each in weekdays for day in _of_weekday(each, year, month))


def _of_weekday(weekday: int, year: int, month: int) -> list[int]:
    """List the days of a month that fall on a weekday; 0 and 7 are Sunday."""
    before_first, length = monthrange(year, month)
    first = (weekday - 1 - before_first) % 7 + 1
    return list(range(first, length + 1, 7))


def _existing(number: int, year: int, month: int) -> frozenset[int]:
    return frozenset({number}) if 1 <= number <= monthrange(year, month)[1] else frozenset()


def _nearest_weekday(number: int, year: int, month: int) -> int:
    """Give the day from Monday to Friday nearest to a day, in the same month."""
    weekday = date(year, month, number).isoweekday()
    if weekday == 6:
        return number - 1 if number > 1 else number + 2
    if weekday == _SUNDAY:
        return number + 1 if number < monthrange(year, month)[1] else number - 2
    return number


def _values(written: str, field: _Field) -> tuple[int, ...]:
    found = {value for item in written.split(",") for value in _range(item, field)}
    return tuple(sorted(found))


def _range(item: str, field: _Field) -> range:
    matched = _ITEM.fullmatch(item)
    if matched is None:
        raise CronError(f"{item!r} is no {field.name}")
    star, first, last, step = matched.groups()
    size = field.last - field.first + 1
    stride = 1 if step is None else _in_range(step, item, field, first=1, last=size)
    if star:
        return range(field.first, field.last + 1, stride)
    start = _value(first, item, field)
    if last is None:
        end = start if step is None else field.last
    else:
        end = _value(last, item, field)
        if end == 0 < start and field.last == _SUNDAY:
            end = _SUNDAY
    if end < start:
        raise CronError(f"{item!r} ends before it begins")
    return range(start, end + 1, stride)


def _value(written: str, item: str, field: _Field) -> int:
    if written in field.names:
        return field.names.index(written) + field.names_from
    return _in_range(written, item, field, first=field.first, last=field.last)


def _in_range(written: str, item: str, field: _Field, *, first: int, last: int) -> int:
    if not (written.isdigit() and len(written) <= 4 and first <= int(written) <= last):
        raise CronError(f"{item!r} is no {field.name}: {written!r} is not within {first} and {last}")
    return int(written)
