"""Many HTTP workers on one queue, half of which die: each task is handed out once a lease, and none is lost.

Those that die keep what they hold, or leave before they have read the answer that would have given them a task.
"""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from orchestrator.embedded import Servers
from orchestrator.store import leases
from tests.contract.client import CALL, TENANT, Api, definition, step
from tests.support.fleet import Fleet, Worker
from tests.support.stack import Stack
from tests.support.waiting import wait_until

WORKERS = 50
QUEUE = "many"
HANDLER = "outside"
LEASE_CHANGED = {"error": "conflict: worker task lease changed"}


def fleet_of_half_that_die(address: str) -> Fleet:
    """Make workers of which every other one dies, after up to five tasks, half of these without reading an answer."""
    port = urlsplit(address).port
    assert port is not None
    return Fleet(
        [
            Worker(
                port,
                f"w{number}",
                tenant=TENANT,
                handler=HANDLER,
                queue=QUEUE,
                life=None if number % 2 else number % 6,
                leaves=number % 4 == 0,
            )
            for number in range(WORKERS)
        ]
    )


@contextmanager
def at_work(fleet: Fleet) -> Iterator[None]:
    """Let workers work in a thread for the length of a block."""
    with ThreadPoolExecutor(1) as threads:
        work = threads.submit(fleet.work)
        try:
            yield
        finally:
            fleet.stop()
            work.result()


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
    fleet = fleet_of_half_that_die(address)

    def only_the_dead_hold_tasks() -> bool:
        now = stats(api.http)
        return (
            len(fleet.dead) == WORKERS // 2
            and "pending" not in now["by_state"]
            and (set(now["active_workers"]) <= fleet.dead)
        )

    with at_work(fleet):
        wait_until(only_the_dead_hold_tasks, lambda: repr(stats(api.http)))
        first = {task for task, _ in fleet.handouts}
        lost = {
            each["id"] for each in api.http.get("/workers/tasks", params={"state": "claimed", "limit": 1000}).json()
        }
        assert {epoch for _, epoch in fleet.handouts} == {1}
        assert {task["id"] for task in fleet.held} <= lost
        with api.engine.store.transaction() as tx:
            tx.execute("UPDATE steps SET heartbeat_at = heartbeat_at - interval '10 minutes'")
            leases.release_stale_tasks(tx, timedelta(seconds=60), 1000)
        wait_until(lambda: len(fleet.finished) == count, lambda: repr(stats(api.http)))
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
        fleet = fleet_of_half_that_die(stack.api_url)
        began = time.perf_counter()
        with at_work(fleet):
            wait_until(lambda: len(fleet.finished) == count, lambda: repr(stats(client)), within=300)
            took = time.perf_counter() - began
        check(fleet, client, sequence, count)
    waits = sorted(fleet.polls)
    middle, high = (waits[int(len(waits) * part)] for part in (0.5, 0.95))
    print(f"{count} tasks in {took:.1f} s, {WORKERS} workers; poll to handout: p50 {middle:.0f} ms, p95 {high:.0f} ms")
