"""Rules of a whole definition, their texts, warnings, handler names and JSON Schemas (§1, §2.3, §11; api.md §5.4)."""

from typing import Any

import pytest

from sequences.document import parse_blocks, parse_definition
from sequences.handlers import is_builtin, is_endpoint, is_unsupported
from sequences.schemas import SchemaError, compile_schema
from sequences.spelling import NearNames
from sequences.validation import validate, validate_blocks
from tests.unit.sequences.language_documents import EVERY_BLOCK, block, definition, step

RETRY = {"max_attempts": 3, "initial_backoff": 10, "max_backoff": 20}
TWO = [{"name": "A", "weight": 1, "blocks": []}, {"name": "B", "weight": 1, "blocks": []}]
CHOICE = {"label": "A", "value": "a"}
MANY: list[Any] = [[]] * 257


def first_error(*blocks: dict[str, Any], **fields: Any) -> str | None:
    return validate(parse_definition(definition(*blocks, **fields))).first_error


def warnings(*blocks: dict[str, Any], **fields: Any) -> tuple[str, ...]:
    report = validate(parse_definition(definition(*blocks, **fields)))
    assert report.problems == ()
    return report.warnings


def test_s2_3_a_document_with_every_block_is_valid() -> None:
    assert first_error(*EVERY_BLOCK) is None


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (step(""), "block ``: block id must not be empty"),
        (step(handler=""), "block `s`: handler name must not be empty"),
        (step(retry={**RETRY, "max_attempts": 0}), "block `s`: retry.max_attempts must be > 0"),
        (step(retry={**RETRY, "backoff_multiplier": 0}), "block `s`: retry.backoff_multiplier must be > 0"),
        (step(retry={**RETRY, "max_backoff": 5}), "block `s`: retry.initial_backoff must be <= retry.max_backoff"),
        (step(retry={**RETRY, "retry_if": " "}), "block `s`: retry.retry_if must not be empty"),
        (
            step(retry={**RETRY, "non_retryable_codes": ["a", " "]}),
            "block `s`: retry.non_retryable_codes must not contain empty strings",
        ),
        (
            step(wait_for_input={"choices": []}),
            "invalid human_review on block `s`: human_review: `choices` must be non-empty when provided",
        ),
        (
            step(wait_for_input={"choices": [CHOICE, CHOICE]}),
            "invalid human_review on block `s`: human_review: duplicate choice value `a`",
        ),
        (
            step(wait_for_input={"store_as": ""}),
            "invalid human_review on block `s`: human_review: `store_as` must be non-empty",
        ),
        (block("loop", condition="x", body=[step()], max_iterations=0), "block `b`: loop max_iterations must be > 0"),
        (
            block("for_each", collection="x", body=[step()], max_iterations=0),
            "block `b`: for_each max_iterations must be > 0",
        ),
        (
            block("loop", condition="x", body=[step()], max_iterations=100_001),
            "block `b`: loop max_iterations must not exceed 100000",
        ),
    ],
)
def test_api_5_4_exact_texts(raw: dict[str, Any], text: str) -> None:
    assert first_error(raw) == text


def test_api_5_4_no_blocks() -> None:
    assert first_error() == "block `(root)`: sequence has no blocks"


@pytest.mark.parametrize(
    "raw",
    [
        block("parallel", branches=[]),
        block("race", branches=[]),
        block("parallel", branches=MANY),
        block("race", branches=MANY),
        block("router", routes=[{"condition": "x", "blocks": []}] * 257),
        block("a_b_split", variants=[{"name": str(n), "weight": 1, "blocks": []} for n in range(257)]),
        block("saga", steps=[{"id": f"s{n}", "action": step(f"a{n}")} for n in range(257)]),
        block("loop", condition=" ", body=[step()]),
        block("loop", condition="x", body=[]),
        block("loop", condition="x", body=[step()], max_iterations=-1),
        block("for_each", collection="x", body=[]),
        block("for_each", collection="x", body=[step()], item_var=" "),
        block("for_each", collection="x", body=[step()], concurrency=0),
        block("router", routes=[]),
        block("router", routes=[{"condition": " ", "blocks": []}]),
        block("try_catch", try_block=[], catch_block=[]),
        block("sub_sequence", sequence_name=" "),
        block("a_b_split", variants=TWO[:1]),
        block("a_b_split", variants=[*TWO, TWO[0]]),
        block("a_b_split", variants=[{**TWO[0], "name": " "}, TWO[1]]),
        block("a_b_split", variants=[{**variant, "weight": 0} for variant in TWO]),
        block("cancellation_scope", blocks=[]),
        step(send_window={"start_hour": 24}),
        step(send_window={"start_hour": -1}),
        step(send_window={"start_hour": 9, "end_hour": 9}),
        step(send_window={"days": [7]}),
        step(output_schema={"type": "nonsense"}),
        step(output_schema="text"),
        step(output_schema={"$ref": "http://example.com/schema.json"}),
        step(compensation={"handler": " "}),
        step(compensation={"handler": "x", "depends_on": ["s"]}),
        step(compensation={"handler": "x", "depends_on": ["a", "a"]}),
        step(compensation={"handler": "x", "depends_on": [str(n) for n in range(257)]}),
        step(rate_limit={"max": 0, "window_seconds": 1}),
        step("nul\0"),
    ],
)
def test_s2_3_rule_refuses_at_every_depth(raw: dict[str, Any]) -> None:
    text = first_error(raw)
    assert text is not None
    assert text.startswith(f"block `{raw['id']}`: ")
    assert first_error(block("saga", "g", steps=[{"id": "x", "action": raw}])) == text
    assert first_error(step("ok"), on_failure=[raw]) == text


@pytest.mark.parametrize(
    "raw",
    [
        block("parallel", branches=[[]]),
        block("router", routes=[], default=[]),
        block("router", routes=[{"condition": "x", "blocks": []}]),
        block("try_catch", try_block=[step()], catch_block=[], finally_block=[]),
        block("saga", steps=[]),
        block("parallel", branches=MANY[:256]),
        block("saga", steps=[{"id": f"s{n}", "action": step(f"a{n}")} for n in range(256)]),
        block("loop", condition="x", body=[step()], max_iterations=100_000),
        step(retry={**RETRY, "non_retryable_codes": []}),
        step(retry={**RETRY, "non_retryable_codes": ["a", "a"]}),
        step(send_window={"start_hour": 22, "end_hour": 0}),
        step("ünï 🙂 – id"),
    ],
)
def test_s2_3_what_is_allowed(raw: dict[str, Any]) -> None:
    assert first_error(raw) is None


@pytest.mark.parametrize(
    "blocks",
    [
        (step("x"), step("x")),
        (step("x"), block("parallel", branches=[[step("x")]])),
        (step("x"), block("saga", steps=[{"id": "x", "action": step("y")}])),
        (block("saga", steps=[{"id": "x", "action": step("x")}]),),
    ],
)
def test_s2_3_duplicate_block_id(blocks: tuple[dict[str, Any], ...]) -> None:
    assert first_error(*blocks) == "duplicate block id: x"


def test_s2_3_each_cleanup_tree_is_its_own_id_space() -> None:
    assert first_error(step("x"), on_failure=[step("x")], on_cancel=[step("x")]) is None
    assert first_error(step("x"), on_cancel=[step("y"), step("y")]) == "duplicate block id: y"


def test_s2_3_at_most_5000_blocks() -> None:
    steps = [step(f"s{number}") for number in range(5000)]
    assert first_error(*steps) is None
    assert "5000" in str(first_error(*steps, on_failure=[step("more")]))


def test_s2_3_input_schema_must_be_a_schema_object() -> None:
    for schema in (3, True, {"type": "nonsense"}):
        assert "input_schema" in str(first_error(step(), input_schema=schema))
    assert first_error(step(), input_schema={"type": "object"}) is None


def test_injected_blocks_are_checked_alike() -> None:
    problems = validate_blocks(parse_blocks([step("a"), step("a")]))
    assert [problem.text for problem in problems] == ["duplicate block id: a"]


@pytest.mark.parametrize(
    ("blocks", "fragment"),
    [
        ((step(handler="slep"),), "did you mean `sleep`"),
        ((step(handler="HttpRequest"),), "did you mean `http_request`"),
        ((step(params={"x": "{{ foo.x }}"}),), "unknown template root: foo.x"),
        ((step(params={"x": "{{ context.audit }}"}),), "unknown context section: audit"),
        ((step(params={"x": "{{ data.x | zap(1) }}"}),), "unknown filter `zap`"),
        ((step(params={"x": "{{ data.x | uper }}"}),), "did you mean `upper`"),
        ((step(params={"x": "a {{ data.x"}),), "unclosed `{{`"),
        ((step(cache_key="{{ foo }}"),), "unknown template root: foo"),
        ((block("loop", condition="x", body=[step(params="{{ iteration }}")]),), "unknown template root: iteration"),
        ((step(params={"x": "{{ outputs.nope.x }}"}),), "unknown block `nope`"),
        ((step(when="outputs.nope.x"),), "unknown block `nope`"),
        ((step(handler="assert", params={"condition": "outputs.nope"}),), "unknown block `nope`"),
        ((block("parallel", branches=[[], [step()]]),), "a branch is empty"),
        ((block("race", branches=[[step()]]),), "race with one branch"),
        ((block("router", routes=[{"condition": "x", "blocks": []}]),), "a route is empty"),
        ((block("try_catch", try_block=[step()], catch_block=[]),), "catch list is empty"),
        ((block("a_b_split", variants=[{**TWO[0], "weight": 0}, TWO[1]]),), "weight 0"),
        ((block("saga", steps=[]),), "saga is empty"),
        ((step(timeout=10, deadline=5),), "`timeout` is longer than `deadline`"),
        ((step(on_deadline_breach={"handler": "log"}),), "without `deadline`"),
        ((step(handler="work", fallback_handler="work"),), "`fallback_handler` is the handler itself"),
        ((step(handler="fail"), step("after")), "block `after`: never reached"),
        ((step(handler="http_request", params={}),), "missing required param `url`"),
        ((step(handler="wasm://x"),), "unsupported"),
        ((step(handler="embed"),), "reserved"),
        ((step(when="data.x >"),), "the guard 'data.x >' cannot be read"),
        ((block("router", routes=[{"condition": "a b", "blocks": [step()]}]),), "condition 'a b' cannot be read"),
        ((step(delay={"duration": 1, "fire_at_local": "tomorrow"}),), "no local time"),
        ((step(delay={"duration": 1, "holidays": ["2026-02-31", "Easter"]}),), "holiday 'Easter'"),
        (
            (
                block(
                    "for_each",
                    "out",
                    collection="x",
                    body=[block("for_each", "in", collection="item", body=[step()])],
                ),
            ),
            "block `in`: `item_var` 'item' hides",
        ),
    ],
)
def test_s1_warnings(blocks: tuple[dict[str, Any], ...], fragment: str) -> None:
    assert any(fragment in warning for warning in warnings(*blocks))


@pytest.mark.parametrize(
    "blocks",
    [
        (step(handler="send_email", params={"x": "{{ data.a | fallback }}"}),),
        (step(handler="mail"), step("t", handler="retry_charge")),
        (block("for_each", collection="x", item_var="row", body=[step(params="{{ row.id }} {{ index }}")]),),
        (step("a"), step("b", params="{{ outputs.a.x | steps.b }}", when="outputs.a")),
        (step(handler="http_request", params="{{ data.request }}"), step("t", handler="https://x.example")),
        (step(handler="fail", when="data.x"), step("after")),
    ],
)
def test_s1_no_warning_without_a_reason(blocks: tuple[dict[str, Any], ...]) -> None:
    assert warnings(*blocks) == ()


def test_s14_hook_roots_are_known_in_hooks_only() -> None:
    hook = {"handler": "log", "params": {"message": "{{ error.message }}"}}
    assert (
        warnings(step(), interceptors={"on_failure": hook}, on_failure=[step(handler="log", params=hook["params"])])
        == ()
    )
    assert len(warnings(step(handler="log", params=hook["params"]))) == 1


def test_warnings_are_bounded() -> None:
    assert len(warnings(step(params=[f"{{{{ foo{number} }}}}" for number in range(1000)]))) == 200


def test_s11_handler_names() -> None:
    assert is_builtin("noop")
    assert is_builtin("embed")
    assert not is_builtin("send_email")
    assert all(is_endpoint(name) for name in ("http://a", "https://a", "grpc://a", "grpcs://a"))
    assert not is_endpoint("http_request")
    assert is_unsupported("ap://x")
    assert not is_unsupported("app")


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("slep", "sleep"),
        ("sleeep", "sleep"),
        ("slepe", "sleep"),
        ("Sleep", "sleep"),
        ("sleep", None),
        ("mail", None),
        ("", None),
    ],
)
def test_nearest_name(word: str, name: str | None) -> None:
    assert NearNames(["sleep", "fail"]).nearest(word) == name


def test_schema_violations_name_the_place() -> None:
    schema = compile_schema(
        {"type": "object", "required": ["q"], "properties": {"a/b": {"items": {"type": "integer"}}}}
    )
    assert schema.violations({"q": 1, "a/b": [1]}) == ()
    assert schema.violations({"q": 1, "a/b": [1, "x"]}) == ('at /a~1b/1: "x" is not of type "integer"',)
    assert schema.violations({}) == ('at : "q" is a required property',)


@pytest.mark.parametrize(
    "schema", [None, [], "x", {"type": 5}, {"pattern": "(?=a)"}, {"$ref": "file:///etc/passwd"}, {"$ref": "#/no"}]
)
def test_bad_schema_is_refused(schema: object) -> None:
    with pytest.raises(SchemaError):
        compile_schema(schema)


def test_schema_patterns_match_in_linear_time() -> None:
    assert compile_schema({"pattern": "^(a+)+$"}).violations("a" * 50_000 + "!") != ()


def test_deep_values_are_a_violation_not_a_crash() -> None:
    value: Any = 1
    for _ in range(100_000):
        value = [value]
    schema = compile_schema({"$defs": {"n": {"items": {"$ref": "#/$defs/n"}}}, "$ref": "#/$defs/n"})
    assert schema.violations(value) == ("at : nested deeper than 1024 levels",)


@pytest.mark.parametrize("reference", ["#/$defs/a{}", "#a{}", "a{}.json"])
def test_schema_that_doubles_with_every_reference_is_refused(reference: str) -> None:
    names = ("$anchor", "a{}") if reference == "#a{}" else ("$id", "a{}.json")
    definitions = {
        f"a{n}": {names[0]: names[1].format(n), "allOf": [{"$ref": reference.format(n + 1)}] * 2} for n in range(40)
    }
    definitions["a40"] = {names[0]: names[1].format(40), "type": "integer"}
    with pytest.raises(SchemaError, match="expand"):
        compile_schema({"$defs": definitions, "$ref": reference.format(0)})


def test_recursive_schema_is_fine() -> None:
    tree = {"type": "object", "properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}, "n": {"type": "integer"}}}
    schema = compile_schema(tree)
    assert schema.violations({"left": {"right": {"n": 1}}}) == ()
    assert schema.violations({"left": {"right": {"n": "x"}}}) == ('at /left/right/n: "x" is not of type "integer"',)
