"""Words for the tests of the API: post a sequence, start an instance, be a worker."""

import itertools
import time
from collections.abc import Callable
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from orchestrator.core.outcomes import Completed, Failed, Outcome
from orchestrator.engine import Engine
from orchestrator.exchange import Report, Wish
from orchestrator.store import timers
from orchestrator.store.claiming import Worker
from tests.support.waiting import wait_until

_names = itertools.count(1)
TENANT = "acme"
REST_S = 0.3
"""An installation takes up what is ready in a tenth of a second."""
CALL: dict[str, Any] = {"timeout": 60, "verify": False}
"""Options of every HTTP call: patient, and without the certificates that take 30 ms to read and are not needed."""


def step(block_id: str, handler: str = "outside", **fields: Any) -> dict[str, Any]:
    """A step; by default its handler is external."""
    return {"type": "step", "id": block_id, "handler": handler, **fields}


def definition(*blocks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A canonical definition with an id and a name of its own."""
    return {
        "id": str(uuid4()),
        "tenant_id": TENANT,
        "namespace": "default",
        "name": f"sequence-{next(_names)}",
        "version": 1,
        "created_at": "2026-01-01T00:00:00Z",
        "blocks": list(blocks),
        **fields,
    }


class Api:
    """A client of one tenant.

    Args:
        http: Its connection.
        engine: Of the server, if it is this test's own; without it, what looks behind the API skips the test.
    """

    def __init__(self, http: httpx.Client, engine: Engine | None) -> None:
        self.http = http
        self._engine = engine
        self.root = str(http.base_url).removesuffix("/api/v1/")

    @property
    def engine(self) -> Engine:
        """The engine of the server."""
        if self._engine is None:
            pytest.skip("needs a server of its own: it moves the engine by hand")
        return self._engine

    def sequence(self, *blocks: dict[str, Any], **fields: Any) -> str:
        """Post a definition; returns its id."""
        answer = self.http.post("/sequences", json=definition(*blocks, **fields))
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def body(self, sequence_id: str, **fields: Any) -> dict[str, Any]:
        """The body that starts an instance."""
        return {"sequence_id": sequence_id, "tenant_id": TENANT, "namespace": "default", **fields}

    def start(self, *blocks: dict[str, Any], data: Any = None, **fields: Any) -> str:
        """Start an instance of a new sequence; returns its id."""
        return self.start_of(
            self.sequence(*blocks), **({"context": {"data": data}} if data is not None else {}), **fields
        )

    def start_of(self, sequence_id: str, **fields: Any) -> str:
        """Start an instance of a sequence; returns its id."""
        answer = self.http.post("/instances", json=self.body(sequence_id, **fields))
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def instance(self, instance_id: str) -> dict[str, Any]:
        """Read an instance."""
        answer = self.http.get(f"/instances/{instance_id}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def state(self, instance_id: str) -> str:
        """Read an instance's state."""
        return self.instance(instance_id)["state"]

    def outputs(self, instance_id: str) -> list[dict[str, Any]]:
        """Read the outputs."""
        return self.http.get(f"/instances/{instance_id}/outputs").json()

    def tree(self, instance_id: str) -> dict[str, dict[str, Any]]:
        """Read the tree, by block id."""
        return {node["block_id"]: node for node in self.http.get(f"/instances/{instance_id}/tree").json()}

    def states(self, instance_id: str) -> dict[str, str]:
        """Read the states of all blocks."""
        return {block_id: node["state"] for block_id, node in self.tree(instance_id).items()}

    def poll(self, handler: str = "outside", worker: str = "w1", **fields: Any) -> list[dict[str, Any]]:
        """Ask for tasks."""
        path = "/workers/tasks/poll/queue" if "queue_name" in fields else "/workers/tasks/poll"
        answer = self.http.post(path, json={"handler_name": handler, "worker_id": worker, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    def report(self, task: dict[str, Any], verb: str, **fields: Any) -> httpx.Response:
        """Report about a task in the name of its claimer."""
        lease = {"worker_id": task["worker_id"], "claim_epoch": task["claim_epoch"]}
        return self.http.post(f"/workers/tasks/{task['id']}/{verb}", json={**lease, **fields})

    def complete(self, output: Any = None, handler: str = "outside") -> dict[str, Any]:
        """Take the one task of a handler and complete it; returns the task."""
        (task,) = self.poll(handler)
        answer = self.report(task, "complete", output=output)
        assert answer.status_code == 200, answer.text
        return task

    def fail(self, message: str = "broken", handler: str = "outside", **fields: Any) -> dict[str, Any]:
        """Take the one task of a handler and fail it; returns the task."""
        (task,) = self.poll(handler)
        answer = self.report(task, "fail", message=message, **fields)
        assert answer.status_code == 200, answer.text
        return task

    def signal(self, instance_id: str, signal_type: Any, payload: Any = None) -> httpx.Response:
        """Send a signal."""
        return self.http.post(
            f"/instances/{instance_id}/signals", json={"signal_type": signal_type, "payload": payload}
        )

    def run_builtins(self, **handlers: Callable[[Any], Outcome]) -> None:
        """Run in-process steps until none is ready: `noop` and `fail`, and what else the test brings.

        An installation of somebody else's runs them by itself: then this waits until it has.
        """
        if self._engine is None and not handlers:
            self._see_rest()
            return
        known = {"noop": lambda _params: Completed(output={}), "fail": _fail, **handlers}
        worker = Worker(id=uuid4(), name="in-process")
        while claims := self.engine.claim(worker, Wish(queue="default", handlers=list(known))):
            work = self.engine.inputs(claims)
            reports = [
                Report(claim=each.claim, outcome=each.failure or known[each.claim.handler](each.params))
                for each in work
            ]
            self.engine.finish(reports)

    def _see_rest(self) -> None:
        """Wait until nothing runs that could go on by itself, twice in a row."""
        seen: list[Any] = []

        def has_come() -> bool:
            time.sleep(REST_S)
            now = [(each["id"], each["state"], each["updated_at"]) for each in self._instances()]
            is_same = bool(seen) and seen[-1] == now and not any(state == "running" for _, state, _ in now)
            seen.append(now)
            return is_same

        wait_until(has_come, lambda: f"rest, last seen {seen[-1:]}")

    def _instances(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.http.get("/instances", params={"limit": 1000}).json()["items"]
        return found

    def deliver(self, slug: str, content: bytes, headers: dict[str, str]) -> httpx.Response:
        """Call a public webhook as a stranger: without key and tenant, at the root."""
        request = self.http.build_request("POST", f"{self.root}/webhooks/{slug}", content=content, headers=headers)
        for name in {"x-tenant-id", "x-api-key"} & set(request.headers):
            del request.headers[name]
        return self.http.send(request)

    def pass_time(self) -> None:
        """Fire all timers, due or not."""
        with self.engine.store.transaction() as tx:
            tx.execute("UPDATE timers SET due_at = clock_timestamp() - interval '1 second'")
            tx.execute("UPDATE steps SET wake_at = clock_timestamp() - interval '1 second' WHERE wake_at IS NOT NULL")
            due = timers.due(tx, 1000)
        self.engine.fire(due)

    def fire_due(self) -> None:
        """Fire the timers that are due."""
        with self.engine.store.transaction() as tx:
            due = timers.due(tx, 1000)
        self.engine.fire(due)

    def step_row(self, instance_id: str) -> Any:
        """Read the open step of an instance from the store."""
        with self.engine.store.transaction() as tx:
            rows = tx.query("SELECT id, state, block_id FROM steps WHERE instance_id = %s", (UUID(instance_id),))
        return rows[0] if rows else None


def _fail(params: Any) -> Outcome:
    params = params or {}
    return Failed(message=params.get("message", "failed"), retryable=bool(params.get("retryable", False)))
