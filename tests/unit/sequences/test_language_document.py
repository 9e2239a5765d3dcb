"""Shape of documents, durations, and the output form (§1, §2.2, §3, §4; api.md §5.3)."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from sequences.document import (
    DocumentError,
    NestingError,
    Parallel,
    Step,
    parse_blocks,
    parse_definition,
    to_document,
    walk,
)
from sequences.durations import after, parse_duration
from sequences.json_values import json_bytes
from sequences.shorthand import fingerprint, normalize
from sequences.validation import validate
from tests.unit.sequences.language_documents import AROUND, EVERY_BLOCK, block, definition, nested, step


def written(raw: dict[str, Any]) -> dict[str, Any]:
    return to_document(parse_blocks([raw])[0])


@pytest.mark.parametrize(
    ("value", "milliseconds"),
    [
        (300, 300),
        (0, 0),
        (0.2, 200),
        (1.5, 1500),
        (2.0, 2000),
        ("500ms", 500),
        ("2s", 2000),
        ("15m", 900_000),
        ("4h", 14_400_000),
        ("3d", 259_200_000),
        ("1w", 604_800_000),
        ("PT2S", 2000),
        ("P1DT12H", 129_600_000),
        ("P1W", 604_800_000),
    ],
)
def test_s2_2_duration_forms(value: object, milliseconds: int) -> None:
    assert parse_duration(value) == timedelta(milliseconds=milliseconds)


@pytest.mark.parametrize(
    "value",
    [
        -1,
        -0.5,
        True,
        None,
        [],
        "",
        "2",
        "s",
        "-2s",
        "P",
        "PT",
        "P1Y",
        "1e9s",
        10**40,
        1e300,
        float("nan"),
        float("inf"),
    ],
)
def test_s2_2_bad_duration_is_422(value: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(value)


def test_s2_2_durations_come_back_as_integer_milliseconds() -> None:
    document = written(step(timeout=0.2, deadline="2s", delay={"duration": 1.5}))
    assert (document["timeout"], document["deadline"], document["delay"]["duration"]) == (200, 2000, 1500)


def test_s2_2_poll_interval_stays_in_seconds() -> None:
    assert written(block("loop", condition="x", body=[step()], poll_interval=5))["poll_interval"] == 5


def test_a_moment_plus_a_huge_duration_is_the_last_moment() -> None:
    assert after(datetime(2026, 1, 1, tzinfo=UTC), timedelta.max).year == 9999


def test_s1_every_block_survives_a_round_trip() -> None:
    parsed = parse_definition(definition(*EVERY_BLOCK, on_failure=[step()], sla={"max_runtime": 5}))
    document = to_document(parsed)
    assert parse_definition(document) == parsed
    assert to_document(parse_definition(document)) == document


def test_s5_3_step_is_written_with_its_defaults() -> None:
    assert written(step()) == {
        "type": "step", "id": "s", "handler": "noop", "params": None, "delay": None, "retry": None, "cancellable": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("raw", "filled"),
    [
        (block("router", routes=[{"condition": "x", "blocks": []}]), {"default": None}),
        (block("try_catch", try_block=[step()], catch_block=[]), {"finally_block": None}),
        (block("race", branches=[[]]), {"semantics": "first_to_resolve"}),
        (block("sub_sequence", sequence_name="x"), {"input": None}),
        (
            block("loop", condition="x", body=[step()]),
            {"max_iterations": 1000, "continue_on_error": False},
        ),
        (block("for_each", collection="x", body=[step()]), {"item_var": "item", "max_iterations": 1000}),
    ],
)
def test_s5_3_defaults_are_filled_and_nothing_else_is_added(raw: dict[str, Any], filled: dict[str, Any]) -> None:
    document = written(raw)
    assert {key: document[key] for key in filled} == filled
    assert document.keys() == {*raw, *filled}


def test_s5_3_members_with_defaults_inside_a_step() -> None:
    document = written(
        step(
            send_window={},
            delay={"duration": 1},
            retry={"max_attempts": 1, "initial_backoff": 1, "max_backoff": 1},
            wait_for_input={},
            context_access={},
            on_deadline_breach={"handler": "log"},
            compensation={"handler": "undo"},
        )
    )
    assert document["send_window"] == {"start_hour": 9, "end_hour": 17, "days": []}
    assert document["delay"] == {"duration": 1, "business_days_only": False}
    assert document["retry"] == {"max_attempts": 1, "initial_backoff": 1, "max_backoff": 1, "backoff_multiplier": 2.0}
    assert document["wait_for_input"] == {"prompt": ""}
    assert document["context_access"] == {"data": True, "config": True, "audit": False, "runtime": False}
    assert document["on_deadline_breach"] == {"handler": "log", "params": None}
    assert document["compensation"] == {
        "handler": "undo", "params": None, "depends_on": [], "verification": "handler_result",
    }  # fmt: skip


def test_s5_3_retry_filters_come_back_as_sent() -> None:
    retry = {"max_attempts": 2, "initial_backoff": 1, "max_backoff": 2, "backoff_multiplier": 2.0}
    sent = {**retry, "retry_if": "x", "non_retryable_codes": ["b", "a", "b"]}
    assert written(step(retry=sent))["retry"] == sent
    assert written(step(retry={**retry, "non_retryable_codes": []}))["retry"]["non_retryable_codes"] == []
    assert written(step(retry=retry))["retry"] == retry


def test_s14_interceptors_come_back_exactly() -> None:
    hooks = {"before_step": {"handler": "a", "params": {"x": "{{ step.id }}"}}, "on_signal": {"handler": "b"}}
    document = to_document(parse_definition(definition(step(), interceptors={**hooks, "on_failure": None})))
    assert document["interceptors"] == hooks


def test_s1_definition_defaults_and_omissions() -> None:
    document = to_document(parse_definition(definition(step(), surprise=1)))
    assert document.keys() == {*definition(), "deprecated", "status"}
    assert (document["deprecated"], document["status"]) == (False, "production")


@pytest.mark.parametrize("name", ["id", "tenant_id", "namespace", "name", "version", "blocks", "created_at"])
def test_s1_required_member_missing_is_422(name: str) -> None:
    raw = definition(step())
    del raw[name]
    with pytest.raises(DocumentError, match=f"missing field `{name}`"):
        parse_definition(raw)


def test_s1_missing_created_at_beats_no_blocks() -> None:
    raw = definition()
    del raw["created_at"]
    with pytest.raises(DocumentError, match="created_at"):
        parse_definition(raw)
    assert parse_definition(definition()).blocks == ()


@pytest.mark.parametrize(
    "fields",
    [
        {"id": "no-uuid"},
        {"id": 5},
        {"tenant_id": ""},
        {"tenant_id": " "},
        {"name": 3},
        {"version": True},
        {"version": 1.5},
        {"version": "1"},
        {"version": 2**31},
        {"deprecated": "yes"},
        {"status": "live"},
        {"blocks": {}},
        {"blocks": None},
        {"created_at": "2026-01-01"},
        {"created_at": "2026-01-01T00:00:00"},
        {"created_at": 5},
        {"created_at": "0001-01-01T00:00:00+23:59"},
        {"on_failure": "x"},
        {"sla": {"max_runtime": -1}},
    ],
)
def test_s2_1_wrong_type_of_a_definition_member_is_422(fields: dict[str, Any]) -> None:
    with pytest.raises(DocumentError):
        parse_definition(definition(step(), **fields))


@pytest.mark.parametrize(
    "raw",
    [
        {"id": "s", "handler": "x"},
        block("unknown"),
        {"type": "step", "handler": "x"},
        {"type": "step", "id": "s"},
        {"type": ["step"], "id": "s"},
        step(timeout=-1),
        step(timeout=True),
        step(cancellable="no"),
        step(cancellable=None),
        step(retry={"max_attempts": 3}),
        step(retry={"max_attempts": True, "initial_backoff": 1, "max_backoff": 1}),
        step(retry={"max_attempts": 1, "initial_backoff": 1, "max_backoff": 1, "backoff_multiplier": float("inf")}),
        step(send_window={"start_hour": 8.5}),
        step(delay={}),
        step(context_access={"data": 3}),
        step(wait_for_signal="yes"),
        step(wait_for_input={"choices": [{"value": "a"}]}),
        block("parallel"),
        block("parallel", branches=[step()]),
        block("parallel", branches=[], failure_policy="never"),
        block("parallel", branches=[], on_failure="never"),
        block("race", branches=[], semantics="first"),
        block("loop", body=[]),
        block("for_each", body=[step()]),
        block("router", routes=[{"blocks": []}]),
        block("try_catch", try_block=[step()]),
        block("a_b_split", variants=[{"name": "a", "weight": -1, "blocks": []}]),
        block("saga", steps=[{"id": "x"}]),
        "text",
        None,
    ],
)
def test_s2_1_wrong_shape_of_a_block_is_422(raw: object) -> None:
    with pytest.raises(DocumentError):
        parse_blocks([raw])


def test_messages_name_the_path() -> None:
    raw = definition(
        block("parallel", branches=[[block("saga", steps=[{"id": "a", "action": {"type": "step", "id": "y"}}])]])
    )
    with pytest.raises(
        DocumentError, match=r"blocks\[0\].branches\[0\]\[0\].steps\[0\].action.handler: missing field `handler`"
    ):
        parse_definition(raw)


def test_s1_unknown_members_are_ignored() -> None:
    assert parse_blocks([step(surprise={"deep": [1]})]) == parse_blocks([step()])


def test_s3_ab_split_is_an_accepted_tag() -> None:
    raw = block("ab_split", variants=[{"name": "a", "weight": 1, "blocks": []}])
    assert written(raw)["type"] == "a_b_split"


@pytest.mark.parametrize(("alias", "policy"), [("continue", "wait_all"), ("cancel_siblings", "fail_fast")])
def test_s3_2_on_failure_is_an_alias(alias: str, policy: str) -> None:
    document = written(block("parallel", branches=[[]], on_failure=alias))
    assert document["failure_policy"] == policy
    assert "on_failure" not in document
    assert "failure_policy" not in written(block("parallel", branches=[[]]))


def test_s16_backoff_is_short_for_both_waits() -> None:
    retry = written(step(retry={"max_attempts": 3, "backoff": "2s"}))["retry"]
    assert (retry["initial_backoff"], retry["max_backoff"]) == (2000, 2000)


def test_s5_5_wait_for_signal_false_is_none() -> None:
    (parsed,) = parse_blocks([step(wait_for_signal=False)])
    assert isinstance(parsed, Step)
    assert parsed.wait_for_signal is None


def test_s5_5_default_choices() -> None:
    (parsed,) = parse_blocks([step(wait_for_input={})])
    assert isinstance(parsed, Step)
    assert parsed.wait_for_input is not None
    assert [choice.value for choice in parsed.wait_for_input.effective_choices] == ["yes", "no"]


@pytest.mark.parametrize("kind", AROUND)
def test_s2_3_block_nesting_of_64_is_read_and_written_and_65_is_not(kind: str) -> None:
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    parsed = parse_definition(definition(nested(64, kind, leaf=step("leaf", params=deep))))
    assert json_bytes(to_document(parsed)) == json_bytes(to_document(parse_definition(to_document(parsed))))
    assert validate(parsed).problems == ()
    assert len(fingerprint(parsed)) == 64
    with pytest.raises(NestingError, match="block nesting exceeds the maximum depth of 64"):
        parse_definition(definition(nested(65, kind)))


@pytest.mark.parametrize("kind", AROUND)
def test_s16_shorthand_may_be_as_deep(kind: str) -> None:
    raw = {"id": "deep", "blocks": [nested(64, kind)]}
    normal = normalize(raw, tenant_id="t", now=datetime(2026, 1, 1, tzinfo=UTC), new_id=UUID(int=1))
    assert validate(parse_definition(normal)).problems == ()


def test_s2_3_one_value_of_200_levels_is_kept_and_of_201_is_not() -> None:
    deep: Any = 1
    for _ in range(200):
        deep = {"x": deep}
    assert validate(parse_definition(definition(step(params=deep)))).problems == ()
    with pytest.raises(DocumentError, match="`params` is nested deeper than 200 levels"):
        parse_definition(definition(step(params=[deep])))


def test_s1_shape_beats_nesting() -> None:
    raw = definition(nested(5000))
    del raw["created_at"]
    with pytest.raises(DocumentError, match="created_at"):
        parse_definition(raw)


def test_depth_bombs_are_document_errors() -> None:
    bomb: Any = []
    for _ in range(100_000):
        bomb = [bomb]
    for raw in (definition(step(params=bomb)), definition(*bomb), bomb, definition(step(), interceptors=bomb)):
        with pytest.raises(DocumentError):
            parse_definition(raw)


def test_walk_goes_in_document_order() -> None:
    blocks = parse_blocks([block("parallel", "p", branches=[[step("a"), step("b")], [step("c")]]), step("d")])
    assert [found.id for found in walk(blocks)] == ["p", "a", "b", "c", "d"]
    assert isinstance(blocks[0], Parallel)


def test_created_at_is_kept_with_its_fraction() -> None:
    raw = definition(step(), created_at="2026-01-01T02:00:00.120+02:00")
    assert to_document(parse_definition(raw))["created_at"] == "2026-01-01T00:00:00.120Z"
