"""Properties of the language that hold for any input: nothing crashes, nothing is lost, nothing is read unannounced."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

from hypothesis import given, settings
from hypothesis import strategies as st

from sequences.collection import resolve_collection
from sequences.document import DocumentError, parse_definition, to_document
from sequences.expressions import ExpressionError, compile_expression, truthy
from sequences.references import ALL, Keys, References, params_references, references
from sequences.scope import Scope
from sequences.shorthand import is_shorthand, normalize
from sequences.signals import SignalError, nameless_choice, parse_signal
from sequences.templates import TemplateError, render, render_params
from sequences.validation import validate

NAMES = st.sampled_from(["a", "b", "items", "x-y", "output", "0", "1", "iteration"])
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([10**400, 2.0**1023, "5", "2026-01-01", "{{ data.a }}"])
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
)
PATHS = st.builds(
    ".".join,
    st.lists(
        st.sampled_from(["data", "context", "config", "outputs", "steps", "state", "input", "runtime", "session"])
        | NAMES,
        min_size=1,
        max_size=4,
    ),
)
FUNCTIONS = st.sampled_from(
    [
        "len",
        "abs",
        "clamp",
        "change_pct",
        "sum",
        "avg",
        "min",
        "max",
        "first",
        "last",
        "slice",
        "sort",
        "unique",
        "count",
        "contains",
        "starts_with",
        "ends_with",
        "keys",
        "values",
        "json",
        "now",
        "uuid",
        "random",
        "format_date",
        "day_of_week",
        "nope",
    ]
)
OPERANDS = (
    st.sampled_from(["a", "b"])
    | PATHS
    | st.sampled_from(["1", "0", "1e308", "'t'", "null", "true", "[1, 'a']", "[]", "'%Y'"])
)


def _compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    signs = st.sampled_from(["+", "-", "*", "/", "==", "!=", "<", "<=", ">", ">=", "&&", "||", "in"])
    return (
        st.builds("{} {} {}".format, inner, signs, inner)
        | st.builds("({})".format, inner)
        | st.builds("!{}".format, inner)
        | st.builds("-{}".format, inner)
        | st.builds("{} ? {} : {}".format, inner, inner, inner)
        | st.builds(lambda name, args: f"{name}({', '.join(args)})", FUNCTIONS, st.lists(inner, max_size=3))
        | st.builds("[{}, {}]".format, inner, inner)
    )


EXPRESSIONS = st.recursive(OPERANDS, _compound, max_leaves=8)
SOUP = st.text(alphabet="ab.01 ()[]{}|&=!<>+-*/?:,'\"\\@\u00e9", max_size=60)
FILTERS = st.sampled_from(
    [
        "upper",
        "abs",
        "round(2)",
        "default(data.b)",
        "replace('a', outputs.b)",
        "join(',')",
        "json",
        "'lit'",
        "word",
        "len(data)",
    ]
)
CHAINS = st.builds(
    lambda first, rest: "{{ " + " | ".join([first, *rest]) + " }}", PATHS, st.lists(PATHS | FILTERS, max_size=4)
)
TEMPLATES = st.builds("".join, st.lists(CHAINS | SOUP, max_size=3))
PARAMS = st.recursive(
    TEMPLATES | SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=5,
)
WORDS = st.fixed_dictionaries({"a": VALUES, "b": VALUES})
OBJECTS = st.dictionaries(NAMES, VALUES, max_size=4)


class Recording(Mapping[str, Any]):
    """A lazy section that remembers which keys were read, and that it was read as a whole."""

    def __init__(self, content: dict[str, Any]) -> None:
        self._content = content
        self.read: set[str] = set()
        self.read_whole = False

    def __getitem__(self, key: str) -> Any:
        self.read.add(key)
        return self._content[key]

    def __iter__(self) -> Iterator[str]:
        self.read_whole = True
        return iter(self._content)

    def __len__(self) -> int:
        self.read_whole = True
        return len(self._content)

    def is_covered_by(self, keys: Keys) -> bool:
        return keys is ALL or (not self.read_whole and self.read <= keys)

    @property
    def was_touched(self) -> bool:
        return self.read_whole or bool(self.read)


class World:
    """A scope all sections of which record what is read."""

    def __init__(self, content: dict[str, Any]) -> None:
        names = ("data", "config", "outputs", "state", "runtime", "session")
        self.sections = {name: Recording(content) for name in names}
        self.scope = Scope(
            data=self.sections["data"],
            config=self.sections["config"],
            outputs=self.sections["outputs"],
            state=self.sections["state"],
            runtime=self.sections["runtime"],
            session=self.sections["session"],
            variables={"iteration": 1},
        )

    def assert_announced(self, announced: References) -> None:
        assert self.sections["outputs"].is_covered_by(announced.outputs)
        assert self.sections["state"].is_covered_by(announced.state)
        for name in ("data", "config", "runtime", "session"):
            assert getattr(announced, name) or not self.sections[name].was_touched, name


@given(text=EXPRESSIONS | SOUP | st.text(max_size=40), data=WORDS | VALUES)
@settings(max_examples=500, deadline=None)
def test_s7_lenient_evaluation_never_raises(text: str, data: Any) -> None:
    scope = Scope(data=data, outputs=data if isinstance(data, dict) else {})
    truthy(compile_expression(text).evaluate(scope))


@given(text=EXPRESSIONS | SOUP, data=VALUES)
@settings(max_examples=300, deadline=None)
def test_s5_2_strict_evaluation_refuses_or_agrees_with_lenient(text: str, data: Any) -> None:
    expression = compile_expression(text)
    try:
        strict = expression.evaluate_strict(Scope(data=data))
    except ExpressionError:
        assert expression.error is not None
    else:
        assert expression.error is None
        assert repr(strict) == repr(expression.evaluate(Scope(data=data)))


EXTREMES = st.sampled_from(
    [10**400, -(10**400), 2.0**1023, float("nan"), float("inf"), 0, -0.0, 5e-324, True, "1e999", "9" * 999]
)


@given(a=EXTREMES, b=EXTREMES, sign=st.sampled_from(["+", "-", "*", "/", "==", "<", ">="]), function=FUNCTIONS)
@settings(max_examples=500, deadline=None)
def test_s7_extreme_numbers_never_raise(a: Any, b: Any, sign: str, function: str) -> None:
    scope = Scope(data={"a": a, "b": b, "list": [a, b]}, random=Random(0))
    for text in (f"a {sign} b", f"-a {sign} b", f"{function}(a, b)", f"{function}(list, a, b)"):
        compile_expression(text).evaluate(scope)


@given(params=PARAMS, data=VALUES)
@settings(max_examples=500, deadline=None)
def test_s6_rendering_raises_nothing_but_template_errors(params: Any, data: Any) -> None:
    scope = Scope(data=data, outputs=data if isinstance(data, dict) else {})
    with suppress(TemplateError):
        render(params, scope)


@given(value=VALUES)
def test_s6_1_a_whole_text_keeps_the_value_and_its_type(value: Any) -> None:
    assert render("{{ data.v }}", Scope(data={"v": value})) is value


@given(text=st.text(max_size=40).filter(lambda text: "{{" not in text))
def test_s6_text_without_braces_is_itself(text: str) -> None:
    assert render(text, Scope()) is text


@given(text=EXPRESSIONS, content=OBJECTS)
@settings(max_examples=500, deadline=None)
def test_expressions_read_only_what_they_announce(text: str, content: dict[str, Any]) -> None:
    world = World(content)
    compile_expression(text).evaluate(world.scope)
    world.assert_announced(references(text, kind="expression"))


@given(params=PARAMS, content=OBJECTS, handler=st.sampled_from(["noop", "assert", "self_modify", "transform"]))
@settings(max_examples=500, deadline=None)
def test_templates_read_only_what_they_announce(params: Any, content: dict[str, Any], handler: str) -> None:
    world = World(content)
    with suppress(TemplateError):
        render_params(handler, params, world.scope)
    world.assert_announced(params_references(handler, params))


@given(collection=PATHS | CHAINS, content=OBJECTS)
@settings(max_examples=300, deadline=None)
def test_collections_read_only_what_they_announce(collection: str, content: dict[str, Any]) -> None:
    world = World(content)
    with suppress(TemplateError):
        resolve_collection(collection, world.scope)
    world.assert_announced(references(collection, kind="collection"))


IDS = st.uuids().map(str)
STEPS = st.fixed_dictionaries(
    {"type": st.just("step"), "id": IDS, "handler": st.sampled_from(["noop", "work", "slep"])},
    optional={
        "params": PARAMS,
        "timeout": st.integers(0, 10**9) | st.floats(0.001, 1000).map(lambda number: round(number, 3)),
        "cancellable": st.booleans(),
        "when": EXPRESSIONS,
        "wait_for_signal": st.booleans(),
        "retry": st.fixed_dictionaries(
            {"max_attempts": st.integers(1, 9), "initial_backoff": st.just(1), "max_backoff": st.just("2s")}
        ),
    },
)


def _composite(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    blocks = st.lists(inner, min_size=1, max_size=2)
    return (
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(["parallel", "race"]),
                "id": IDS,
                "branches": st.lists(blocks, min_size=1, max_size=2),
            }
        )
        | st.fixed_dictionaries({"type": st.just("loop"), "id": IDS, "condition": st.just("true"), "body": blocks})
        | st.fixed_dictionaries({"type": st.just("for_each"), "id": IDS, "collection": PATHS, "body": blocks})
        | st.fixed_dictionaries({"type": st.just("try_catch"), "id": IDS, "try_block": blocks, "catch_block": blocks})
        | st.fixed_dictionaries(
            {
                "type": st.just("saga"),
                "id": IDS,
                "steps": st.lists(st.fixed_dictionaries({"id": IDS, "action": inner}), max_size=2),
            }
        )
    )


DEFINITIONS = st.fixed_dictionaries(
    {
        "id": IDS,
        "tenant_id": st.just("t"),
        "namespace": st.text(max_size=4),
        "name": st.text(max_size=4),
        "version": st.integers(-(2**31), 2**31 - 1),
        "created_at": st.datetimes().map(lambda moment: f"{moment.isoformat()}Z"),
        "blocks": st.lists(st.recursive(STEPS, _composite, max_leaves=5), min_size=1, max_size=3),
    }
)


@given(raw=DEFINITIONS)
@settings(max_examples=150, deadline=None)
def test_s5_3_writing_and_reading_is_the_identity(raw: dict[str, Any]) -> None:
    parsed = parse_definition(raw)
    document = to_document(parsed)
    assert repr(parse_definition(document)) == repr(parsed)
    validate(parsed)


JUNK = st.recursive(
    SCALARS | st.sampled_from(["step", "parallel", "saga", "noop"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    "id",
                    "handler",
                    "blocks",
                    "branches",
                    "routes",
                    "steps",
                    "action",
                    "body",
                    "name",
                    "default",
                    "params",
                    "retry",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@given(raw=JUNK, header=st.booleans())
@settings(max_examples=500, deadline=None)
def test_s2_1_any_junk_is_a_document_error(raw: Any, header: bool) -> None:
    if header:
        raw = {"id": "x", "blocks": raw}
    with suppress(DocumentError):
        if is_shorthand(raw):
            raw = normalize(raw, tenant_id="t", now=datetime(2026, 1, 1, tzinfo=UTC), new_id=UUID(int=1))
        validate(parse_definition(raw))


@given(
    body=st.dictionaries(st.sampled_from(["signal_type", "type", "name", "custom"]), JUNK), choices=st.lists(st.text())
)
def test_s9_4_any_signal_is_read_or_refused(body: dict[str, Any], choices: list[str]) -> None:
    with suppress(SignalError):
        parse_signal(body)
    assert nameless_choice(body, choices) in {None, *choices}
