"""Expressions (§7)."""

import time
from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

import pytest

from sequences.expressions import ExpressionError, compile_expression, truthy
from sequences.scope import Scope

DATA: dict[str, Any] = {
    "n": 5,
    "f": 5.0,
    "s": "text",
    "five": "5",
    "t": True,
    "nul": None,
    "empty": {},
    "none": [],
    "items": [{"id": 1}, {"id": 2}],
    "nums": [3, 1, 2],
    "mixed": [True, "b", None, 2, [1], {"a": 1}, "a", False, 1],
    "huge": 10**400,
    "a": {"b": {"c": 1}},
}
SCOPE = Scope(
    data=DATA,
    config={"k": "v"},
    outputs={"x": {"y": 1, "list": [10, 20]}, "plain": "text", "own": {"output": {"z": 1}}},
    state={"count": 2},
    runtime={"attempt": 3},
    session={"locale": "de"},
    instance_id="the-id",
    variables={"iteration": 7, "n": 99},
    bindings={"item": {"id": 42}},
    now=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    random=Random(1),
    new_uuid=lambda: UUID(int=0),
)


def value_of(text: str, scope: Scope = SCOPE) -> Any:
    return compile_expression(text).evaluate(scope)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("10 - 2 - 3", 5),
        ("8 / 2 / 2", 2),
        ("-n + 1", -4),
        ("!t", False),
        ("!!s", True),
        ("true && false || true", True),
        ("false && false || false", False),
        ("1 == 1 && 2 > 1", True),
        ("n > 3 ? 'big' : 'small'", "big"),
        ("false ? 1 : 2", 2),
        ("(true ? false : true) ? 1 : 2", 2),
        ("5 in [1, 5,]", True),
        ("n in nums", False),
        ("'x' in s", False),
        ("[1, 'a', [null]]", [1, "a", [None]]),
        ("'it''s'", "it"),
        ('"open', "open"),
        ("'a\\n'", "a\\n"),
        (".5 + 1e1", 10.5),
        ("{{ n == 5 }}", True),
        ("", None),
        ("  ", None),
    ],
)
def test_s7_grammar(text: str, expected: object) -> None:
    assert value_of(text) == expected


@pytest.mark.parametrize("number", [2**53 + 1, 10**18 + 1, 2**63 - 1, 2**63, 2**64 - 1])
def test_s7_a_whole_number_of_64_bits_equals_itself_and_not_the_next(number: int) -> None:
    scope = Scope(data={"id": number})
    assert value_of(f"id == {number}", scope) is True
    assert value_of(f"id in [{number}]", scope) is True
    assert value_of(f"id == {number - 1}", scope) is False
    assert value_of(f"id > {number - 1} && id <= {number}", scope) is True


@pytest.mark.parametrize("text", [str(2**64), "9" * 25, "1" + "0" * 300])
def test_s7_a_whole_number_beyond_64_bits_is_float64(text: str) -> None:
    assert isinstance(value_of(text), float)
    assert value_of(text) == float(text)


def test_s7_what_negation_makes_can_be_stored() -> None:
    assert value_of(f"-{2**63}") == -(2**63)
    assert isinstance(value_of(f"-{2**63}"), int)
    assert isinstance(value_of(f"-{2**63 + 1}"), float)
    assert isinstance(value_of("-id", Scope(data={"id": 2**64 - 1})), float)


@pytest.mark.parametrize("value", ["x", "0", "false", 1, -1, 0.1, True, [0], {}, {"a": 1}])
def test_s7_truthy(value: object) -> None:
    assert truthy(value) is True


@pytest.mark.parametrize("value", [None, False, 0, 0.0, "", []])
def test_s7_falsy(value: object) -> None:
    assert truthy(value) is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5 == 5.0", True),
        ("n == f", True),
        ('"5" == 5', False),
        ("true == 1", False),
        ("null == missing", True),
        ("null == false", False),
        ("[1, 2] == [1.0, 2]", True),
        ("[true] == [1]", False),
        ("empty == a", False),
        ("a != a", False),
        ("1 < 2", True),
        ("'a' < 'b'", True),
        ("'Z' < 'a'", True),
        ("'10' < 9", False),
        ("null < 1", False),
        ("true < 2", False),
        ("none <= none", False),
        ("huge > 5", True),
    ],
)
def test_s7_comparisons(text: str, expected: bool) -> None:
    assert value_of(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'a' + 'b'", "ab"),
        ("'5' + '5'", "55"),
        ("'5' + 5", 10.0),
        ("five * 2", 10.0),
        ("true + 1", 2.0),
        ("s + 1", None),
        ("null + 1", None),
        ("'inf' + 1", None),
        ("' 5' + 1", None),
        ("'1_0' + 1", None),
        ("1 / 0", None),
        ("0 / 0", None),
        ("1e308 * 10", None),
        ("huge + 1", None),
        ("-huge", None),
        ("-s", None),
        ("none + 1", None),
        ("7 / 2", 3.5),
    ],
)
def test_s7_arithmetic(text: str, expected: object) -> None:
    assert value_of(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("context.data.a.b.c", 1),
        ("data.a.b.c", 1),
        ("a.b.c", 1),
        ("items.1.id", 2),
        ("items.9.id", None),
        ("items.-1", None),
        ("config.k", "v"),
        ("context.config.k", "v"),
        ("context.runtime.attempt", None),
        ("outputs.x.y", 1),
        ("steps.x.y", 1),
        ("outputs.x.output.y", 1),
        ("outputs.own.output.z", 1),
        ("outputs.plain.output", "text"),
        ("outputs.missing.y", None),
        ("outputs.x.list.1", 20),
        ("state.count", 2),
        ("session.locale", "de"),
        ("runtime.attempt", 3),
        ("instance_id", "the-id"),
        ("instance_id.x", None),
        ("iteration", 7),
        ("n", 5),
        ("item.id", 42),
        ("data.item.id", 42),
        ("context.data.item.id", 42),
        ("s.length", None),
        ("missing.deep.path", None),
        ("a.", None),
    ],
)
def test_s7_paths(text: str, expected: object) -> None:
    assert value_of(text) == expected


def test_s3_4_iteration_of_the_data_wins() -> None:
    scope = Scope(data={"iteration": "mine"}, variables={"iteration": 1})
    assert value_of("iteration", scope) == "mine"


def test_s3_5_item_shadows_the_data() -> None:
    scope = Scope(data={"item": "old", "other": 1}, bindings={"item": "new"})
    assert value_of("item", scope) == "new"
    assert value_of("data", scope) == {"item": "new", "other": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("len(items)", 2),
        ("len(a)", 1),
        ("len('äb')", 3),
        ("len(5)", 0),
        ("len()", 0),
        ("abs(-3)", 3),
        ("abs('x')", None),
        ("clamp(15, 0, 10)", 10),
        ("clamp(-1, 0, 10)", 0),
        ("clamp(15, 'a', 10)", 15),
        ("clamp('x', 0, 1)", "x"),
        ("change_pct(50, 75)", 50.0),
        ("change_pct(0, 75)", None),
        ("sum(nums)", 6),
        ("sum(mixed)", 3),
        ("sum([])", 0),
        ("sum(5)", None),
        ("avg(nums)", 2),
        ("avg([])", None),
        ("min(nums)", 1),
        ("max(nums)", 3),
        ("max(['a'])", None),
        ("first(nums)", 3),
        ("last(nums)", 2),
        ("first([])", None),
        ("first('abc')", None),
        ("slice(nums, 1)", [1, 2]),
        ("slice(nums, 0, 2)", [3, 1]),
        ("slice(nums, -5, 99)", [3, 1, 2]),
        ("slice(nums, 2, 1)", []),
        ("slice('abc', 1)", None),
        ("sort(nums)", [1, 2, 3]),
        ("sort(nums, 'desc')", [3, 2, 1]),
        ("unique([1, 1.0, '1', true, 1])", [1, "1", True]),
        ("count([1, '1', 1.0], 1)", 2),
        ("count('x', 1)", 0),
        ("contains(nums, 2)", True),
        ("contains(s, 'ex')", True),
        ("contains(s, 5)", False),
        ("contains(5, 5)", False),
        ("starts_with(s, 'te')", True),
        ("ends_with(s, 'xt')", True),
        ("starts_with(5, 5)", False),
        ("keys(a)", ["b"]),
        ("values(a)", [{"c": 1}]),
        ("keys(5)", []),
        ("json(a)", '{"b":{"c":1}}'),
        ("json(s)", '"text"'),
        ("json(missing)", "null"),
        ("now()", "2026-01-02T03:04:05Z"),
        ("uuid()", "00000000-0000-0000-0000-000000000000"),
        ("random(5, 5)", 5),
        ("random(5, 1)", 5),
        ("random(3, 4)", 3),
        ("format_date('2026-03-04T05:06:07Z')", "2026-03-04"),
        ("format_date('2026-03-04', '%d.%m.%Y %%')", "04.03.2026 %"),
        ("format_date('nope')", None),
        ("format_date('2026-03-04', '%Q')", None),
        ("format_date('2026-03-04', '%')", None),
        ("format_date('2026-03-04', '%99999999d')", None),
        ("day_of_week('2026-01-05')", 0),
        ("day_of_week('2026-01-04T23:00:00+02:00')", 6),
        ("day_of_week(5)", None),
        ("nonsense(1)", None),
        ("a.b(1)", None),
    ],
)
def test_s7_functions(text: str, expected: object) -> None:
    assert value_of(text) == expected


def test_s7_sort_has_a_total_order() -> None:
    assert value_of("sort(mixed)") == [None, False, True, 1, 2, "a", "b", [1], {"a": 1}]


def test_s7_random_stays_in_its_range() -> None:
    assert all(0 <= value_of("random()") < 100 for _ in range(200))


def test_s7_long_arrays_are_null() -> None:
    scope = Scope(data={"ok": [1] * 100_000, "long": [1] * 100_001})
    assert value_of("sum(ok)", scope) == 100_000
    assert value_of("sum(long)", scope) is None
    assert value_of("sort(long)", scope) is None


@pytest.mark.parametrize(
    "text",
    [
        "((((",
        "==",
        "!!!",
        "!",
        "n ==",
        "!@",
        "@ == null",
        "== null",
        "? 1 : 2",
        "true ? 1",
        "n &&",
        "] [",
        "!(s &&)",
        ")",
    ],
)
def test_s3_6_condition_that_cannot_be_parsed_is_falsy(text: str) -> None:
    assert not truthy(value_of(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("n == 5 leftover", True),
        ("n == 5 )", True),
        ("@ || true", True),
        ("n # 3", 5),
        ("(n == 5", True),
        ("1 < 2 < 3", True),
    ],
)
def test_s7_lenient_ignores_what_is_left_over(text: str, expected: object) -> None:
    assert value_of(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "@",
        "n ==",
        "n n",
        "true ? 1",
        "(n",
        "[1",
        "n = 5",
        "n & 1",
        "f(1",
        "1 < 2 < 3",
        "(" * 9 + "1" + ")" * 9,
        "a-",
        "n)",
    ],
)
def test_s5_2_strict_refuses(text: str) -> None:
    with pytest.raises(ExpressionError):
        compile_expression(text).evaluate_strict(SCOPE)


@pytest.mark.parametrize("text", ["", " ", "missing", "nonsense(1)", "{{ missing.x }}", "1 / 0"])
def test_s5_2_strict_gives_falsy_for_what_is_missing(text: str) -> None:
    assert not truthy(compile_expression(text).evaluate_strict(SCOPE))


def test_s7_eight_parentheses_fit() -> None:
    assert compile_expression("(" * 8 + "1" + ")" * 8).evaluate_strict(SCOPE) == 1


def test_a_foreign_error_of_a_lazy_section_reaches_the_caller() -> None:
    class Broken(dict[str, Any]):
        def __getitem__(self, key: str) -> Any:
            raise ConnectionError(key)

    with pytest.raises(ConnectionError):
        compile_expression("outputs.x.y == 1").evaluate(Scope(outputs=Broken()))


@pytest.mark.parametrize(
    "text",
    [
        "1+" * 32_000, "!" * 65_000, "(" * 65_000, "[1," * 20_000, "f(" * 32_000,
        "a?b:" * 16_000, '"' * 65_000, "@" * 65_000, "a&&" * 21_000,
    ],
)  # fmt: skip
def test_hostile_text_is_read_in_bounded_time(text: str) -> None:
    started = time.thread_time()
    compile_expression(text).evaluate(SCOPE)
    assert time.thread_time() - started < 5


def test_hostile_work_on_a_large_value_is_cut_short() -> None:
    scope = Scope(data={"d": list(range(50_000)), "s": "x" * 100_000})
    for text in ("sort(d)+" * 7000 + "1", "d==d&&" * 9000 + "d", "s+" * 20_000 + "s", "len(s)+" * 9000 + "1"):
        started = time.thread_time()
        compile_expression(text).evaluate(scope)
        assert time.thread_time() - started < 20


def test_text_over_64_kib_is_null() -> None:
    assert value_of("1" + " " * 70_000) is None
