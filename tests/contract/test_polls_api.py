"""Polls of workers, and what they are handed (contract, api §13.1 to §13.3; sequences §8.2, §12)."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.api import create_app
from orchestrator.core.outcomes import Failed, FailureKind
from tests.contract.client import Api, step
from tests.contract.worker_tasks import TASK
from tests.support.serving import serving

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
