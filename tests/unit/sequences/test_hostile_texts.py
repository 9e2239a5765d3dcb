"""Whatever is written, reading and resolving it ends soon, in a value or a typed error (§6, §7, §2.2).

Time is CPU time of this process, so that a busy machine does not count; the limit is several times what a slow one
needs for 64 KiB, and far below what anything super-linear takes.
"""

import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sequences.collection import resolve_collection
from sequences.dataflow import DataflowLimit, analyse
from sequences.debugging import debug
from sequences.document import DocumentError, parse_definition
from sequences.durations import parse_duration
from sequences.expressions import ExpressionError, compile_expression
from sequences.inspection import inspect_definition, inspect_template
from sequences.lint import lint
from sequences.schemas import SchemaError, compile_schema
from sequences.scope import Scope
from sequences.shorthand import is_shorthand, normalize
from sequences.templates import TemplateError, render
from sequences.validation import validate
from tests.unit.sequences.language_documents import block, definition, step

SIZE = 65_536
SECONDS = 2.0
"""CPU time: twenty times the 100 ms that 64 KiB may take on a quiet machine. What is quadratic takes minutes."""
MEGABYTES = 400

DATA: dict[str, Any] = {
    "s": "x" * SIZE,
    "quotes": "'\"" * (SIZE // 2),
    "many": list(range(20_000)),
    "keys": {f"k{n}": n for n in range(20_000)},
    "huge": 10**400,
    "nan": float("nan"),
    "inf": float("inf"),
    "surrogate": "\ud800",
    "nul": "\u0000",
    "unicode": "\u00e9\U0001f600" * 10_000,
    "one": 1,
}
deep: Any = 1
for _ in range(60):
    deep = {"d": [deep]}
DATA["deep"] = deep
SCOPE = Scope(data=DATA, config={}, outputs={"big": [DATA["s"]] * 20})


def filled(unit: str, size: int = SIZE) -> str:
    return unit * (size // len(unit))


TEMPLATES: dict[str, Any] = {
    "open braces": filled("{{"),
    "closed braces": filled("}}"),
    "open and quote": filled("{{ ' "),
    "nothing in braces": filled("{{}}"),
    "pairs": filled("{{ data.one }}"),
    "one long path": "{{ data" + filled(".x") + " }}",
    "pipes": "{{ data.x " + filled("| data.x ") + "}}",
    "empty pipes": "{{ data.x " + filled("|") + "}}",
    "filters on a large text": "{{ data.s " + filled("| upper ") + "}}",
    "filters that grow": "{{ data.s " + filled("| url_encode ") + "}}",
    "base64 upon base64": "{{ data.s " + filled("| base64 ") + "}}",
    "replace that doubles": "{{ data.s " + filled("| replace(x, xx) ") + "}}",
    "replace without end": "{{ data.s " + filled("| replace(x, y) | replace(y, x) ") + "}}",
    "split and join": "{{ data.s " + filled("| split(x) | join(x) ") + "}}",
    "hashes": filled("{{ data.s | hash(sha256) }}"),
    "json of everything": filled("{{ json(data.keys) }}"),
    "json as a filter of nothing": "{{ " + filled("json(") + "data.one" + filled(")") + " }}",
    "len in len": "{{ " + filled("len(") + "data.one" + filled(")") + " }}",
    "a large value again and again": filled("{{ data.s }}"),
    "whole values again and again": ["{{ data.keys }}"] * 4000,
    "the whole data again and again": ["{{ data }}"] * 4000,
    "outputs in text": filled("x{{ outputs.big }}"),
    "parentheses": "{{ data.s | replace(" + filled("(") + ", x) }}",
    "closing parentheses": "{{ data.s | replace(" + filled(")") + " }}",
    "commas": "{{ data.s | replace(" + filled(",") + ") }}",
    "quotes": "{{ data.s | " + filled("'") + " }}",
    "brackets": "{{ data" + filled("[0]") + " }}",
    "a long word": "{{ " + filled("a") + " }}",
    "dunder": "{{ data.__class__.__mro__.0.__subclasses__ }}",
    "dunder root": "{{ __class__ }}",
    "format": "{{ data.s.format }} %s {0} ${x}",
    "huge number": "{{ data.huge }} {{ data.huge | round(2) }} {{ data.huge | abs }}",
    "nan": "{{ data.nan }} {{ data.nan | round(2) }} {{ data.inf | abs }}",
    "surrogate": "{{ data.surrogate | base64 }} {{ data.surrogate | url_encode }} {{ data.surrogate }}",
    "nul": "{{ data.nul | trim }} \u0000",
    "number with many digits": "{{ data.x | " + "9" * 60_000 + " }}",
    "exponent": "{{ data.x | 1e" + "9" * 60_000 + " }}",
    "round by a huge number": "{{ data.one | round(" + "9" * 60_000 + ") }}",
    "truncate": "{{ data.s | truncate(999999999) }} {{ data.s | truncate(-1) }}",
    "split into letters": "{{ data.s | split('') | join('') }}",
    "deep value": "{{ json(data.deep) }} {{ data.deep }}",
    "blanks": "{{" + filled(" ") + "data.one" + filled(" ") + "}}",
    "blank call": "{{ data.one | replace" + filled(" ") + "x }}",
}

EXPRESSIONS: dict[str, str] = {
    "parentheses": filled("("),
    "both parentheses": filled("(", SIZE // 2) + filled(")", SIZE // 2),
    "nots": filled("!"),
    "minuses": filled("-"),
    "additions": "1" + filled("+1"),
    "text additions": "data.s" + filled("+data.s"),
    "comparisons": "1" + filled("<1"),
    "ands": "true" + filled("&&true"),
    "questions": filled("true?"),
    "nested choices": filled("true?1:"),
    "arrays": filled("["),
    "array of arrays": filled("[[]],"),
    "calls": filled("len("),
    "unknown calls": filled("f()+"),
    "quotes": filled("'"),
    "open text": "'" + filled("x"),
    "dots": "a" + filled("."),
    "a long path": "data" + filled(".x"),
    "bad characters": filled("#"),
    "sort again and again": filled("len(sort(data.many))+"),
    "json again and again": filled("len(json(data.keys))+"),
    "contains again and again": filled("contains(data.many,1)+"),
    "equal to itself": filled("data.keys==data.keys&&"),
    "deep equal": filled("data.deep==data.deep&&"),
    "unique": filled("count(unique(data.many),1)+"),
    "member of": filled("1 in data.many || "),
    "digits": "9" * SIZE,
    "exponent": "1e" + "9" * (SIZE - 2),
    "huge": "data.huge*data.huge+data.huge",
    "nan": "data.nan==data.nan||data.nan<1",
    "dunder": "data.__class__.__init__.__globals__",
    "dunder word": "__import__('os')",
    "dates": "format_date(data.s, data.s) || format_date(now(), '" + filled("%Y") + "')",
    "random": "random(0, 1e308) + random(data.huge, 5)",
    "blanks": "data.one" + filled(" "),
    "lines": filled("\n") + "data.one" + filled("\t\n "),
    "megabytes": filled("(", 5_000_000),
    "nul": "data.nul == '\u0000' && \u0000",
    "surrogate": "json(data.surrogate) == '\ud800'",
}


def cpu_seconds(work: Callable[[], object], *errors: type[Exception]) -> float:
    """The CPU time of some work that may fail in the ways it is allowed to."""
    start = time.thread_time()
    with suppress(*errors):
        work()
    return time.thread_time() - start


@pytest.mark.parametrize("name", TEMPLATES)
def test_s6_hostile_templates_end_soon(name: str) -> None:
    template = TEMPLATES[name]
    assert cpu_seconds(lambda: render(template, SCOPE), TemplateError) < SECONDS
    assert cpu_seconds(lambda: debug(template, data={"one": 1})) < SECONDS
    assert cpu_seconds(lambda: inspect_template(template)) < 2 * SECONDS


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_s7_hostile_expressions_end_soon(name: str) -> None:
    compiled = compile_expression(EXPRESSIONS[name])
    scope = Scope(data=DATA, now=datetime(2026, 1, 1, tzinfo=UTC))
    assert cpu_seconds(lambda: compile_expression(EXPRESSIONS[name] + " ")) < SECONDS
    assert cpu_seconds(lambda: compiled.evaluate(scope)) < SECONDS
    assert cpu_seconds(lambda: compiled.evaluate_strict(scope), ExpressionError) < SECONDS


@pytest.mark.parametrize(
    "name", ["a large value again and again", "whole values again and again", "filters that grow", "split into letters"]
)
def test_s6_hostile_templates_take_bounded_memory(name: str) -> None:
    tracemalloc.start()
    try:
        with suppress(TemplateError):
            render(TEMPLATES[name], SCOPE)
        assert tracemalloc.get_traced_memory()[1] < MEGABYTES * 1_000_000
    finally:
        tracemalloc.stop()


def test_s6_a_value_that_is_named_once_may_be_large() -> None:
    large = {"rows": [{"n": n, "text": "x" * 50} for n in range(50_000)]}
    assert render({"a": "{{ outputs.l }}"}, Scope(outputs={"l": large})) == {"a": large}


@pytest.mark.parametrize("name", TEMPLATES)
def test_s1_documents_of_hostile_texts_are_judged_soon(name: str) -> None:
    template = TEMPLATES[name]
    raw = definition(step(params=template), step("t", cache_key=str(template)[:SIZE], when=str(template)[:SIZE]))

    def judge() -> None:
        parsed = parse_definition(raw)
        validate(parsed)
        analyse(parsed)

    assert cpu_seconds(judge, DocumentError, DataflowLimit) < 2 * SECONDS


DOCUMENTS: dict[str, Any] = {
    "many blocks": definition(*(step(f"s{n}", params="{{ outputs.s0.x }}") for n in range(2000))),
    "many ids alike": definition(*(step("same") for _ in range(2000))),
    "shorthand without ids": {"id": "x", "blocks": [{"handler": "noop"} for _ in range(2000)]},
    "many unknown blocks": definition(step(params=[f"{{{{ outputs.u{n} }}}}" for n in range(2000)])),
    "many choices": definition(step(wait_for_input={"choices": [{"label": "x", "value": "x"}] * 20_000})),
    "many days": definition(step(send_window={"days": [1] * 50_000})),
    "misspelt": definition(*(step(f"s{n}", "htp_request" + "x" * 20) for n in range(2000))),
    "wide parallel": definition(block("parallel", branches=[[]] * 50_000)),
    "long id": definition(step("x" * 1_000_000)),
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_s2_3_hostile_documents_are_judged_soon(name: str) -> None:
    raw = DOCUMENTS[name]

    def judge() -> None:
        document = raw
        if is_shorthand(raw):
            document = normalize(raw, tenant_id="t", now=datetime(2026, 1, 1, tzinfo=UTC), new_id=UUID(int=1))
        parsed = parse_definition(document)
        validate(parsed)
        lint(parsed)
        inspect_definition(parsed)
        analyse(parsed)

    assert cpu_seconds(judge, DocumentError, DataflowLimit) < 8 * SECONDS


SCHEMA_ATTACKS: dict[str, tuple[dict[str, Any], Any]] = {
    "backtracking pattern": ({"pattern": "^(a+)+$"}, "a" * SIZE + "!"),
    "alternatives": ({"pattern": "^(a|aa)+$"}, "a" * SIZE + "!"),
    "counted": ({"pattern": "^(a{1,100}){1,100}$"}, "a" * SIZE + "!"),
    "counted too far": ({"pattern": "(((a{1,1000}){1,1000}){1,1000})"}, "a"),
    "pattern of a name": ({"patternProperties": {"(x+x+)+y": False}}, {"x" * SIZE: 1}),
    "unique": ({"uniqueItems": True}, list(range(20_000))),
    "huge": ({"multipleOf": 1e-300}, 10**300),
    "format": ({"format": "email"}, "a@" * SIZE),
}


@pytest.mark.parametrize("name", SCHEMA_ATTACKS)
def test_s2_3_patterns_of_authors_do_not_backtrack(name: str) -> None:
    schema, value = SCHEMA_ATTACKS[name]
    assert cpu_seconds(lambda: compile_schema(schema).violations(value), SchemaError) < 2 * SECONDS


@pytest.mark.parametrize("text", ["9" * SIZE + "s", "P" + "9" * SIZE + "D", filled("PT"), " " * SIZE, "1" * 15 + "w"])
def test_s2_2_hostile_durations_end_soon(text: str) -> None:
    assert cpu_seconds(lambda: parse_duration(text), ValueError) < SECONDS


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308, -1e-9, 10**400, "-5s", True, [], "1e5s"])
def test_s2_2_numbers_that_are_no_durations_are_refused(value: Any) -> None:
    with pytest.raises((ValueError, OverflowError)) as refused:
        parse_duration(value)
    assert isinstance(refused.value, ValueError)


PIECES = st.sampled_from(
    [
        *["{{", "}}", "|", "'", '"', "(", ")", ",", ".", "[", "]", " ", "\n", "&&", "||", "?", ":", "!", "==", "in"],
        *[
            "+",
            "-",
            "*",
            "/",
            "data",
            "outputs",
            "x",
            "upper",
            "replace",
            "json",
            "len",
            "default",
            "truncate",
            "split",
        ],
        *["join", "round", "9" * 30, "-1", "null", "\u0000", "\ud800", "__class__", "now()", "sort", "e", "\u00e9"],
    ]
)


@given(pieces=st.lists(PIECES, max_size=60))
@settings(max_examples=120, deadline=None)
def test_s6_s7_any_text_is_a_value_or_a_typed_error(pieces: list[str]) -> None:
    text = "".join(pieces)
    scope = Scope(data={"x": {"x": [1, "\ud800", float("nan"), 10**400]}}, outputs={"x": None})
    with suppress(TemplateError):
        render(text, scope)
    with suppress(TemplateError):
        resolve_collection(text, scope)
    compiled = compile_expression(text)
    compiled.evaluate(scope)
    with suppress(ExpressionError):
        compiled.evaluate_strict(scope)
    debug(text, data={"x": 1})
    inspect_template(text)
