"""What workers report of their tasks: ends, failures, heartbeats (contract, api §13.4 to §13.6; sequences §5.6)."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from tests.contract.client import Api, step
from tests.contract.worker_tasks import release_all

RETRY = {"max_attempts": 3, "initial_backoff": 1000, "max_backoff": 1000}
LEASE_CHANGED = {"error": "conflict: worker task lease changed"}
OWNERSHIP_CHANGED = {"error": "conflict: worker task ownership or checkpoint sequence changed"}


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
