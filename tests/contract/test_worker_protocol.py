"""The protocol of polling workers and its dashboards (contract, api §13; sequences §5.6, §8.2, §12)."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.api import create_app
from orchestrator.core.outcomes import Failed, FailureKind
from orchestrator.store import steps
from orchestrator.store import workers as worker_rows
from tests.contract.client import Api, step
from tests.support.serving import serving

TASK = [
    "id",
    "instance_id",
    "block_id",
    "handler_name",
    "queue_name",
    "params",
    "context",
    "attempt",
    "timeout_ms",
    "state",
    "worker_id",
    "claimed_at",
    "heartbeat_at",
    "claim_epoch",
    "resume_checkpoint",
    "checkpoint_seq",
    "completed_at",
    "output",
    "error_message",
    "error_retryable",
    "created_at",
]
RETRY = {"max_attempts": 3, "initial_backoff": 1000, "max_backoff": 1000}
LEASE_CHANGED = {"error": "conflict: worker task lease changed"}
OWNERSHIP_CHANGED = {"error": "conflict: worker task ownership or checkpoint sequence changed"}


def release_all(api: Api) -> None:
    """End all leases, as the reaper does after a minute of silence."""
    with api.engine.store.transaction() as tx:
        tx.execute("UPDATE steps SET heartbeat_at = heartbeat_at - interval '10 minutes'")
        steps.release_stale_tasks(tx, timedelta(seconds=60), 100)


# -- §13.1, §13.2 ----------------------------------------------------------------------------------------------------


def test_api_13_1_task_fields(api: Api):
    instance = api.start(step("a", params={"v": "{{ data.x }}"}, timeout=5000), data={"x": [1]})
    assert api.state(instance) == "waiting"
    (task,) = api.poll(worker="me")
    assert list(task)[: len(TASK)] == TASK
    expected = {
        "instance_id": instance,
        "block_id": "a",
        "handler_name": "outside",
        "queue_name": None,
        "params": {"v": [1]},
        "attempt": 0,
        "timeout_ms": 5000,
        "state": "claimed",
        "worker_id": "me",
        "claim_epoch": 1,
        "resume_checkpoint": None,
        "checkpoint_seq": 0,
        "completed_at": None,
        "output": None,
        "error_message": None,
        "error_retryable": None,
    }
    assert {name: task[name] for name in expected} == expected
    assert task["context"]["data"] == {"x": [1]}
    assert task["context"]["audit"] == []
    assert task["context"]["runtime"]["current_step"] == "a"
    assert task["idempotency_key"] == f"{instance}:a"
    assert all(task[name].endswith("Z") for name in ("created_at", "claimed_at", "heartbeat_at"))


def test_api_13_2_oldest_first_up_to_the_limit(api: Api):
    instances = [api.start(step("a")) for _ in range(3)]
    assert [task["instance_id"] for task in api.poll(limit=2)] == instances[:2]
    assert [task["instance_id"] for task in api.poll(limit=5000)] == instances[2:]
    assert api.poll() == []
    assert api.poll(limit=0) == []


def test_api_13_2_limit_defaults_to_one(api: Api):
    api.start(step("a"))
    api.start(step("a"))
    assert len(api.poll()) == 1


@pytest.mark.parametrize(
    "body",
    [
        {"worker_id": "w"},
        {"handler_name": "h"},
        {"handler_name": 5, "worker_id": "w"},
        {"handler_name": "h", "worker_id": "w", "limit": -1},
        [],
    ],
)
def test_api_13_2_wrong_shapes_are_422(api: Api, body: Any):
    assert api.http.post("/workers/tasks/poll", json=body).status_code == 422


def test_api_13_2_concurrent_polls_never_share_a_task(api: Api):
    for _ in range(20):
        api.start(step("a"))
    with ThreadPoolExecutor(10) as pool:
        polls = list(pool.map(lambda number: api.poll(worker=f"w{number}", limit=3), range(10)))
    ids = [task["id"] for tasks in polls for task in tasks]
    assert len(ids) == len(set(ids)) == 20


def test_api_13_2_other_tenants_tasks_are_not_handed_out(api: Api):
    api.start(step("a"))
    body = {"handler_name": "outside", "worker_id": "w"}
    assert api.http.post("/workers/tasks/poll", json=body, headers={"X-Tenant-Id": "other"}).json() == []
    assert len(api.poll()) == 1


def test_api_13_2_tasks_of_paused_and_ended_instances_are_not_handed_out(api: Api):
    parallel = {"type": "parallel", "id": "p", "branches": [[step("a")], [step("b")]]}
    cancelled = api.start(parallel)
    api.signal(cancelled, "cancel")
    assert api.poll(limit=10) == []


def test_api_13_2_built_in_handlers_cannot_be_polled(api: Api):
    instance = api.start(step("a", "noop"))
    assert api.poll("noop") == []
    api.run_builtins()
    assert api.state(instance) == "completed"


def test_api_13_3_named_queues_are_polled_by_name_and_handler(api: Api):
    api.start(step("a", queue_name="gpu"))
    assert api.poll() == []
    assert api.poll(queue_name="cpu") == []
    assert api.poll("other", queue_name="gpu") == []
    (task,) = api.poll(queue_name="gpu")
    assert task["queue_name"] == "gpu"
    assert api.http.post("/workers/tasks/poll/queue", json={"handler_name": "h", "worker_id": "w"}).status_code == 422


def test_api_20_11_plain_polls_of_all_queues_are_a_setting(api: Api):
    app = create_app(api.engine, api.engine.settings.model_copy(update={"poll_any_queue": True}))
    api.start(step("a", queue_name="gpu"))
    api.start(step("a"))
    with serving(app) as url:
        body = {"handler_name": "outside", "worker_id": "w", "limit": 5}
        answer = api.http.post(f"{url}/workers/tasks/poll", json=body)
    assert {task["queue_name"] for task in answer.json()} == {"gpu", None}


def test_api_13_2_template_that_cannot_be_resolved_fails_before_anybody_polls(api: Api):
    instance = api.start(step("a", params={"v": "{{ nowhere.x }}"}))
    assert api.poll() == []
    assert api.state(instance) == "failed"


def test_api_13_2_task_whose_inputs_break_at_the_claim_fails_and_is_not_handed_out(
    api: Api, monkeypatch: pytest.MonkeyPatch
):
    instance = api.start(step("a"))
    whole = api.engine.inputs
    failure = Failed(message="no inputs", retryable=False, kind=FailureKind.INPUT)
    monkeypatch.setattr(api.engine, "inputs", lambda claims: [replace(each, failure=failure) for each in whole(claims)])
    assert api.poll() == []
    assert api.state(instance) == "failed"


# -- context ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("access", "data", "config"),
    [
        (None, {"a": 1, "b": 2}, {"c": 3}),
        ({}, {"a": 1, "b": 2}, {"c": 3}),
        ({"data": {"fields": ["a"]}, "config": False}, {"a": 1}, {}),
        ({"data": "none", "config": "all"}, {}, {"c": 3}),
    ],
)
def test_sequences_8_2_context_access_filters_what_workers_see(api: Api, access: Any, data: Any, config: Any):
    extra = {} if access is None else {"context_access": access}
    sequence = api.sequence(step("a", **extra))
    api.start_of(sequence, context={"data": {"a": 1, "b": 2}, "config": {"c": 3}})
    (task,) = api.poll()
    assert (task["context"]["data"], task["context"]["config"]) == (data, config)
    current = task["context"]["runtime"]["current_step"]
    assert current == ("a" if access is None else None)


def test_sequences_3_5_for_each_lays_its_item_over_the_data(api: Api):
    loop = {"type": "for_each", "id": "f", "collection": "items", "body": [step("a", params="{{ item }}")]}
    instance = api.start(loop, data={"items": ["x", "y"]})
    for index, item in enumerate("xy"):
        (task,) = api.poll()
        assert task["context"]["data"] == {"items": ["x", "y"], "item": item}
        assert task["params"] == item
        assert task["idempotency_key"] == f"{instance}:a:{index}"
        api.report(task, "complete", output={})
    assert api.instance(instance)["context"]["data"] == {"items": ["x", "y"]}
    assert api.state(instance) == "completed"


# -- §13.4 -----------------------------------------------------------------------------------------------------------


def test_api_13_4_complete_is_200_and_the_flow_has_moved(api: Api):
    instance = api.start(step("a"), step("b", params={"v": "{{ outputs.a.x }}"}), data={"k": 0})
    (task,) = api.poll()
    answer = api.report(task, "complete", output={"x": 1, "k": 2}, logs=[{"ts": 1, "level": "info", "message": "m"}])
    assert (answer.status_code, answer.content) == (200, b"")
    assert api.instance(instance)["context"]["data"] == {"k": 2, "x": 1}
    assert api.state(instance) == "waiting"
    (task,) = api.poll()
    assert (task["block_id"], task["params"]) == ("b", {"v": 1})
    assert api.report(task, "complete", output=None).status_code == 200
    assert api.state(instance) == "completed"
    assert [row["output"] for row in api.outputs(instance)] == [{"x": 1, "k": 2}, None]


def test_api_13_4_output_is_required(api: Api):
    api.start(step("a"))
    (task,) = api.poll()
    assert api.report(task, "complete").status_code == 422
    assert api.report(task, "complete", output=5).status_code == 200


def test_api_13_4_unknown_task_is_404_and_named(api: Api):
    missing = uuid4()
    for verb, extra in (("complete", {"output": 1}), ("fail", {"message": "m"}), ("heartbeat", {})):
        answer = api.http.post(f"/workers/tasks/{missing}/{verb}", json={"worker_id": "w", "claim_epoch": 1, **extra})
        assert answer.status_code == 404
        assert answer.json() == {"error": f"not found: worker_task {missing}"}


@pytest.mark.parametrize(
    "change",
    [{"worker_id": "w2"}, {"claim_epoch": 2}, {"claim_epoch": 0}],
    ids=["worker", "later epoch", "earlier epoch"],
)
@pytest.mark.parametrize(
    ("verb", "extra", "error"),
    [
        ("complete", {"output": 1}, LEASE_CHANGED),
        ("fail", {"message": "m"}, LEASE_CHANGED),
        ("heartbeat", {}, OWNERSHIP_CHANGED),
        ("heartbeat", {"checkpoint": 1, "checkpoint_seq": 0}, OWNERSHIP_CHANGED),
    ],
)
def test_api_13_4_foreign_lease_is_409(api: Api, change: Any, verb: str, extra: Any, error: Any):
    instance = api.start(step("a"))
    (task,) = api.poll()
    answer = (
        api.report(task, verb, **extra, **change)
        if not change
        else api.http.post(
            f"/workers/tasks/{task['id']}/{verb}", json={"worker_id": "w1", "claim_epoch": 1, **extra, **change}
        )
    )
    assert (answer.status_code, answer.json()) == (409, error)
    assert api.state(instance) == "waiting"


def test_api_13_4_unclaimed_task_is_409(api: Api):
    instance = api.start(step("a"))
    task_id = api.step_row(instance)[0]
    answer = api.http.post(
        f"/workers/tasks/{task_id}/complete", json={"worker_id": "w1", "claim_epoch": 0, "output": 1}
    )
    assert (answer.status_code, answer.json()) == (409, LEASE_CHANGED)


def test_api_13_4_epoch_may_be_left_out(api: Api):
    instance = api.start(step("a"))
    (task,) = api.poll()
    answer = api.http.post(f"/workers/tasks/{task['id']}/complete", json={"worker_id": "w1", "output": 1})
    assert answer.status_code == 200
    assert api.state(instance) == "completed"


def test_api_13_4_second_complete_is_409_and_changes_nothing(api: Api):
    instance = api.start(step("a"), step("b"))
    task = api.complete({"x": 1})
    answer = api.report(task, "complete", output={"x": 2})
    assert (answer.status_code, answer.json()) == (409, LEASE_CHANGED)
    assert [row["output"] for row in api.outputs(instance)] == [{"x": 1}]
    api.complete({})
    assert api.report(task, "complete", output={"x": 2}).status_code == 409


def test_api_13_4_racing_completes_store_one_output(api: Api):
    instance = api.start(step("a"))
    (task,) = api.poll()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: api.report(task, "complete", output=number), range(16)))
    assert {answer.status_code for answer in answers} <= {200, 409}
    assert sum(answer.status_code == 200 for answer in answers) == 1
    assert len(api.outputs(instance)) == 1


def test_api_13_4_instance_ended_meanwhile_is_200_without_effect(api: Api):
    instance = api.start(step("a"))
    (task,) = api.poll()
    api.signal(instance, "cancel")
    assert api.report(task, "complete", output={"x": 1}).status_code == 200
    assert (api.state(instance), api.outputs(instance)) == ("cancelled", [])
    assert api.report(task, "heartbeat").status_code == 409


def test_api_13_4_too_large_output_is_413_and_can_still_be_failed(api: Api):
    instance = api.start(step("a"))
    (task,) = api.poll()
    answer = api.report(task, "complete", output="x" * (9 * 1024 * 1024))
    assert answer.status_code == 413
    assert api.report(task, "fail", message="too large").status_code == 200
    assert api.state(instance) == "failed"


def test_sequences_2_merge_beyond_the_context_limit_fails_the_step(api: Api):
    instance = api.start(step("a"))
    api.complete({"x": "y" * 300_000})
    assert (api.state(instance), api.outputs(instance)) == ("failed", [])


def test_sequences_4_output_schema_refuses_a_workers_output(api: Api):
    instance = api.start(step("a", output_schema={"type": "object", "required": ["x"]}))
    api.complete({})
    assert (api.state(instance), api.outputs(instance)) == ("failed", [])


# -- §13.5 -----------------------------------------------------------------------------------------------------------


def test_api_13_5_retryable_failure_backs_off_and_comes_back(api: Api):
    instance = api.start(step("a", retry=RETRY))
    first = api.fail("busy", retryable=True)
    read = api.instance(instance)
    assert read["state"] == "scheduled"
    assert read["next_fire_at"] is not None
    assert read["context"]["runtime"]["attempt"] == 1
    assert api.poll() == []
    api.pass_time()
    assert api.state(instance) == "waiting"
    (task,) = api.poll()
    assert (task["attempt"], task["claim_epoch"]) == (1, 1)
    assert task["id"] != first["id"]
    assert api.report(first, "complete", output={}).status_code == 409
    assert api.report(task, "complete", output={}).status_code == 200
    assert api.state(instance) == "completed"


@pytest.mark.parametrize(("retryable", "retry"), [(False, RETRY), (True, None)])
def test_api_13_5_final_failure_leaves_no_row(api: Api, retryable: bool, retry: Any):
    instance = api.start(step("a", **({"retry": retry} if retry else {})))
    api.fail("broken", retryable=retryable)
    assert (api.state(instance), api.outputs(instance)) == ("failed", [])


def test_api_13_5_retryable_defaults_to_false_and_message_is_required(api: Api):
    instance = api.start(step("a", retry=RETRY))
    (task,) = api.poll()
    assert api.report(task, "fail").status_code == 422
    assert api.report(task, "fail", message="m").status_code == 200
    assert api.state(instance) == "failed"


def test_sequences_5_6_codes_of_a_worker_reach_the_retry_policy(api: Api):
    instance = api.start(step("a", retry={**RETRY, "non_retryable_codes": ["E1"]}))
    api.fail("no", retryable=True, details={"error_code": "E1"})
    assert api.state(instance) == "failed"


def test_api_13_5_failure_is_catchable(api: Api):
    block = {"type": "try_catch", "id": "t", "try_block": [step("a")], "catch_block": [step("c", "noop")]}
    instance = api.start(block)
    api.fail("broken")
    api.run_builtins()
    assert api.state(instance) == "completed"
    assert api.instance(instance)["context"]["data"]["_error"]["message"] == "broken"


# -- §13.6 -----------------------------------------------------------------------------------------------------------


def test_api_13_6_heartbeat_repeats_the_number_and_checkpoints_raise_it(api: Api):
    api.start(step("a"))
    (task,) = api.poll()
    assert api.report(task, "heartbeat").json() == {"checkpoint_seq": 0}
    assert api.report(task, "heartbeat", checkpoint={"at": 1}, checkpoint_seq=0).json() == {"checkpoint_seq": 1}
    assert api.report(task, "heartbeat").json() == {"checkpoint_seq": 1}
    stale = api.report(task, "heartbeat", checkpoint={"at": 2}, checkpoint_seq=0)
    assert (stale.status_code, stale.json()) == (409, OWNERSHIP_CHANGED)
    assert api.report(task, "heartbeat", checkpoint={"at": 2}, checkpoint_seq=1).json() == {"checkpoint_seq": 2}


def test_api_13_6_checkpoint_needs_its_number(api: Api):
    api.start(step("a"))
    (task,) = api.poll()
    answer = api.report(task, "heartbeat", checkpoint=1)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("invalid argument: ")
    assert api.report(task, "heartbeat", checkpoint=1, checkpoint_seq=-1).status_code == 422


def test_api_13_6_too_large_checkpoint_is_413(api: Api):
    api.start(step("a"))
    (task,) = api.poll()
    answer = api.report(task, "heartbeat", checkpoint="x" * 256 * 1024, checkpoint_seq=0)
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("payload too large: ")


def test_api_13_6_a_lease_that_ends_gives_the_same_task_to_the_next(api: Api):
    instance = api.start(step("a"))
    (task,) = api.poll()
    api.report(task, "heartbeat", checkpoint={"at": 7}, checkpoint_seq=0)
    release_all(api)
    assert api.state(instance) == "waiting"
    assert api.report(task, "complete", output=1).status_code == 409
    (again,) = api.poll()
    assert (again["id"], again["attempt"], again["claim_epoch"]) == (task["id"], 0, 2)
    assert (again["resume_checkpoint"], again["checkpoint_seq"]) == ({"at": 7}, 1)
    for verb, extra in (("complete", {"output": 1}), ("fail", {"message": "m"}), ("heartbeat", {})):
        assert api.report(task, verb, **extra).status_code == 409
    assert api.report(again, "complete", output={}).status_code == 200
    assert api.state(instance) == "completed"


def test_api_13_6_time_out_withdraws_the_task(api: Api):
    instance = api.start(step("a", timeout=50))
    (task,) = api.poll()
    with api.engine.store.transaction() as tx:
        tx.execute("UPDATE steps SET expires_at = clock_timestamp()")
    api.pass_time()
    assert api.state(instance) == "failed"
    assert api.report(task, "complete", output={}).status_code == 409
    (shown,) = api.http.get("/workers/tasks").json()
    assert (shown["state"], shown["error_message"]) == ("failed", "task timed out (timeout_ms exceeded)")
    assert (shown["error_retryable"], shown["worker_id"], shown["claim_epoch"]) == (True, "w1", 1)


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
    held_tasks = steps.held_tasks

    def noting(tx: Any, ids: Any) -> Any:
        read.append(len(ids))
        return held_tasks(tx, ids)

    monkeypatch.setattr(steps, "held_tasks", noting)
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


# -- §13.7: what happened to a task ------------------------------------------------------------------------------------


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
