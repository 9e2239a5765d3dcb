"""The template debugger, redaction, inspection and preflight (§15.2; api §9, §21)."""

from typing import Any

import pytest

from sequences.debugging import debug
from sequences.document import parse_definition
from sequences.inspection import inspect_definition, inspect_template
from sequences.preflight import children_of, overall, preflight
from sequences.redaction import REDACTED, is_sensitive, redact
from tests.unit.sequences.language_documents import EVERY_BLOCK, block, definition, step

DATA = {
    "name": "Ann",
    "n": 5,
    "none": None,
    "list": [1],
    "key": "sk_live_abcdef123456",
    "header": "Bearer abc.def",
    "api_key": "k",
    "user": {"password": "p", "name": "Ann"},
    "max_tokens": 10,
}


def seen(template: Any) -> dict[str, Any]:
    return debug(template, data=DATA, config={"region": "eu"}, outputs={"a": {"x": 1}}).document()


def entry(template: str) -> tuple[Any, ...]:
    (only,) = seen(template)["entries"]
    return only["status"], only["source"], only["fallback_used"], only["coerced_to_string"]


@pytest.mark.parametrize(
    ("template", "result", "result_type", "expected"),
    [
        ("{{ data.n }}", 5, "number", ("ok", "data.n", False, False)),
        ("{{ context.config.region }}", "eu", "string", ("ok", "context.config.region", False, False)),
        ("{{ outputs.a }}", {"x": 1}, "object", ("ok", "outputs.a", False, False)),
        ("n={{ data.n }}", "n=5", "string", ("ok", "data.n", False, True)),
        ("n={{ data.name }}", "n=Ann", "string", ("ok", "data.name", False, False)),
        ("{{ data.none }}", None, "null", ("null", "data.none", False, False)),
        ("{{ data.gone }}", None, "null", ("missing", None, False, False)),
        ("{{ data.gone.deep }}", None, "null", ("missing", None, False, False)),
        ("{{ data.gone | data.n }}", 5, "number", ("ok", "data.n", True, False)),
        ("{{ data.gone | x }}", "x", "string", ("ok", "literal", True, False)),
        ("{{ data.gone | 'x' }}", "x", "string", ("ok", "literal", True, False)),
        ("{{ data.gone | default(7) }}", 7, "number", ("ok", "literal", True, False)),
        ("{{ data.gone | default(data.n) }}", 5, "number", ("ok", "data.n", True, False)),
        ("{{ data.gone | upper }}", "", "string", ("missing", None, False, False)),
        ("{{ data.none | upper }}", "", "string", ("null", "data.none", False, False)),
        ("{{ data.name | upper }}", "ANN", "string", ("ok", "data.name", False, False)),
        ("{{ len(data.list) }}", 1, "number", ("ok", "len(data.list)", False, False)),
        ("{{ data.key }}", REDACTED, "string", ("redacted", "data.key", False, False)),
        ("{{ data.key | base64 }}", REDACTED, "string", ("redacted", "data.key", False, False)),
        ("{{ data.key | lower | truncate(3) }}", REDACTED, "string", ("redacted", "data.key", False, False)),
        ("{{ data.header }}", REDACTED, "string", ("redacted", "data.header", False, False)),
        ("{{ data.api_key }}", REDACTED, "string", ("redacted", "data.api_key", False, False)),
        ("k={{ data.api_key }}", f"k={REDACTED}", "string", ("redacted", "data.api_key", False, False)),
        ("{{ data.user }}", {"password": REDACTED, "name": "Ann"}, "object", ("redacted", "data.user", False, False)),
        ("{{ data.user.name }}", "Ann", "string", ("ok", "data.user.name", False, False)),
        ("{{ data.max_tokens }}", 10, "number", ("ok", "data.max_tokens", False, False)),
    ],
)
def test_s15_2_one_expression(template: str, result: Any, result_type: str, expected: tuple[Any, ...]) -> None:
    answer = seen(template)
    assert (answer["result"], answer["result_type"]) == (result, result_type)
    assert entry(template) == expected
    assert "error" not in answer


@pytest.mark.parametrize("template", ["plain", "{{ open", 5, None, {"a": [True]}, ""])
def test_s15_2_literal_values_have_no_entries(template: Any) -> None:
    assert (seen(template)["result"], seen(template)["entries"]) == (template, [])


@pytest.mark.parametrize(
    ("template", "error"),
    [
        ("{{ foo.bar }}", "unknown template root: foo.bar"),
        ("x {{ context.audit }}", "unknown context section: audit"),
        ("{{ data.n | hash(md5) }}", "filter `hash`: only sha256 is known"),
        ({"a": "{{ data.n }}", "b": "{{ foo }}"}, "unknown template root: foo"),
    ],
)
def test_s15_2_an_error_comes_without_a_result(template: Any, error: str) -> None:
    answer = seen(template)
    assert answer["error"] == error
    assert "result" not in answer
    assert answer["entries"][-1]["status"] == "error"


def test_s15_2_values_of_any_form_are_debugged() -> None:
    answer = seen({"a": ["{{ data.n }}", {"b": "{{ data.gone | x }}"}], "token": "literal"})
    assert answer["result"] == {"a": [5, {"b": "x"}], "token": REDACTED}
    assert [each["expression"] for each in answer["entries"]] == ["data.n", "data.gone | x"]


def test_s15_2_no_secret_is_shown_anywhere() -> None:
    templates = [
        "{{ data.key | replace(sk, x) }}",
        "{{ json(data) }}",
        "{{ data | data.key }}",
        "sk_live_abcdef123456",
        "{{ data.gone | sk_live_abcdef123456 }}",
        "{{ data.n | replace(5, data.key) }}",
        "{{ sk_live_abcdef123456 }}",
    ]
    for template in templates:
        assert "abcdef123456" not in str(seen(template)), template


def test_s15_2_what_makes_too_much_is_an_error() -> None:
    answer = debug("{{ data.x }}" * 3000, data={"x": "y" * 250_000}).document()
    assert "makes too much" in answer["error"]


@pytest.mark.parametrize(
    ("name", "sensitive"),
    [("password", True), ("X-Api-Key", True), ("clientSecret", True), ("access_token", True), ("Set-Cookie", True),
     ("total_tokens", False), ("tokenType", False), ("keyboard", False), ("author", False), ("", False)],
)  # fmt: skip
def test_s15_2_names_of_secrets(name: str, sensitive: bool) -> None:
    assert is_sensitive(name) == sensitive


@pytest.mark.parametrize(
    ("text", "is_secret"),
    [("sk_test_1a2b", True), ("sk-proj-abcdefghijklmnop", True), ("AKIAABCDEFGHIJKLMNOP", True),
     ("eyJhbGciOi.eyJzdWIi.c2ln", True), ("ghp_abcdefghijklmnopqrstuvwxyz", True), ("basic plan", False),
     ("risk_live", False), ("the bearer", False), ("task-sk-1", False)],
)  # fmt: skip
def test_s15_2_shapes_of_secrets(text: str, is_secret: bool) -> None:
    assert (redact([text]) == [REDACTED]) == is_secret


def test_api_21_inspection_names_what_is_read() -> None:
    answer = inspect_template({"a": "{{ outputs.x.y | data.z | upper | none }} {{ data.n | replace(a, data.m) }}"})
    (template,) = answer["templates"]
    assert template["member"] == "template.a"
    assert template["expressions"][0] == {
        "expression": "outputs.x.y | data.z | upper | none",
        "reads": ["outputs.x.y", "data.z"],
        "filters": ["upper"],
        "fallbacks": ["data.z", "none"],
    }
    assert answer["reads"] == {"data": ["data.m", "data.n", "data.z"], "outputs": ["outputs.x.y"]}


def test_api_21_inspection_finds_every_text_of_a_definition() -> None:
    hook = {"handler": "log", "params": {"m": "{{ step.id }}"}}
    raw = definition(*EVERY_BLOCK, on_failure=[step("f", params="{{ error }}")], interceptors={"before_step": hook})
    answer = inspect_definition(parse_definition(raw))
    places = {(each["block_id"], each["member"]) for each in answer["templates"]}
    assert places >= {
        ("full", "when"),
        ("full", "params.a.2"),
        ("full", "retry.retry_if"),
        ("full", "cache_key"),
        ("loop", "condition"),
        ("loop", "break_on"),
        ("each", "collection"),
        ("router", "routes.0.condition"),
        ("f", "params"),
        (None, "interceptors.before_step.params.m"),
    }
    assert answer["is_complete"] is True


def checks(*blocks: dict[str, Any], **fields: Any) -> dict[str, str]:
    made = preflight(parse_definition(definition(*blocks, **fields)), problems=(), missing_children=())
    return {check.id: check.status.value for check in made} | {"overall": overall(made).value}


def test_api_9_preflight_of_a_plain_sequence_passes() -> None:
    assert set(checks(step()).values()) == {"pass"}


def test_api_9_preflight_tells_what_is_doubtful() -> None:
    found = checks(step(handler="slep", when="a b", params="{{ data.x }}"))
    assert (found["when_guards_valid"], found["conditions_readable"], found["no_warnings"]) == (
        "pass",
        "warning",
        "warning",
    )
    assert (found["typed_dataflow_compatible"], found["overall"]) == ("warning", "warning")


def test_s15_1_preflight_fails_on_an_error_of_the_dataflow() -> None:
    found = checks(step(params="{{ outputs.gone.x }}"))
    assert (found["typed_dataflow_compatible"], found["overall"]) == ("fail", "fail")


def test_api_9_preflight_of_what_cannot_be_analysed_is_unknown() -> None:
    schema: dict[str, Any] = {}
    for _ in range(40):
        schema = {"items": schema}
    found = checks(step(output_schema=schema))
    assert (found["typed_dataflow_compatible"], found["overall"]) == ("unknown", "unknown")


def test_api_9_preflight_of_a_broken_definition_fails() -> None:
    raw = parse_definition(definition(step(output_schema={"type": "x"}), block("sub_sequence", sequence_name="s")))
    made = preflight(raw, problems=("no",), missing_children=("there is no sequence s",))
    found = {check.id: check.status.value for check in made}
    assert (found["definition_valid"], found["output_schemas_valid"]) == ("fail", "fail")
    assert found["sub_sequences_found"] == "warning"
    assert children_of(raw) == (("s", None),)
