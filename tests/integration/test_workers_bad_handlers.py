"""Handlers that do what handlers should not: each ends visibly, the worker lives or is replaced, others go on."""

from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest

from orchestrator import embedded
from orchestrator.store import instances
from tests.support.handlers import BAD_EXCEPTIONS, BAD_OUTPUTS
from tests.support.stack import Stack, WorkerSpec
from tests.support.waiting import wait_until

CHILDREN = 2
GOOD = {"type": "step", "id": "good", "handler": "effect"}


@pytest.fixture(scope="module")
def stack(
    servers: embedded.Servers, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """One worker with two children, and a service."""
    directory = tmp_path_factory.mktemp("bad")
    workers = {"worker": WorkerSpec(concurrency=CHILDREN)}
    with Stack.running(directory, servers=servers, template=migrated_template, workers=workers) as running:
        yield running


@pytest.fixture(autouse=True)
def others_go_on(stack: Stack) -> Iterator[None]:
    """Instances of somebody else are started beside each test, and must all complete."""
    ids = stack.start_instances(stack.define([GOOD, {**GOOD, "id": "good_2"}]), 10)
    yield
    assert set(stack.wait_for_end(ids).values()) == {"completed"}


def start(stack: Stack, handler: str, **fields: object) -> UUID:
    """Start one instance of one step."""
    [started] = stack.start_instances(stack.define([{"type": "step", "id": "bad", "handler": handler, **fields}]))
    return started


def errors_of(stack: Stack, instance_id: UUID) -> list[tuple[str, str, str]]:
    """Give outcome, kind and message of each attempt."""
    with stack.store.transaction() as tx:
        rows = instances.attempts(tx, instance_id)
    return [(row[5], (row[9] or {}).get("kind"), (row[9] or {}).get("message")) for row in rows]


def test_what_cannot_be_stored_fails_the_step_with_its_reason(stack: Stack) -> None:
    pid = stack.pid("worker")
    kinds = {
        start(stack, handler, params={"kind": kind}): (handler, kind)
        for handler in ("bad_output", "bad_output_async")
        for kind in BAD_OUTPUTS
    }
    states = stack.wait_for_end(list(kinds))
    for instance_id, about in kinds.items():
        [(outcome, kind, message)] = errors_of(stack, instance_id)
        expected = "handler" if about[1] == "a failure with junk" else "output"
        assert (states[instance_id], outcome, kind) == ("failed", "failed", expected), (about, message)
        assert 0 < len(message) < 5000
    assert stack.pid("worker") == pid


def test_nothing_is_null(stack: Stack) -> None:
    instance_id = start(stack, "returns_nothing")
    assert stack.wait_for_end([instance_id]) == {instance_id: "completed"}
    assert stack.outputs_of(instance_id) == {"bad": None}


def test_whatever_is_raised_fails_the_step_and_nothing_else(stack: Stack) -> None:
    children = stack.children("worker")
    kinds = {
        start(stack, handler, params={"kind": kind}): (handler, kind)
        for handler in ("raises", "raises_async")
        for kind in BAD_EXCEPTIONS
    }
    states = stack.wait_for_end(list(kinds))
    for instance_id, about in kinds.items():
        [(outcome, _, message)] = errors_of(stack, instance_id)
        assert (states[instance_id], outcome) == ("failed", "failed"), (about, message)
        assert 0 < len(message) < 5000
    assert stack.children("worker") == children, "no child had to be replaced"


@pytest.mark.parametrize("handler", ["exits", "crashes"])
def test_a_step_that_kills_its_worker_three_times_is_parked(stack: Stack, handler: str) -> None:
    instance_id = start(stack, handler)
    stack.wait_for_states([instance_id], frozenset({"paused"}))
    [(reason,)] = stack.query("SELECT parked_reason FROM instances WHERE id = %s", (instance_id,))
    assert reason.startswith("step 'bad' lost its worker 3 times")
    assert [outcome for outcome, _, _ in errors_of(stack, instance_id)] == ["lost"] * 3
    assert len(stack.effects.pids(handler)) == len(set(stack.effects.pids(handler))) == 3


def test_a_step_that_lost_its_worker_once_is_run_again(stack: Stack, tmp_path: Path) -> None:
    instance_id = start(stack, "exits_once", params={"path": str(tmp_path / "exited")})
    assert stack.wait_for_end([instance_id]) == {instance_id: "completed"}
    assert [outcome for outcome, _, _ in errors_of(stack, instance_id)] == ["lost", "completed"]


@pytest.mark.parametrize("handler", ["hangs", "swallows", "hangs_in_c", "hangs_async", "waits_for_ever"])
def test_a_step_that_hangs_fails_in_time(stack: Stack, handler: str) -> None:
    instance_id = start(stack, handler, timeout=500)
    assert stack.wait_for_end([instance_id]) == {instance_id: "failed"}
    [(outcome, kind, _)] = errors_of(stack, instance_id)
    assert outcome == "timed_out" or (outcome, kind) == ("failed", "timeout")  # the store's timer, or the worker's


@pytest.mark.parametrize("handler", ["swallows", "hangs_in_c", "hangs_async"])
def test_a_child_that_does_not_come_back_is_replaced(stack: Stack, handler: str) -> None:
    """Its claim has been ended by the store's timer: it holds nothing there, and a slot of its worker all the same."""
    known = len(stack.effects.pids(handler))

    def has_begun() -> bool:
        stack.wait_for_end([start(stack, handler, timeout=500)])
        return len(stack.effects.pids(handler)) > known

    wait_until(
        has_begun, "the handler to begin before its time was over"
    )  # half a second may pass before, if all is busy
    [stuck] = stack.effects.pids(handler)[known:]
    wait_until(lambda: stuck not in stack.children("worker"), "the child to be killed")
    wait_until(lambda: len(stack.children("worker")) == CHILDREN, "another one to take its place")


def test_a_step_that_hangs_is_tried_again_as_its_policy_says(stack: Stack) -> None:
    retry = {"max_attempts": 2, "initial_backoff": 10, "max_backoff": 10}
    instance_id = start(stack, "hangs", timeout=300, retry=retry)
    assert stack.wait_for_end([instance_id]) == {instance_id: "failed"}
    assert len(errors_of(stack, instance_id)) == 2
