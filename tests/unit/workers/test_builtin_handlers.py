import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.core.outcomes import (
    BlocksAdded,
    Completed,
    DataWritten,
    Failed,
    FailureKind,
    Outcome,
    StateDeleted,
    StateWritten,
    Suspended,
)
from sequences.document import parse_blocks
from sequences.handlers import BUILTIN_HANDLERS, REQUIRED_PARAMS
from sequences.scope import Fields, Scope
from workers.context import StepContext
from workers.handlers.builtin import builtin_registry
from workers.outputs import check_outcome

REGISTRY = builtin_registry()
BUILT = {"noop", "log", "sleep", "fail", "set_state", "get_state", "merge_state", "delete_state"} | {
    "save_checkpoint",
    "load_checkpoint",
    "transform",
    "assert",
    "http_request",
    "self_modify",
    "human_review",
    "send_signal",
    "query_instance",
    "emit_event",
}
WITH_OTHERS = {"http_request", "human_review", "send_signal", "query_instance", "emit_event"}
"""They wait for the network or the store."""


class Lines:
    def __init__(self) -> None:
        self.lines: list[tuple[Any, str]] = []

    def __call__(self, message: Any, *, level: str = "info", **fields: Any) -> None:
        self.lines.append((message, level))


def context(**members: Any) -> StepContext:
    given = {"sequence": "s", "block_id": "b", "handler": "h", "idempotency_key": "k", **members}
    return StepContext(instance_id=uuid4(), **given)


def run(name: str, params: Any, ctx: StepContext | None = None) -> Outcome:
    handler = REGISTRY.find(name)
    assert handler is not None
    call = handler.bind(ctx or context(), params)
    assert not isinstance(call, Failed)
    returned = call()
    return check_outcome(handler.outcome_of(asyncio.run(returned) if handler.is_async else returned))


def test_every_built_in_name_is_registered_and_none_merges():
    assert set(REGISTRY.names()) == BUILTIN_HANDLERS
    handlers = [REGISTRY.find(name) for name in REGISTRY.names()]
    assert not any(handler.merges for handler in handlers if handler is not None)


def test_all_that_wait_for_nobody_are_instant():
    assert {name for name in BUILT if not REGISTRY.find(name).is_instant} == WITH_OTHERS  # type: ignore[union-attr]


@pytest.mark.parametrize("name", sorted(BUILTIN_HANDLERS - BUILT))
def test_names_for_later_fail_for_good(name: str):
    assert run(name, {"any": 1}) == Failed(message=f"handler `{name}` is not built yet", retryable=False)


@pytest.mark.parametrize("name", sorted(BUILT & REQUIRED_PARAMS.keys()))
def test_missing_params_fail_for_good_and_are_named(name: str):
    first = REQUIRED_PARAMS[name][0]
    for params in (None, {}, "text"):
        failure = run(name, params)
        assert isinstance(failure, Failed)
        assert failure.message.startswith(f"missing required param: {first}")
        assert (failure.retryable, failure.kind) == (False, FailureKind.INPUT)


@pytest.mark.parametrize("params", [None, {}, {"a": 1}, [1]])
def test_noop_gives_an_empty_object(params: Any):
    assert run("noop", params) == Completed(output={})


@pytest.mark.parametrize(
    ("params", "line"),
    [
        (None, ("no message", "info")),
        ({}, ("no message", "info")),
        ({"message": None}, (None, "info")),
        ({"message": {"a": [1]}, "level": "debug"}, ({"a": [1]}, "debug")),
        ({"message": 7, "level": "warn"}, (7, "warn")),
        ({"message": "x", "level": "shout"}, ("x", "info")),
        ({"message": "x", "level": ["info"]}, ("x", "info")),
    ],
)
def test_log_writes_the_message_and_gives_it_back(params: Any, line: tuple[Any, str]):
    lines = Lines()
    assert run("log", params, context(log=lines)) == Completed(output={"message": line[0]})
    assert lines.lines == [line]


@pytest.mark.parametrize(
    ("params", "slept_ms"),
    [
        (None, 100),
        ({}, 100),
        ({"duration_ms": None}, 100),
        ({"duration_ms": 0}, 0),
        ({"duration_ms": 1500}, 1500),
        ({"duration_ms": 250.0}, 250),
        ({"duration_ms": "300"}, 300),
    ],
)
def test_sleep_suspends(params: Any, slept_ms: int):
    outcome = run("sleep", params)
    assert outcome == Suspended(duration=timedelta(milliseconds=slept_ms), output={"slept_ms": slept_ms})


@pytest.mark.parametrize("duration_ms", [-1, True, "soon", "nan", float("inf"), 10**400, [], {}])
def test_sleep_of_no_duration_fails_for_good(duration_ms: Any):
    failure = run("sleep", {"duration_ms": duration_ms})
    assert isinstance(failure, Failed)
    assert (failure.retryable, failure.kind) == (False, FailureKind.INPUT)


@pytest.mark.parametrize(
    ("params", "failure"),
    [
        (None, Failed(message="forced failure", retryable=False)),
        ({"message": "no", "retryable": True}, Failed(message="no", retryable=True)),
        ({"message": {"a": 1}, "retryable": "yes"}, Failed(message='{"a":1}', retryable=False)),
    ],
)
def test_fail_fails_as_told(params: Any, failure: Failed):
    assert run("fail", params) == failure


def test_state_handlers_write_through_effects():
    assert run("set_state", {"key": "k", "value": None}) == Completed(
        output={"key": "k", "value": None}, effects=(StateWritten(key="k", value=None),)
    )
    assert run("delete_state", {"key": "k"}) == Completed(
        output={"key": "k", "deleted": True}, effects=(StateDeleted(key="k"),)
    )
    assert run("merge_state", {"values": {"b": 1, "a": [2]}}) == Completed(
        output={"merged_keys": ["a", "b"]}, effects=(StateWritten(key="b", value=1), StateWritten(key="a", value=[2]))
    )


def test_get_state_reads_and_absent_is_null():
    ctx = context(state={"k": {"n": 1}})
    assert run("get_state", {"key": "k"}, ctx) == Completed(output={"key": "k", "value": {"n": 1}})
    assert run("get_state", {"key": "other"}, ctx) == Completed(output={"key": "other", "value": None})


@pytest.mark.parametrize(
    ("name", "params", "message"),
    [
        ("set_state", {"key": "k"}, "missing required param: value"),
        ("set_state", {"key": ""}, "missing required param: key (must be a non-empty string)"),
        ("get_state", {"key": 5}, "missing required param: key (must be a non-empty string)"),
        ("merge_state", {"values": [1]}, "missing required param: values (must be an object)"),
        ("merge_state", {"values": {"": 1}}, "state keys must not be empty"),
        ("get_state", {"key": "k", "scope": "session"}, "the instance has no session"),
        ("merge_state", {"values": {}, "scope": ["x"]}, 'scope must be "instance" or "session"'),
    ],
)
def test_state_handlers_refuse_what_cannot_work(name: str, params: Any, message: str):
    assert run(name, params) == Failed(message=message, retryable=False, kind=FailureKind.INPUT)


@pytest.mark.parametrize(
    "params",
    [
        None,
        [1, "a"],
        "text",
        {"a": 1},
        {"target": "data.x"},
        {"target": "elsewhere.x", "value": 1},
        {"target": 5, "value": 1},
        {"target": "data", "value": 1},
    ],
)
def test_transform_gives_its_params_back(params: Any):
    assert run("transform", params) == Completed(output=params)


def test_transform_writes_to_its_target():
    scope = Scope(data={"n": 2}, outputs={"a": {"b": [1]}})
    for target, effect in {
        "data.x.y": DataWritten(path=("x", "y"), value=3.0),
        "context.data.x": DataWritten(path=("x",), value=3.0),
        "state.x": StateWritten(key="x", value=3.0),
    }.items():
        outcome = run("transform", {"target": target, "expression": "data.n + 1"}, context(scope=scope))
        assert outcome == Completed(output={"target": target, "value": 3.0}, effects=(effect,))
    outcome = run("transform", {"target": "data.x", "expression": "outputs"}, context(scope=scope))
    assert isinstance(outcome, Completed)
    assert outcome.output["value"] == {"a": {"b": [1]}}
    filtered = Scope(data=Fields({"n": 2, "hidden": 3}, ("n",)))
    outcome = run("transform", {"target": "data.x", "expression": "data"}, context(scope=filtered))
    assert isinstance(outcome, Completed)
    assert outcome.output["value"] == {"n": 2}
    outcome = run("transform", {"target": "data.x", "value": None, "expression": "1"})
    assert isinstance(outcome, Completed)
    assert outcome.output["value"] is None


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("data.", "target 'data.' has an empty key"),
        ("data.a..b", "target 'data.a..b' has an empty key"),
        ("state.a.b", "target 'state.a.b': a state target is one key, without dots"),
    ],
)
def test_transform_refuses_targets_that_cannot_be_written(target: str, message: str):
    failure = run("transform", {"target": target, "value": 1})
    assert failure == Failed(message=message, retryable=False, kind=FailureKind.INPUT)


def test_assert_passes_and_shows_its_condition():
    ctx = context(scope=Scope(data={"n": 2}, outputs={"a": {"ok": True}}, state={"s": [1]}))
    for condition in ("n > 1 && outputs.a.ok && len(state.s) == 1", "{{ data.n == 2 }}", True):
        assert run("assert", {"condition": condition}, ctx) == Completed(
            output={"condition": condition, "passed": True}
        )


@pytest.mark.parametrize("condition", ["n > 2", "", "(((", "data.missing", False])
def test_assert_fails_for_good(condition: Any):
    failure = run("assert", {"condition": condition, "message": "n is small"}, context(scope=Scope(data={"n": 2})))
    shown = condition if isinstance(condition, str) else "false"
    assert failure == Failed(
        message=f"assert: n is small (condition: {shown})",
        retryable=False,
        details={"condition": condition, "passed": False},
    )


def test_assert_has_a_message_of_its_own():
    failure = run("assert", {"condition": "false"})
    assert isinstance(failure, Failed)
    assert failure.message == "assert: assertion failed (condition: false)"


def test_self_modify_adds_its_blocks_and_gives_them_back():
    blocks = [{"type": "step", "id": "x", "handler": "log", "params": {"message": "{{ data.n }}"}}]
    for written in (blocks, '[{"type":"step","id":"x","handler":"log","params":{"message":"{{ data.n }}"}}]'):
        outcome = run("self_modify", {"blocks": written, "position": 1.0})
        assert isinstance(outcome, Completed)
        assert outcome.output == {"_self_modify": True, "blocks": blocks, "position": 1, "injected_count": 1}
        assert outcome.effects == (BlocksAdded(blocks=parse_blocks(blocks), position=1),)


@pytest.mark.parametrize("blocks", [None, "text", "{}", {"type": "step"}, 5])
def test_self_modify_wants_an_array(blocks: Any):
    failure = run("self_modify", {"blocks": blocks})
    assert isinstance(failure, Failed)
    assert failure.message == "missing required param: blocks (must be a JSON array)"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"blocks": [{"type": "leap", "id": "x"}]}, "[0]: unknown block type `leap`"),
        ({"blocks": [{"type": "step", "id": "x", "handler": " "}]}, "block `x`: handler name must not be empty"),
        ({"blocks": [{"type": "step", "id": "x", "handler": "h"}] * 2}, "duplicate block id: x"),
        ({"blocks": [], "position": -1}, "position must be a whole number from 0"),
        ({"blocks": [], "position": True}, "position must be a whole number from 0"),
    ],
)
def test_self_modify_refuses_invalid_blocks_for_good(params: Any, message: str):
    failure = run("self_modify", params)
    assert isinstance(failure, Failed)
    assert (failure.message, failure.retryable) == (message, False)
