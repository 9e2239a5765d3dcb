"""Templates, their filters, and for_each collections (§6, §3.5, §8.2)."""

from typing import Any

import pytest

from sequences.collection import resolve_collection
from sequences.document import ContextAccess
from sequences.scope import Scope
from sequences.templates import TemplateError, compile_params, render, render_params

SCOPE = Scope(
    data={
        "s": "text", "n": 42, "f": 1.5, "t": True, "nul": None, "empty": "", "zero": 0, "no": False,
        "list": [1, "a", None], "obj": {"k": [1]}, "items": [{"name": "A"}], "spaced": "  x ", "html": "a b&c/ä~",
        "input": {"q": 1}, "tpl": "{{ data.n }}",
    },
    config={"k": "v"},
    outputs={"a-b": {"x": 1}, "sub": [{"block_id": "child", "output": {"v": number}} for number in (1, 2)]},
    state={"c": 3},
    runtime={"attempt": 0},
    session={},
    instance_id="id-1",
    variables={"index": 4, "step": {"id": "st"}},
    bindings={"item": {"id": 9}},
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ data.n }}", 42),
        ("{{data.n}}", 42),
        ("{{ context.data.t }}", True),
        ("{{ data.obj }}", {"k": [1]}),
        ("{{ data.list }}", [1, "a", None]),
        ("{{ data.missing }}", None),
        ("v=[{{ context.data.missing }}]", "v=[null]"),
        ("count={{ data.n }} active={{ data.t }}", "count=42 active=true"),
        ("o={{ data.obj }} s={{ data.s }}", 'o={"k":[1]} s=text'),
        ("open {{ data.n", "open {{ data.n"),
        ("{{ data.n }} {{ open", "42 {{ open"),
        ("}} {{ data.n }}", "}} 42"),
        ("{{ data.n }}{{ data.n }}", "4242"),
        ("{{ data.tpl }}", "{{ data.n }}"),
        ("x{{ data.tpl }}", "x{{ data.n }}"),
        ("{{ data.tpl | replace('{{ data.n }}', data.s) }}", "text"),
        ("plain", "plain"),
    ],
)
def test_s6_1_syntax(text: str, expected: object) -> None:
    assert render(text, SCOPE) == expected


def test_s6_1_keys_are_never_templates_and_values_always() -> None:
    value = {"{{ data.n }}": ["{{ data.n }}", {"deep": "x{{ data.n }}"}, 5, None]}
    assert render(value, SCOPE) == {"{{ data.n }}": [42, {"deep": "x42"}, 5, None]}


def test_a_value_without_templates_comes_back_itself() -> None:
    value = {"a": [1, {"b": "c"}]}
    assert render(value, SCOPE) is value


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ data.missing | data.n }}", 42),
        ("{{ data.missing | outputs.nope | 'fb' }}", "fb"),
        ('{{ data.missing | "a b" }}', "a b"),
        ("{{ context.data.missing|default_a|default_b }}", "default_a"),
        ("{{ data.region|us-east-1 }}", "us-east-1"),
        ("{{ data.missing | 5 }}", 5.0),
        ("{{ data.missing | true }}", True),
        ("{{ data.missing | null }}", None),
        ("{{ data.missing | null | data.n }}", None),
        ("{{ data.empty | 'fb' }}", ""),
        ("{{ data.zero | 'fb' }}", 0),
        ("{{ data.no | 'fb' }}", False),
        ("{{ data.nul | 'fb' }}", "fb"),
        ("{{ data.s | 'fb' | upper }}", "TEXT"),
        ("{{ data.missing | 'fb' | upper }}", "FB"),
        ("{{ data.missing | foo(1) }}", "foo(1)"),
        ("{{ data.missing | no reason given }}", "no reason given"),
        ("{{ data.missing | 'a|b' }}", "'a"),
    ],
)
def test_s6_2_fallback(text: str, expected: object) -> None:
    result = render(text, SCOPE)
    assert (result, type(result)) == (expected, type(expected))


def test_s6_2_fallback_literal_ends_the_chain() -> None:
    assert render("{{ data.missing | lit | data.n }}", SCOPE) == "lit"
    assert render("{{ data.missing | null | data.n }}", SCOPE) is None


@pytest.mark.parametrize(
    "text", ["{{ foo.bar }}", "{{ 'text' }}", "{{ 5 }}", "{{ }}", "{{ upper }}", "{{ items[0] }}", "{{ json(foo) }}"]
)
def test_s6_2_unknown_root_is_an_error(text: str) -> None:
    inside = text[2:-2].strip()
    with pytest.raises(TemplateError) as caught:
        render(text, SCOPE)
    assert str(caught.value) == f"unknown template root: {inside}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ data.items.0.name }}", "A"),
        ("{{ data.items.00.name }}", "A"),
        ("x{{ context.data.items[0] }}", "xnull"),
        ("{{ data.items.5.name }}", None),
        ("{{ data.s.x }}", None),
        ("{{ config.k }}", "v"),
        ("{{ context.config.k }}", "v"),
        ("{{ outputs.a-b.x }}", 1),
        ("{{ steps.a-b.x }}", 1),
        ("{{ steps.a-b.output.x }}", 1),
        ("{{ outputs.a-b.output }}", {"x": 1}),
        ("{{ outputs.missing.output.x }}", None),
        ("{{ outputs.sub.child.v }}", 2),
        ("{{ outputs.sub.0.output.v }}", 1),
        ("{{ outputs.sub.other.v }}", None),
        ("{{ input.q }}", 1),
        ("{{ instance_id }}", "id-1"),
        ("{{ runtime.attempt }}", 0),
        ("{{ state.c }}", 3),
        ("{{ session }}", {}),
        ("{{ session.x | en }}", "en"),
        ("{{ item.id }}", 9),
        ("{{ data.item.id }}", 9),
        ("{{ context.data.item.id }}", 9),
        ("{{ index }}", 4),
        ("{{ step.id }}", "st"),
        ("{{ json(data.obj) }}", '{"k":[1]}'),
        ("{{ json(data.s) }}", '"text"'),
        ("{{ len(data.list) }}", 3),
        ("{{ len(data.missing) }}", 0),
    ],
)
def test_s6_3_paths(text: str, expected: object) -> None:
    assert render(text, SCOPE) == expected


def test_s6_3_unknown_section_is_an_error() -> None:
    with pytest.raises(TemplateError, match=r"^unknown context section: audit$"):
        render("{{ context.audit.0 }}", SCOPE)


def test_s6_3_item_is_unknown_outside_a_for_each() -> None:
    with pytest.raises(TemplateError, match=r"unknown template root: item\.id"):
        render("{{ item.id }}", Scope())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ data.s | upper }}", "TEXT"),
        ("{{ data.n | upper }}", ""),
        ("{{ data.s | upper | lower }}", "text"),
        ("{{ data.spaced | trim }}", "x"),
        ("{{ data.n | abs }}", 42),
        ("{{ data.s | abs }}", 0),
        ("{{ data.f | round(0) }}", 2.0),
        ("{{ data.n | round(2) }}", 42),
        ("{{ data.html | url_encode }}", "a%20b%26c%2F%C3%A4~"),
        ("{{ data.s | base64 }}", "dGV4dA=="),
        ("{{ data.s | base64 | base64_decode }}", "text"),
        ("{{ data.s | replace(t, 'T') }}", "TexT"),
        ("{{ data.s | replace('t', data.n) }}", "42ex42"),
        ("{{ data.s | replace('t', bare) }}", "bareexbare"),
        ("{{ data.s | replace('ex', '') }}", "tt"),
        ("{{ data.n | replace('4', '5') }}", "52"),
        ("{{ data.missing | default('d') }}", "d"),
        ("{{ data.missing | default(0) }}", 0),
        ("{{ data.missing | default(data.n) }}", 42),
        ("{{ data.empty | default('d') }}", "d"),
        ("{{ data.zero | default('d') }}", 0),
        ("{{ data.s | truncate(2) }}", "te"),
        ("{{ data.s | truncate(2, '…') }}", "te…"),
        ("{{ data.s | truncate(4, '…') }}", "text"),
        ("{{ data.list | join(', ') }}", "1, a, null"),
        ("{{ data.list | join(,) }}", "1,a,null"),
        ("{{ data.s | join(',') }}", ""),
        ("{{ data.s | split('e') }}", ["t", "xt"]),
        ("{{ data.s | hash(sha256) }}", "982d9e3eb996f559e633f4d194def3761d909f5a3b647d1a851fead67c32c9d1"),
        ("{{ data.s | upper | nonsense | lower }}", "text"),
    ],
)
def test_s6_4_filters(text: str, expected: object) -> None:
    assert render(text, SCOPE) == expected


@pytest.mark.parametrize(
    "chain",
    [
        "hash(md5)",
        "hash",
        "replace('', 'x')",
        "replace('x')",
        "round(-1)",
        "round(x)",
        "truncate(x)",
        "join",
        "base64_decode",
        "default",
    ],
)
def test_s6_4_bad_argument_is_an_error(chain: str) -> None:
    with pytest.raises(TemplateError):
        render(f"{{{{ data.v | {chain} }}}}", Scope(data={"v": "?"}))


def test_s6_4_result_over_4_mib_is_an_error() -> None:
    scope = Scope(data={"a": "x" * 1_000_000, "b": "y" * 1_000_000, "parts": ["z" * 1_000_000] * 5})
    for text in ("{{ data.a | replace('x', data.b) }}", "{{ data.parts | join('') }}", "{{ json(data.parts) }}"):
        with pytest.raises(TemplateError, match="4 MiB"):
            render(text, scope)


def test_s8_2_hidden_sections_are_empty() -> None:
    hidden = SCOPE.filtered(ContextAccess.model_validate({"data": {"fields": ["n"]}, "config": False}))
    assert render("{{ data.n }}", hidden) == 42
    assert render("{{ data.s | hidden }}", hidden) == "hidden"
    assert render("{{ data }}", hidden) == {"n": 42}
    assert render("{{ config }}", hidden) == {}
    assert render("{{ runtime.attempt }}", hidden) == 0
    assert render("{{ runtime.run_id }}", hidden) is None
    assert render("{{ data.item }}{{ item }}", hidden) == "nullnull"
    assert render("{{ outputs.a-b.x }}", hidden) == 1


def test_s8_2_without_the_member_everything_is_visible() -> None:
    assert SCOPE.filtered(None) is SCOPE


@pytest.mark.parametrize(
    ("handler", "params", "expected"),
    [
        (
            "assert",
            {"condition": "{{ data.n }} == 42", "message": "{{ data.s }}"},
            {"condition": "{{ data.n }} == 42", "message": "text"},
        ),
        ("self_modify", {"blocks": [{"params": "{{ data.n }}"}]}, {"blocks": [{"params": "{{ data.n }}"}]}),
        ("self_modify", {"blocks": "{{ data.list }}"}, {"blocks": [1, "a", None]}),
        (
            "transform",
            {"target": "{{ data.s }}", "expression": "{{ data.n }}"},
            {"target": "text", "expression": "{{ data.n }}"},
        ),
        ("transform", {"expression": "{{ data.n }}"}, {"expression": 42}),
        ("noop", None, None),
    ],
)
def test_s6_code_in_params_is_left_alone(handler: str, params: Any, expected: Any) -> None:
    assert render_params(handler, params, SCOPE) == expected


def test_deep_params_are_an_error_not_a_crash() -> None:
    value: Any = "{{ data.n }}"
    for _ in range(5000):
        value = [value]
    with pytest.raises(TemplateError):
        compile_params("noop", value)


@pytest.mark.parametrize(
    ("collection", "items"),
    [
        ("list", [1, "a", None]),
        ("obj.k", [1]),
        ("data.list", [1, "a", None]),
        ("context.data.obj.k", [1]),
        ("outputs.sub", SCOPE.outputs["sub"]),
        ("{{ data.list }}", [1, "a", None]),
        ("{{ data.missing | data.obj.k }}", [1]),
        ("missing", []),
        ("s", []),
        ("nul", []),
        ("list[0]", []),
        ("{{ data.n }}", []),
        ("text {{ data.list }}", []),
    ],
)
def test_s3_5_collection(collection: str, items: list[Any]) -> None:
    assert resolve_collection(collection, SCOPE) == items


def test_s3_5_a_key_of_the_data_beats_a_root() -> None:
    scope = Scope(data={"outputs": {"x": [1]}, "steps": [2]}, outputs={"x": [3]})
    assert resolve_collection("outputs.x", scope) == [1]
    assert resolve_collection("steps", scope) == [2]
