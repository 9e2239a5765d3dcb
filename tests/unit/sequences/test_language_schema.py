"""The published JSON Schema accepts what the language accepts, and refuses what it can (§1-§4, §16)."""

from typing import Any

import jsonschema_rs
import pytest

from sequences import library
from sequences.document import parse_definition, to_document
from sequences.language_schema import language_schema
from tests.unit.sequences.language_documents import AROUND, EVERY_BLOCK, block, definition, nested, step
from tests.unit.sequences.test_language_validation import RETRY

SCHEMAS = {form: jsonschema_rs.validator_for(language_schema(form)) for form in ("any", "canonical", "shorthand")}


def accepts(document: Any, form: str = "any") -> bool:
    return SCHEMAS[form].is_valid(document)


@pytest.mark.parametrize("name", library.names())
def test_s1_documents_of_the_library_are_accepted(name: str) -> None:
    document = library.load(name)
    assert [str(error) for error in SCHEMAS["any"].iter_errors(document)] == []
    assert accepts(document, "shorthand" if "name" not in document else "canonical")


def test_s3_every_block_is_accepted_as_posted_and_as_written_back() -> None:
    raw = definition(*EVERY_BLOCK, input_schema={"type": "object"}, sla={"max_runtime": "2h"})
    assert accepts(raw)
    assert accepts(to_document(parse_definition(raw)), "canonical")
    assert not accepts(raw, "shorthand")


@pytest.mark.parametrize("kind", AROUND)
def test_s2_3_deep_documents_are_accepted(kind: str) -> None:
    assert accepts(definition(nested(20, kind)))


@pytest.mark.parametrize(
    "raw",
    [
        step(wait_for_signal=True),
        step(wait_for_signal={"timeout": "PT2H"}),
        step(retry={"max_attempts": 2, "backoff": "2s"}),
        step(timeout=0.5),
        step(surprise=1),
        block("parallel", branches=[[]], on_failure="continue"),
        block("ab_split", variants=[{"name": n, "weight": 1, "blocks": []} for n in "AB"]),
        block("saga", steps=[]),
        block("router", routes=[], default=[]),
    ],
)
def test_s16_aliases_and_extensions_are_accepted_in_every_form(raw: dict[str, Any]) -> None:
    assert accepts(definition(raw))
    assert accepts({"id": "short", "blocks": [raw]})
    parse_definition(definition(raw))


@pytest.mark.parametrize(
    "raw",
    [
        {"type": "step", "id": "s"},
        {"type": "unheard_of", "id": "s"},
        {"id": "s"},
        step(""),
        step(handler=" "),
        step(timeout=-1),
        step(timeout="soon"),
        step(cancellable="yes"),
        step(retry={"max_attempts": 1}),
        step(retry={**RETRY, "max_attempts": 0}),
        step(send_window={"start_hour": 24}),
        step(context_access={"data": "some"}),
        step(wait_for_input={"choices": []}),
        block("parallel", branches=[]),
        block("parallel", branches=[step()]),
        block("loop", condition="x", body=[]),
        block("loop", condition="x", body=[step()], max_iterations=100_001),
        block("router", routes=[]),
        block("try_catch", try_block=[step()]),
        block("a_b_split", variants=[]),
        block("saga", steps=[{"id": "x"}]),
        block("race", branches=[[step()]], semantics="last"),
    ],
)
def test_s2_3_mistakes_are_found_at_every_depth(raw: dict[str, Any]) -> None:
    assert not accepts(definition(raw))
    assert not accepts(definition(block("cancellation_scope", blocks=[raw])))
    assert not accepts({"id": "short", "blocks": [raw]})


SHORT: list[dict[str, Any]] = [
    {"handler": "noop"},
    {"type": "loop", "condition": "x", "blocks": [{"handler": "noop"}]},
    {"type": "for_each", "collection": "x", "blocks": [{"handler": "noop"}]},
    {"type": "router", "routes": [{"condition": "x", "blocks": []}, {"default": True, "blocks": [{"handler": "a"}]}]},
    {"type": "try_catch", "try": [{"handler": "a"}], "catch": [], "finally": [{"handler": "b"}]},
    {"type": "saga", "steps": [{"action": {"handler": "a"}, "compensation": {"handler": "b"}}]},
]


@pytest.mark.parametrize("raw", SHORT)
def test_s16_shorthand_blocks_are_accepted_in_shorthand_only(raw: dict[str, Any]) -> None:
    assert accepts({"id": "short", "blocks": [raw]}, "shorthand")
    assert accepts({"id": "short", "blocks": [raw]})
    assert not accepts(definition(raw))


@pytest.mark.parametrize("member", ["id", "tenant_id", "namespace", "name", "version", "blocks", "created_at"])
def test_s1_required_members_are_required(member: str) -> None:
    raw = definition(step())
    del raw[member]
    assert not accepts(raw, "canonical")
