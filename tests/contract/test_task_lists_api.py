"""Lists of tasks and workers, and what has happened to a task (contract, api §13.7)."""

from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.engine import Engine
from orchestrator.store import leases
from orchestrator.store import workers as worker_rows
from tests.contract.client import Api, step
from tests.contract.worker_tasks import TASK, release_all

# -- §13.7 -----------------------------------------------------------------------------------------------------------


def test_api_13_7_pages_of_tasks_follow_their_making_whenever_they_end(api: Api):
    instances = [api.start(step("a")) for _ in range(4)]
    tasks = {task["instance_id"]: task for task in api.poll(limit=3)}
    for instance in reversed(instances[:3]):
        assert api.report(tasks[instance], "complete", output={}).status_code == 200
    pages = [api.http.get("/workers/tasks", params={"limit": 1, "offset": offset}).json() for offset in range(4)]
    assert [task["instance_id"] for (task,) in pages] == instances[::-1]


def test_api_13_7_tasks_are_listed_newest_first_in_all_states(api: Api):
    api.start(step("done"))
    api.complete({"x": 1})
    api.start(step("broken"))
    api.fail("why")
    claimed = api.start(step("claimed", params={"v": "{{ data.x }}"}), data={"x": 5})
    api.poll(worker="w9")
    pending = api.start(step("pending", queue_name="gpu"))

    def found(**query: Any) -> list[tuple[str, str]]:
        tasks = api.http.get("/workers/tasks", params=query).json()
        return [(task["block_id"], task["state"]) for task in tasks]

    assert found() == [("pending", "pending"), ("claimed", "claimed"), ("broken", "failed"), ("done", "completed")]
    assert found(limit=2, offset=1) == [("claimed", "claimed"), ("broken", "failed")]
    assert found(state="completed") == [("done", "completed")]
    assert found(state="pending") == [("pending", "pending")]
    assert found(queue_name="gpu") == [("pending", "pending")]
    assert found(worker_id="w9") == [("claimed", "claimed")]
    assert found(worker_id="w1") == [("broken", "failed"), ("done", "completed")]
    assert found(handler_name="nobody") == []
    assert api.http.get("/workers/tasks", params={"state": "odd"}).status_code == 400
    tasks = {task["block_id"]: task for task in api.http.get("/workers/tasks").json()}
    assert all(list(task)[: len(TASK)] == TASK for task in tasks.values())
    assert tasks["claimed"]["params"] == {"v": 5}
    assert tasks["done"]["output"] == {"x": 1}
    assert [(task["worker_id"], task["claim_epoch"]) for task in tasks.values()] == [
        (None, 0),
        ("w9", 1),
        ("w1", 1),
        ("w1", 1),
    ]
    assert (tasks["broken"]["error_message"], tasks["broken"]["error_retryable"]) == ("why", False)
    assert {tasks["claimed"]["instance_id"], tasks["pending"]["instance_id"]} == {claimed, pending}


def test_api_13_7_pages_of_open_and_ended_tasks_together_are_the_whole_list(api: Api, monkeypatch: pytest.MonkeyPatch):
    for n in range(7):
        api.start(step("a"))
        if n % 2:
            api.complete({"n": n})
    whole = api.http.get("/workers/tasks").json()
    assert len(whole) == 7
    read: list[int] = []
    held_tasks = leases.held_tasks

    def noting(tx: Any, ids: Any) -> Any:
        read.append(len(ids))
        return held_tasks(tx, ids)

    monkeypatch.setattr(leases, "held_tasks", noting)
    pages = [api.http.get(f"/workers/tasks?offset={offset}&limit=3").json() for offset in (0, 3, 6, 9)]
    assert [task for page in pages for task in page] == whole
    assert [len(page) for page in pages] == [3, 3, 1, 0]
    assert max(read) <= 3


def test_api_13_7_stats(api: Api):
    empty = {"by_state": {}, "by_handler": {}, "active_workers": []}
    assert api.http.get("/workers/tasks/stats").json() == empty
    api.start(step("a", "h1"))
    api.start(step("a", "h1"))
    api.start(step("a", "h2"))
    api.start(step("a", "noop"))
    api.complete({}, handler="h2")
    api.poll("h1", worker="w3")
    assert api.http.get("/workers/tasks/stats").json() == {
        "by_state": {"pending": 1, "claimed": 1, "completed": 1},
        "by_handler": {"h1": {"pending": 1, "claimed": 1}, "h2": {"completed": 1}},
        "active_workers": ["w3"],
    }


@pytest.mark.needs_own_server("it sees what others do, too")
def test_api_13_7_every_poll_registers_the_worker(api: Api):
    api.start(step("a"))
    api.poll(worker="w1")
    api.poll("second", worker="w1", queue_name="gpu")
    (worker,) = api.http.get("/workers").json()
    assert worker.pop("last_seen_at").endswith("Z")
    assert worker == {
        "worker_id": "w1",
        "handlers": ["outside", "second"],
        "queues": ["gpu"],
        "version": None,
        "alive": True,
        "in_flight": 1,
    }
    assert api.http.get("/workers", headers={"X-Tenant-Id": "other"}).json() == []
    assert api.http.get("/workers", params={"alive_within_secs": 0}).json() == []
    (stale,) = api.http.get("/workers", params={"alive_within_secs": 0, "include_stale": "true"}).json()
    assert stale["alive"] is False


def test_pollers_are_no_reason_to_ring(api: Api):
    api.poll(worker="w1")
    with api.engine.store.transaction() as tx:
        assert worker_rows.alive(tx, timedelta(minutes=1)) == []


# -- §13.7: what happened to a task ----------------------------------------------------------------------------------


def story(api: Api, task_id: str, **query: Any) -> list[tuple[str, int, str | None, str | None]]:
    answer = api.http.get(f"/workers/tasks/{task_id}/attempts", params=query)
    assert answer.status_code == 200, answer.text
    events = answer.json()
    assert {event["task_id"] for event in events} == {task_id}
    assert [event["created_at"] for event in events] == sorted(event["created_at"] for event in events)
    assert len({event["id"] for event in events}) == len(events)
    return [(each["event"], each["claim_epoch"], each.get("worker_id"), each.get("reason")) for each in events]


def test_api_13_7_attempts_tell_of_lost_leases_late_reports_and_the_end_oldest_first(api: Api):
    api.start(step("a"))
    (first,) = api.poll(worker="w1")
    assert story(api, first["id"]) == [("claimed", 1, "w1", None)]
    release_all(api)
    (second,) = api.poll(worker="w2")
    assert api.report(first, "complete", output=1).status_code == 409
    assert api.report(first, "heartbeat").status_code == 409
    assert api.report(second, "complete", output=2).status_code == 200
    assert api.report(first, "fail", message="late").status_code == 409
    events = [
        ("claimed", 1, "w1", None),
        ("reclaimed", 1, "w1", "no heartbeat"),
        ("claimed", 2, "w2", None),
        ("stale_mutation_rejected", 1, "w1", "complete"),
        ("stale_mutation_rejected", 1, "w1", "heartbeat"),
        ("completed", 2, "w2", None),
        ("stale_mutation_rejected", 1, "w1", "fail"),
    ]
    assert story(api, first["id"]) == events
    assert story(api, first["id"], limit=2) == events[:2]
    path = f"/workers/tasks/{first['id']}/attempts"
    assert api.http.get(path).json() == api.http.get(path).json()


def test_api_13_7_attempts_of_a_failed_and_of_a_withdrawn_task(api: Api):
    api.start(step("a"))
    (task,) = api.poll()
    assert api.report(task, "fail", message="no").status_code == 200
    assert story(api, task["id"]) == [("claimed", 1, "w1", None), ("failed", 1, "w1", "no")]
    flow = api.start(step("a"))
    (task,) = api.poll()
    assert api.http.post(f"/instances/{flow}/signals", json={"signal_type": "cancel"}).status_code == 201
    assert story(api, task["id"]) == [("claimed", 1, "w1", None), ("cancelled", 1, "w1", None)]


def test_api_13_7_attempts_of_a_task_that_ran_out_of_time(api: Api):
    api.start(step("a", timeout=60_000))
    (task,) = api.poll()
    api.pass_time()
    events = story(api, task["id"])
    assert events == [("claimed", 1, "w1", None), ("timed_out", 1, "w1", "task timed out (timeout_ms exceeded)")]


@pytest.mark.parametrize("limit", [{"timeout": 60_000}, {"deadline": 1}])
def test_api_13_7_a_process_that_saw_no_claim_tells_of_it_when_the_task_runs_out_of_time(api: Api, limit):
    api.start(step("a", delay={"duration": 1_000}, **limit))
    elsewhere = Api(api.http, Engine(api.engine.store, lambda _hints: None, api.engine.settings))
    elsewhere.pass_time()
    (task,) = api.poll()
    elsewhere.pass_time()
    (ended,) = api.http.get("/workers/tasks", params={"state": "failed"}).json()
    assert (ended["id"], ended["claim_epoch"], ended["worker_id"]) == (task["id"], 1, "w1")
    assert ended["claimed_at"] == task["claimed_at"]
    assert [event[:3] for event in story(api, task["id"])] == [("claimed", 1, "w1"), ("timed_out", 1, "w1")]


def test_api_13_7_attempts_of_unknown_and_foreign_tasks_and_of_steps_that_are_no_tasks_are_404(api: Api):
    api.start(step("a"))
    (task,) = api.poll()
    path = f"/workers/tasks/{task['id']}/attempts"
    foreign = api.http.get(path, headers={"X-Tenant-Id": "other"})
    unknown = api.http.get(f"/workers/tasks/{uuid4()}/attempts")
    assert (foreign.status_code, unknown.status_code) == (404, 404)
    assert foreign.json() == {"error": f"not found: worker_task {task['id']}"}
    built_in = api.start(step("n", "noop"))
    with api.engine.store.transaction() as tx:
        ((step_id,),) = tx.query("SELECT id FROM steps WHERE instance_id = %s", (built_in,))
    assert api.http.get(f"/workers/tasks/{step_id}/attempts").status_code == 404
