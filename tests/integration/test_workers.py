"""Real Celery workers on real servers: how a step reaches the right one, and what can be seen of it."""

import os
import threading
import time
from collections.abc import Iterator
from itertools import pairwise
from statistics import median
from typing import Any
from uuid import UUID

import pytest

from orchestrator import embedded
from orchestrator.core.outcomes import Completed
from orchestrator.exchange import Report
from orchestrator.store import instances
from queues.broker import client_app
from tests.support.stack import TENANT, Stack, WorkerSpec
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def stack(
    servers: embedded.Servers, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """Two workers, on two queues and one in common."""
    directory = tmp_path_factory.mktemp("workers")
    workers = {"plain": WorkerSpec(queues=("default", "both")), "fast": WorkerSpec(queues=("gpu", "both"))}
    with Stack.running(directory, servers=servers, template=migrated_template, workers=workers) as running:
        yield running


def step(block_id: str, handler: str = "effect", **fields: object) -> dict[str, object]:
    return {"type": "step", "id": block_id, "handler": handler, **fields}


def attempts(stack: Stack, instance_id: UUID) -> list[tuple[Any, ...]]:
    with stack.store.transaction() as tx:
        return instances.attempts(tx, instance_id)


def pids_of(stack: Stack, instance_id: UUID) -> dict[str, int]:
    """Say in which process each block of an instance was executed."""
    return {
        execution.key.split(":")[1]: execution.pid
        for execution in stack.effects.executions()
        if execution.key.startswith(str(instance_id))
    }


def test_a_step_needs_no_dispatcher_when_nothing_gates_it(stack: Stack) -> None:
    """The direct path: who makes a step ready rings for it."""
    stack.stop("service")
    try:
        [instance_id] = stack.start_instances(stack.define([step("a"), step("b", queue_name="gpu"), step("c")]))
        assert stack.wait_for_end([instance_id]) == {instance_id: "completed"}
    finally:
        stack.start("service")


def test_a_step_runs_in_a_worker_of_its_queue(stack: Stack) -> None:
    [instance_id] = stack.start_instances(stack.define([step("a"), step("b", queue_name="gpu"), step("c")]))
    stack.wait_for_end([instance_id])
    plain, fast = stack.children("plain"), stack.children("fast")
    where = pids_of(stack, instance_id)
    assert [where["a"] in plain, where["b"] in fast, where["c"] in plain] == [True, True, True]
    assert [row[4] for row in attempts(stack, instance_id)] == ["default", "gpu", "default"]


def test_a_worker_carries_on_with_the_instance_it_has(stack: Stack) -> None:
    """Two workers serve the queue; what one has begun it goes on with, claiming in the commit of the last output."""
    blocks = [step(f"s{number}", queue_name="both") for number in range(30)]
    ids = stack.start_instances(stack.define(blocks), 4)
    stack.wait_for_end(ids)
    for instance_id in ids:
        assert len(set(pids_of(stack, instance_id).values())) == 1
        rows = attempts(stack, instance_id)
        gaps = [(after[7] - before[8]).total_seconds() for before, after in pairwise(rows)]
        assert median(gaps) < 0.5, "the steps waited for messages"
        assert max(gaps) < 10, "a step waited until the dispatcher took its message for lost"


def test_a_celery_task_is_a_handler(stack: Stack) -> None:
    blocks = [step("sum", "celery:tests.add", params={"left": 2, "right": 3}), step("wrong", "celery:tests.add")]
    [instance_id] = stack.start_instances(stack.define(blocks))
    assert stack.wait_for_end([instance_id]) == {instance_id: "failed"}
    assert stack.outputs_of(instance_id)["sum"] == 5
    assert "params do not fit the task 'tests.add'" in attempts(stack, instance_id)[-1][9]["message"]


def test_a_handler_nobody_knows_waits_for_a_worker_that_polls(stack: Stack) -> None:
    [instance_id] = stack.start_instances(stack.define([step("a"), step("b", "nobody_knows"), step("c")]))
    statement = "SELECT block_id, state FROM steps WHERE instance_id = %s"
    wait_until(lambda: stack.query(statement, (instance_id,)) == [("b", "ready")], "b to be ready")
    assert stack.states([instance_id]) == {instance_id: "waiting"}
    [task] = stack.engine.claim_tasks(["poller"], handler="nobody_knows", queue=None, tenant_id=TENANT)
    stack.engine.finish([Report(claim=task.claim, outcome=Completed(output={"done": True}))])
    assert stack.wait_for_end([instance_id]) == {instance_id: "completed"}


def test_a_cancelled_handler_can_notice(stack: Stack) -> None:
    from sequences.signals import Control

    [instance_id] = stack.start_instances(stack.define([step("a", "cooperative")]))
    wait_until(lambda: pids_of(stack, instance_id), "the handler to begin")
    stack.engine.interventions.signal(instance_id, Control.CANCEL, None)
    assert stack.wait_for_end([instance_id]) == {instance_id: "cancelled"}
    wait_until(
        lambda: any(e.key.startswith(str(instance_id)) and e.result == "noticed" for e in stack.effects.executions()),
        "the handler to notice",
    )


class Watcher:
    """Receives the events that Flower sees."""

    def __init__(self, broker_url: str, installation: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._app = client_app(broker_url, installation)
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self.is_over = False
        self._thread.start()

    def _receive(self) -> None:
        with self._app.connection_for_read() as connection:
            receiver = self._app.events.Receiver(connection, handlers={"*": self.events.append})
            while not self.is_over:
                try:
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)
                except OSError:
                    continue

    def close(self) -> None:
        self.is_over = True
        self._thread.join(30)


def test_flower_sees_every_step_as_a_task_of_its_own(stack: Stack) -> None:
    watcher = Watcher(stack.servers.broker_url, stack.store.installation())
    sequence_id = stack.define([step("a"), step("b", queue_name="gpu"), step("c", "fails_first", params={"times": 9})])

    def seen(kind: str, name: str) -> list[dict[str, Any]]:
        return [event for event in list(watcher.events) if event["type"] == kind and event.get("name") == name]

    # What is sent before the receiver has bound its queue is lost: ask until it is there.
    wait_until(lambda: any(event["type"] == "worker-heartbeat" for event in list(watcher.events)), "a heartbeat")
    [instance_id] = stack.start_instances(sequence_id)
    stack.wait_for_end([instance_id])

    def ends() -> int:
        events = list(watcher.events)
        ours = {event["uuid"] for event in events if event.get("root_id") == str(instance_id)}
        return sum(event["type"] in {"task-succeeded", "task-failed"} and event["uuid"] in ours for event in events)

    # Each worker sends its own events, in bundles: whose come first means nothing.
    wait_until(lambda: ends() == 3, "the end of three steps")
    watcher.close()
    sent = [event for event in seen("task-sent", "step.effect") if event["root_id"] == str(instance_id)]
    sent.sort(key=lambda event: event["timestamp"])
    assert [(event["queue"], event["routing_key"]) for event in sent] == [("default", "default"), ("gpu", "gpu")]
    for event in sent:
        kinds = [other["type"] for other in watcher.events if other.get("uuid") == event["uuid"]]
        assert kinds == ["task-sent", "task-received", "task-started", "task-succeeded"]
    [failing] = seen("task-sent", "step.fails_first")
    assert [e["exception"] for e in watcher.events if e["type"] == "task-failed" and e["uuid"] == failing["uuid"]]


def test_500_async_handlers_wait_at_once_in_one_process(
    servers: embedded.Servers, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """None ends before all have begun, with at most 10 connections to the database; how long it takes is printed."""
    directory = tmp_path_factory.mktemp("async")
    gate = directory / "gate"
    workers = {"worker": WorkerSpec()}
    with Stack.running(directory, servers=servers, template=migrated_template, workers=workers) as stack:
        sequence_id = stack.define([step("wait", "waits", params={"path": str(gate)})])
        began = time.monotonic()
        ids = stack.start_instances(sequence_id, 500)
        most = 0

        def have_begun() -> bool:
            nonlocal most
            most = max(most, connections(stack))
            return stack.effects.count("waits") == 500

        wait_until(have_begun, lambda: f"500 handlers to begin\n{stack.explain(ids)}")
        gate.touch()
        stack.wait_for_end(ids)
        most = max(most, connections(stack))
        pids = set(stack.effects.pids("waits"))
        print(f"500 awaiting handlers: {time.monotonic() - began:.2f} s, {most} connections")
        assert len(pids) == 1
        assert os.getpid() not in pids
        assert most <= 10


def connections(stack: Stack) -> int:
    """Count the connections of the installation, without the one that asks."""
    statement = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() "
        "AND application_name = 'orchestrator' AND pid <> pg_backend_pid()"
    )
    return int(stack.query(statement)[0][0])


def test_interceptors_and_hooks_are_run_by_workers(stack: Stack) -> None:
    redact = {"handler": "transform", "params": {"output": {"hidden": True}}}
    members: dict[str, Any] = {
        "interceptors": {
            "before_step": {"handler": "effect", "params": {"seen": "{{ step.id }}"}},
            "after_step": redact,
            "on_failure": {"handler": "log", "params": {"message": "{{ error.message }}"}},
        },
        "on_failure": [
            step("tidy", "effect", params={"seen": "{{ error.message }}"}),
            step("gone", "http_request", params={"url": "http://127.0.0.1:1/"}),
            step("last", "noop"),
        ],
    }
    blocks = [step("a"), step("boom", "fail", params={"message": "no"})]
    [instance_id] = stack.start_instances(stack.define(blocks, **members))
    assert stack.wait_for_end([instance_id]) == {instance_id: "failed"}

    def rows() -> dict[str, Any]:
        return stack.outputs_of(instance_id)

    wait_until(lambda: "last" in rows() and "_result" in rows()["_interceptor:before:boom"], lambda: str(rows()))
    found = rows()
    assert found["a"] == {"hidden": True}
    assert found["_interceptor:before:a"]["_result"]
    assert found["_interceptor:on_failure"] == {"message": "no", "_result": {"message": "no"}}
    assert list(found)[-2:] == ["tidy", "last"]
    assert stack.states([instance_id]) == {instance_id: "failed"}
    open_steps = lambda: stack.query("SELECT 1 FROM steps WHERE instance_id = %s", (instance_id,))  # noqa: E731
    wait_until(lambda: not open_steps(), "calls are left")
