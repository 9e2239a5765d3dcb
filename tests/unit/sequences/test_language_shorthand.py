"""The shorthand dialect and the short forms of signals (§16, §9.4, §5.5)."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest

from sequences.document import DocumentError, NestingError, parse_definition, to_document
from sequences.shorthand import fingerprint, is_shorthand, normalize
from sequences.signals import Control, Custom, SignalError, exact_choice, nameless_choice, parse_signal, written_type
from tests.unit.sequences.language_documents import definition, nested, step

NOW = datetime(2026, 1, 1, tzinfo=UTC)
RESEARCH: dict[str, Any] = {
    "id": "research_agent",
    "blocks": [
        {"type": "step", "handler": "gather_sources", "retry": {"max_attempts": 3, "backoff": "2s"}},
        {
            "type": "loop",
            "condition": "{{outputs.analyze.needs_more_data == true}}",
            "max_iterations": 10,
            "blocks": [
                {
                    "handler": "call_llm",
                    "rate_limit_key": "llm:anthropic",
                    "rate_limit": {"max": 50, "window_seconds": 60},
                },
                {
                    "type": "router",
                    "routes": [
                        {"condition": "{{outputs.call_llm.tool_calls}}", "blocks": [{"handler": "execute_tools"}]},
                        {"default": True, "blocks": [{"handler": "analyze"}]},
                    ],
                },
            ],
        },
        {"type": "step", "handler": "human_review", "wait_for_signal": True},
        {"type": "step", "handler": "publish_report"},
    ],
}


def normal(data: dict[str, Any]) -> dict[str, Any]:
    return normalize(data, tenant_id="demo", now=NOW, new_id=UUID(int=1))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({}, True),
        ({"id": "x"}, True),
        ({"name": "x"}, False),
        ({"version": 1}, False),
        ({"name": None}, False),
        ([], False),
    ],
)
def test_s16_shorthand_has_neither_name_nor_version(data: object, expected: bool) -> None:
    assert is_shorthand(data) is expected


def test_s16_the_document_of_the_product_page() -> None:
    canonical = to_document(parse_definition(normal(RESEARCH)))
    assert canonical["name"] == "research_agent"
    assert (canonical["id"], canonical["version"], canonical["tenant_id"]) == (str(UUID(int=1)), 1, "demo")
    assert (canonical["namespace"], canonical["created_at"]) == ("default", "2026-01-01T00:00:00Z")
    gather, loop, review, _ = canonical["blocks"]
    assert gather["retry"]["initial_backoff"] == gather["retry"]["max_backoff"] == 2000
    call, router = loop["body"]
    assert (gather["id"], loop["id"], call["id"], router["id"]) == ("gather_sources", "loop", "call_llm", "router")
    assert [route["condition"] for route in router["routes"]] == ["{{outputs.call_llm.tool_calls}}"]
    assert router["default"][0]["id"] == "analyze"
    assert review["wait_for_signal"] is True


def test_s16_the_given_document_is_not_changed() -> None:
    before = repr(RESEARCH)
    normal(RESEARCH)
    assert repr(RESEARCH) == before


def test_s16_taken_names_are_numbered() -> None:
    blocks = [
        {"handler": "call"},
        {"handler": "call"},
        step("call_2"),
        {"handler": "call"},
        {"type": "parallel", "branches": []},
    ]
    document = normal({"id": "x", "blocks": blocks, "on_failure": [{"handler": "call"}]})
    assert [block["id"] for block in document["blocks"]] == ["call", "call_3", "call_2", "call_4", "parallel"]
    assert document["on_failure"][0]["id"] == "call"


def test_s16_short_list_names() -> None:
    short = {"type": "try_catch", "id": "t", "try": [{"handler": "a"}], "catch": [], "finally": [{"handler": "b"}]}
    (block,) = normal({"id": "x", "blocks": [short]})["blocks"]
    assert block["try_block"] == [{"type": "step", "id": "a", "handler": "a"}]
    assert (block["catch_block"], block["finally_block"][0]["id"]) == ([], "b")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"id": "x"},
        {"blocks": [step()]},
        {"id": str(UUID(int=3)), "blocks": [step()]},
        {"id": 5, "blocks": [step()]},
    ],
)
def test_s16_what_is_missing_is_422(data: dict[str, Any]) -> None:
    with pytest.raises(DocumentError):
        parse_definition(normal(data))


@pytest.mark.parametrize(
    "junk",
    [
        None,
        5,
        "x",
        [None, 5, [[]]],
        [{"type": "saga", "steps": 5}],
        [{"routes": [5]}],
        [{"type": "router", "routes": {}}],
    ],
)
def test_s16_junk_is_left_for_the_parser(junk: object) -> None:
    with pytest.raises(DocumentError):
        parse_definition(normal({"id": "x", "blocks": junk}))


def test_s16_deep_documents_are_refused() -> None:
    with pytest.raises(NestingError):
        normal({"id": "x", "blocks": [nested(5000)]})
    bomb: Any = []
    for _ in range(5000):
        bomb = [{"blocks": bomb}]
    with pytest.raises(DocumentError):
        normal({"id": "x", "blocks": bomb})


def test_s16_same_content_has_the_same_fingerprint() -> None:
    first = parse_definition(normal(RESEARCH))
    again = parse_definition(
        normalize(RESEARCH, tenant_id="demo", now=NOW.replace(year=2027), new_id=UUID(int=9), version=4)
    )
    other = parse_definition(normal({**RESEARCH, "blocks": RESEARCH["blocks"][:1]}))
    assert fingerprint(first) == fingerprint(again)
    assert fingerprint(first) != fingerprint(other)
    assert fingerprint(parse_definition(definition(step()))) != fingerprint(first)


@pytest.mark.parametrize(
    ("body", "signal"),
    [
        ({"signal_type": "pause"}, Control.PAUSE),
        ({"signal_type": "resume"}, Control.RESUME),
        ({"signal_type": "cancel"}, Control.CANCEL),
        ({"signal_type": "update_context"}, Control.UPDATE_CONTEXT),
        ({"signal_type": {"custom": "x"}}, Custom("x")),
        ({"signal_type": {"custom": ""}}, Custom("")),
        ({"signal_type": {"custom": "x", "unknown": 1}}, Custom("x")),
        ({"type": "cancel"}, Control.CANCEL),
        ({"signal_type": "custom"}, Custom(None)),
        ({"signal_type": "custom", "name": "x"}, Custom("x")),
    ],
)
def test_s16_signal_forms(body: dict[str, Any], signal: object) -> None:
    assert parse_signal(body) == signal


@pytest.mark.parametrize(
    "body",
    [
        {}, {"signal_type": None}, {"signal_type": ""}, {"signal_type": "stop"}, {"signal_type": 5},
        {"signal_type": []}, {"signal_type": {}}, {"signal_type": {"custom": None}},
        {"signal_type": {"pause": 1}}, {"signal_type": "custom", "name": 5},
    ],
)  # fmt: skip
def test_s9_4_other_signal_types_are_422(body: dict[str, Any]) -> None:
    with pytest.raises(SignalError):
        parse_signal(body)


def test_signal_types_are_written_canonically() -> None:
    assert [written_type(signal) for signal in (Control.PAUSE, Custom("x"), Custom(None))] == [
        "pause",
        {"custom": "x"},
        "custom",
    ]


def test_s5_5_a_named_answer_counts_only_as_an_exact_value() -> None:
    assert exact_choice({"value": "yes"}, ("yes", "no")) == "yes"
    for payload in ({"value": "Yes"}, {"value": True}, {"decision": "yes"}, {}, None, "yes", ["yes"]):
        assert exact_choice(payload, ("yes", "no")) is None


@pytest.mark.parametrize(
    ("payload", "choices", "value"),
    [
        ({"value": "yes"}, ("yes", "no"), "yes"),
        ({"decision": "approved"}, ("approved", "rejected"), "approved"),
        ({"decision": "approved"}, ("yes", "no"), "yes"),
        ({"decision": "reject"}, ("yes", "no"), "no"),
        ({"choice": "no"}, ("approve", "reject"), "reject"),
        ({"approved": True}, ("yes", "no"), "yes"),
        ({"approved": False}, ("approved", "rejected"), "rejected"),
        ({"value": True}, ("yes", "no"), "yes"),
        ({"value": "maybe", "decision": "yes"}, ("yes", "no"), None),
        ({"decision": "approved"}, ("yes", "approve", "no"), None),
        ({"decision": "approved"}, ("a", "b"), None),
        ({"value": 5}, ("5",), None),
        ({}, ("yes",), None),
        ("yes", ("yes",), None),
        (None, ("yes",), None),
    ],
)
def test_s16_nameless_answers(payload: object, choices: tuple[str, ...], value: str | None) -> None:
    assert nameless_choice(payload, choices) == value
