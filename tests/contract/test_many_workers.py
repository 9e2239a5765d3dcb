"""Many HTTP workers on one queue, half of which die: each task is handed out once a lease, and none is lost.

Workers are plain connections with threads of their own, as in any language. Those that die keep what they hold, or
leave before they have read the answer that would have given them a task.
"""

import http.client
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from orchestrator.embedded import Servers
from orchestrator.store import steps
from tests.contract.client import CALL, TENANT, Api, definition, step
from tests.support.stack import Stack
from tests.support.waiting import wait_until

WORKERS = 50
QUEUE = "many"
HANDLER = "outside"
LEASE_CHANGED = {"error": "conflict: worker task lease changed"}


class Line:
    """A kept connection to the API."""

    def __init__(self, address: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=120)

    def send(self, path: str, body: Any) -> None:
        """Send a request and wait for nothing."""
        headers = {"Content-Type": "application/json", "X-Tenant-Id": TENANT}
        self._connection.request("POST", f"/api/v1{path}", json.dumps(body), headers)

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Send a request; returns status and body, None if it is empty."""
        self.send(path, body)
        answer = self._connection.getresponse()
        content = answer.read()
        return answer.status, json.loads(content) if content else None

    def close(self) -> None:
        """Leave, whatever is on its way."""
        self._connection.close()


@dataclass
class Fleet:
    """The workers, and what they have seen.

    Attributes:
        handouts: Task and epoch of each handout that a worker has read.
        waits: Seconds from a poll to the task it gave.
        finished: Tasks whose completion was accepted, with the worker.
        held: Tasks that died with their workers, as these knew them.
        dead: Names of the workers that have died.
    """

    address: str
    handouts: list[tuple[str, int]] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    finished: list[tuple[str, str]] = field(default_factory=list)
    held: list[dict[str, Any]] = field(default_factory=list)
    dead: set[str] = field(default_factory=set)
    refused: list[tuple[int, Any]] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _end: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self, lives: Callable[[int], int | None]) -> None:
        """Begin to work; `lives` gives the tasks after which a worker dies, None for never."""
        for number in range(WORKERS):
            thread = threading.Thread(target=self._work, args=(f"w{number}", number, lives(number)), daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Let all workers end."""
        self._end.set()
        for thread in self._threads:
            thread.join(120)

    def _work(self, name: str, number: int, life: int | None) -> None:
        poll = {"handler_name": HANDLER, "queue_name": QUEUE, "worker_id": name}
        done = 0
        with closing(Line(self.address)) as line:
            while not self._end.is_set():
                if done == life and number % 4 == 0:
                    line.send("/workers/tasks/poll/queue", poll)
                    self.dead.add(name)
                    return
                began = time.perf_counter()
                status, tasks = line.post("/workers/tasks/poll/queue", poll)
                took = time.perf_counter() - began
                assert status == 200, tasks
                if not tasks:
                    self._end.wait(0.02)
                    continue
                (task,) = tasks
                self._note(task, took)
                if done == life:
                    self.held.append(task)
                    self.dead.add(name)
                    return
                self._complete(line, name, task)
                done += 1

    def _note(self, task: dict[str, Any], took: float) -> None:
        with self._lock:
            self.handouts.append((task["id"], task["claim_epoch"]))
            self.waits.append(took)

    def _complete(self, line: Line, name: str, task: dict[str, Any]) -> None:
        lease = {"worker_id": name, "claim_epoch": task["claim_epoch"]}
        status, answer = line.post(f"/workers/tasks/{task['id']}/complete", {**lease, "output": {"by": name}})
        with self._lock:
            if status == 200:
                self.finished.append((task["id"], name))
            else:
                self.refused.append((status, answer))


def lives_of_half(number: int) -> int | None:
    """Let every other worker die, after up to five tasks."""
    return None if number % 2 else number % 6


def begin(client: httpx.Client, count: int) -> str:
    """Start instances of one task each; returns the sequence."""
    sequence = str(client.post("/sequences", json=definition(step("a", HANDLER, queue_name=QUEUE))).json()["id"])
    body = {"sequence_id": sequence, "tenant_id": TENANT, "namespace": "default"}
    answer = client.post("/instances/batch", json={"instances": [body] * count})
    assert answer.json() == {"count": count}
    return sequence


def stats(client: httpx.Client) -> Any:
    """Read what the dashboard counts."""
    return client.get("/workers/tasks/stats").json()


def ended_by(client: httpx.Client, sequence: str) -> Iterator[str]:
    """Name, for each completed instance, the worker whose output it has."""
    offset, has_more = 0, True
    while has_more:
        query = {"sequence_id": sequence, "state": "completed", "offset": str(offset), "limit": "1000"}
        page = client.get("/instances", params=query).json()
        yield from (each["context"]["data"]["by"] for each in page["items"])
        offset, has_more = offset + len(page["items"]), page["has_more"]


def check(fleet: Fleet, client: httpx.Client, sequence: str, count: int) -> None:
    """Check that nothing was handed out twice under one lease, lost, or done twice."""
    assert len(set(fleet.handouts)) == len(fleet.handouts)
    assert len({task for task, _ in fleet.finished}) == len(fleet.finished) == count
    assert Counter(ended_by(client, sequence)) == Counter(worker for _, worker in fleet.finished)
    assert fleet.refused == []
    assert stats(client)["by_state"].get("pending", 0) == 0
    for task in fleet.held:
        lease = {"worker_id": task["worker_id"], "claim_epoch": task["claim_epoch"]}
        for verb, extra in (("complete", {"output": {"by": "late"}}), ("fail", {"message": "late"})):
            answer = client.post(f"/workers/tasks/{task['id']}/{verb}", json={**lease, **extra})
            assert (answer.status_code, answer.json()) == (409, LEASE_CHANGED)
        answer = client.post(f"/workers/tasks/{task['id']}/heartbeat", json=lease)
        assert answer.status_code == 409


@pytest.mark.needs_own_server("it makes leases old")
def test_api_13_2_many_workers_of_which_half_die_lose_nothing(api: Api, address: str):
    count = 300
    sequence = begin(api.http, count)
    fleet = Fleet(address)
    fleet.start(lives_of_half)

    def only_the_dead_hold_tasks() -> bool:
        now = stats(api.http)
        return (
            len(fleet.dead) == WORKERS // 2
            and "pending" not in now["by_state"]
            and (set(now["active_workers"]) <= fleet.dead)
        )

    wait_until(only_the_dead_hold_tasks, lambda: repr(stats(api.http)))
    first = {task for task, _ in fleet.handouts}
    lost = {each["id"] for each in api.http.get("/workers/tasks", params={"state": "claimed", "limit": 1000}).json()}
    assert {epoch for _, epoch in fleet.handouts} == {1}
    assert {task["id"] for task in fleet.held} <= lost
    with api.engine.store.transaction() as tx:
        tx.execute("UPDATE steps SET heartbeat_at = heartbeat_at - interval '10 minutes'")
        steps.release_stale_tasks(tx, timedelta(seconds=60), 1000)
    wait_until(lambda: len(fleet.finished) == count, lambda: repr(stats(api.http)))
    fleet.stop()
    assert {task for task, epoch in fleet.handouts if epoch == 2} == lost
    assert first | lost == {task for task, _ in fleet.finished}
    check(fleet, api.http, sequence, count)


@pytest.mark.bench
def test_api_13_2_five_thousand_tasks_and_how_long_a_poll_takes(servers: Servers, tmp_path: Path):
    count = 5000
    env = {"ORCH8_WORKER_REAPER_STALE_SECS": "10", "ORCH8_WORKER_REAPER_TICK_SECS": "1"}
    with (
        Stack.running(tmp_path, servers=servers, workers={}, with_api=True, env=env) as stack,
        httpx.Client(base_url=f"{stack.api_url}/api/v1", headers={"X-Tenant-Id": TENANT}, **CALL) as client,
    ):
        sequence = begin(client, count)
        fleet = Fleet(stack.api_url)
        began = time.perf_counter()
        fleet.start(lives_of_half)
        wait_until(lambda: len(fleet.finished) == count, lambda: repr(stats(client)), within=300)
        took = time.perf_counter() - began
        fleet.stop()
        check(fleet, client, sequence, count)
    waits = sorted(fleet.waits)
    middle, high = (1000 * waits[int(len(waits) * part)] for part in (0.5, 0.95))
    print(f"{count} tasks in {took:.1f} s, {WORKERS} workers; poll to handout: p50 {middle:.0f} ms, p95 {high:.0f} ms")
