"""Statements over rows that the server parses and plans once for each connection, where the connection is ours alone.

There are two forms of each. A lone row is given as it is, value by value. Several rows are given as one array for each
column, so that the text of the statement does not depend on their number. What is sent is the name of the statement and
the text of the values (PostgreSQL, "Array Input and Output Syntax"). Taking one row out of 30 arrays costs the server
three times what taking 30 values does (`steps`: 196 and 60 µs).

Behind a pooler of transactions the next statement may reach another session, which keeps nothing of ours: there a
statement is sent whole, with the same texts in it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from operator import attrgetter
from types import NoneType
from typing import Any, Final, TypeVar
from uuid import UUID

_PARAMETER = re.compile(r"\$(\d+)")

MARK: Final = "orchestrator.is_current"
"""A setting of one transaction: `no` once a fence has found that what is to be written was decided on what is gone."""
MAY_WRITE: Final = f"current_setting('{MARK}', true) IS DISTINCT FROM 'no'"
""""Nothing is known against writing": what statements over rows look at, so that a fence may be in the same message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A statement, as the server keeps it and as it is sent whole.

    Args:
        prepare: Makes the server keep it; empty for one that is always sent whole, and so planned anew each time.
        execute: Runs what is kept, with a place for each parameter.
        whole: Runs without being kept; the places of its parameters are named by their numbers.
        suits_all: The plan that is made for one tenant suits every other one: no way it takes depends on how much is
            whose. Only then it is kept where it runs in the role of tenants.
    """

    name: str
    prepare: str
    execute: str
    whole: str
    suits_all: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A statement over rows, in its two forms."""

    for_one: Form
    for_many: Form


def prepared(name: str, columns: str, statement: str, *, joins: bool = False) -> Prepared:
    """Give a statement over rows.

    Args:
        joins: The rows are joined with a table. How that is done best depends on the size of the table: a plan that was
            made while it was empty reads all of it ever after, so for many rows a new one is made each time.
        name: Its own among all statements.
        columns: Names and types of the columns of a row.
        statement: The SQL; `{columns}` stands for the names, `{rows}` for the rows, as the table `v`.

    >>> made = prepared("put", "id uuid, path int[]", "INSERT INTO t ({columns}) SELECT * FROM {rows}")
    >>> print(made.for_one.prepare)
    PREPARE put_one (uuid, int[]) AS INSERT INTO t (id, path) SELECT * FROM (SELECT $1 AS id, $2 AS path \
WHERE current_setting('orchestrator.is_current', true) IS DISTINCT FROM 'no') AS v
    >>> print(made.for_many.prepare)
    PREPARE put (uuid[], text[]) AS INSERT INTO t (id, path) SELECT * FROM \
(SELECT id, path::int[] FROM unnest($1, $2) AS u (id, path) \
WHERE current_setting('orchestrator.is_current', true) IS DISTINCT FROM 'no') AS v
    >>> print(made.for_many.execute)
    EXECUTE put (%s, %s)
    """
    split = [column.split() for column in columns.split(", ")]
    names = ", ".join(column for column, _ in split)
    statement = statement.replace("{columns}", names)
    values = ", ".join(f"${position} AS {column}" for position, (column, _) in enumerate(split, 1))
    # Arrays of arrays would have to be of one length: an array in a row is sent as its text.
    read = ", ".join(column if kind == _element_type(kind) else f"{column}::{kind}" for column, kind in split)
    arrays = ", ".join(f"${position}" for position in range(1, len(split) + 1))
    one = statement.replace("{rows}", f"(SELECT {values} WHERE {MAY_WRITE}) AS v")
    many = statement.replace("{rows}", f"(SELECT {read} FROM unnest({arrays}) AS u ({names}) WHERE {MAY_WRITE}) AS v")
    types = [f"{_element_type(kind)}[]" for _, kind in split]
    return Prepared(
        for_one=form(f"{name}_one", [kind for _, kind in split], one),
        for_many=form(name, types, many, is_kept=not joins),
    )


def form(name: str, types: Sequence[str], statement: str, *, is_kept: bool = True, suits_all: bool = False) -> Form:
    """Give a statement; its parameters are `$1` and so on.

    >>> form("half", ["int", "text"], "SELECT $1 % 2, $2, $1").whole
    'SELECT CAST(%(1)s AS int) %% 2, CAST(%(2)s AS text), CAST(%(1)s AS int)'
    """
    kinds, places = (f" ({', '.join(each)})" if types else "" for each in (types, ["%s"] * len(types)))
    return Form(
        name=name,
        prepare=f"PREPARE {name}{kinds} AS {statement}" if is_kept else "",
        execute=f"EXECUTE {name}{places}",
        whole=_PARAMETER.sub(
            lambda found: f"CAST(%({found[1]})s AS {types[int(found[1]) - 1]})", statement.replace("%", "%%")
        ),
        suits_all=suits_all,
    )


def _element_type(kind: str) -> str:
    return "text" if kind.endswith("[]") else kind


def texts_of(row: Sequence[Any]) -> list[str | None]:
    """Write the values of a row as PostgreSQL reads them; None is SQL's NULL.

    >>> texts_of([True, (1, 2), timedelta(minutes=1), None])
    ['t', '{1,2}', '0 days 60.000000 seconds', None]
    """
    return [None if value is None else _TEXTS[type(value)](value) for value in row]


def literals_of(row: Sequence[Any]) -> str | None:
    """Write the values of a row as SQL literals; None if the driver has to, which takes five times as long.

    What holds no quote, no backslash and nothing but ASCII means the same in every literal of every session; between
    dollars also the other two (PostgreSQL, "Dollar-quoted String Constants").

    >>> literals_of([True, (1, 2), "plain", None])
    "'t', '{1,2}', 'plain', NULL"
    >>> literals_of(["it's"]), literals_of(["$q it's"]), literals_of(["é"])
    ("$q$it's$q$", None, None)
    """
    literals = [_LITERALS[type(value)](value) for value in row]
    return None if None in literals else ", ".join(literals)  # type: ignore[arg-type]  # none of them is None


def arrays_of(rows: Iterable[Sequence[Any]]) -> list[str]:
    """Write rows as one array for each column.

    >>> arrays_of([(1, "a", (2, 3)), (4, 'say "so"', ()), (None, "NULL", None)])
    ['{1,4,NULL}', '{"a","say \\\\"so\\\\"","NULL"}', '{"{2,3}","{}",NULL}']
    """
    return [array_of(column) for column in zip(*rows, strict=True)]


def array_of(values: Iterable[Any]) -> str:
    """Write values of one type as an array."""
    return "{" + ",".join(_elements(list(values))) + "}"


def _elements(values: Sequence[Any]) -> list[str]:
    """Write the elements of an array; those of a column of one type without looking at each of them.

    >>> _elements(["a", "b"]), _elements(["a", 'b"']), _elements(["a", None])
    (['"a","b"'], ['"a","b\\\\""'], ['"a"', 'NULL'])
    """
    match [*set(map(type, values))]:
        case [kind] if issubclass(kind, str):
            joined = "\0".join(values)
            if joined.count("\0") == len(values) - 1:
                return [_quoted(joined).replace("\0", '","')]
        case [kind] if kind is UUID:
            return [f"{value.int:032x}" for value in values]
        case [kind] if kind is datetime:
            return [f'"{_moment(value)}"' for value in values]
        case [kind] if kind is NoneType:
            return ["NULL"] * len(values)
    return [_ELEMENTS[type(value)](value) for value in values]


T = TypeVar("T")
Write = Callable[[Any], T]


class _Writers(dict[type, Write[T]]):
    """How values are written, by their type; those of other types as they print (members of a `StrEnum` do well)."""

    def __init__(self, known: Mapping[type, Write[T]], other: Write[T]) -> None:
        super().__init__(known)
        self._other = other

    def __missing__(self, kind: type) -> Write[T]:
        return self._other


def _moment(moment: datetime) -> str:
    """Write a moment; a commit writes the same one many times."""
    return _utc_moment(moment) if moment.tzinfo is UTC else moment.isoformat()


@lru_cache(maxsize=1000)
def _utc_moment(moment: datetime) -> str:
    # Of other zones, two moments that differ by an hour may be equal for Python, when clocks are put back.
    return moment.isoformat()


def _numbers(numbers: Sequence[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


def _duration(duration: timedelta) -> str:
    return f"{duration.days} days {duration.seconds}.{duration.microseconds:06d} seconds"


def _truth(value: bool) -> str:
    return "t" if value else "f"


def _nothing(_none: None) -> str:
    return "NULL"


def _quoted(value: object) -> str:
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _literal(text: str) -> str | None:
    if not text.isascii() or "\0" in text:
        return None
    if "'" not in text and "\\" not in text:
        return f"'{text}'"
    return None if "$q" in text else f"$q${text}$q$"


_BARE: dict[type, Write[str]] = {bool: _truth, int: str, UUID: attrgetter("hex")}
"""Types whose text needs no quotes in an array."""
_TEXTS = _Writers(
    {**_BARE, datetime: _moment, timedelta: _duration, list: _numbers, tuple: _numbers},
    str,
)
_LITERALS: _Writers[str | None] = _Writers(
    {
        type(None): lambda _none: "NULL",
        bool: lambda value: "'t'" if value else "'f'",
        int: lambda value: f"'{value}'",
        str: _literal,
        UUID: lambda value: f"'{value.int:032x}'",
        datetime: lambda moment: f"'{_moment(moment)}'",
        timedelta: lambda duration: f"'{_duration(duration)}'",
        list: lambda numbers: _literal(_numbers(numbers)) if numbers else "'{}'",
        tuple: lambda numbers: _literal(_numbers(numbers)) if numbers else "'{}'",
    },
    lambda value: _literal(str(value)),
)
_ELEMENTS = _Writers(
    {
        **_BARE,
        type(None): _nothing,
        datetime: lambda moment: f'"{_moment(moment)}"',
        timedelta: lambda duration: f'"{_duration(duration)}"',
        list: lambda numbers: f'"{_numbers(numbers)}"',
        tuple: lambda numbers: f'"{_numbers(numbers)}"',
    },
    _quoted,
)
