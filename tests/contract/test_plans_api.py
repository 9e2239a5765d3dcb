"""What an instance still has to do, changed over HTTP: injection, migration, resume, fork (api §9, §10.5)."""

from typing import Any
from uuid import uuid4

import pytest

from tests.contract.client import Api, step

LATER = "2099-01-01T00:00:00Z"


def noop(block_id: str, **fields: Any) -> dict[str, Any]:
    return step(block_id, "noop", **fields)


# -- inject-blocks ---------------------------------------------------------------------------------------------------


def inject(api: Api, instance_id: str, *blocks: Any, **fields: Any) -> Any:
    return api.http.post(f"/instances/{instance_id}/inject-blocks", json={"blocks": list(blocks), **fields})


def test_api_10_5_injection_answers_with_ids_position_and_total(api: Api):
    instance_id = api.start(step("w"), noop("b"), metadata={"mine": 1})
    answer = inject(api, instance_id, noop("x"), noop("y"), position=0)
    assert (answer.status_code, answer.json()) == (
        200,
        {"injected_block_ids": ["x", "y"], "position": 0, "total_injected": 2},
    )
    assert inject(api, instance_id, noop("z")).json() == {
        "injected_block_ids": ["z"],
        "position": None,
        "total_injected": 3,
    }
    api.complete({"n": 1})
    api.run_builtins()
    assert [row["block_id"] for row in api.outputs(instance_id)] == ["w", "x", "y", "b", "z"]
    assert api.states(instance_id) == dict.fromkeys("wxybz", "completed")
    assert api.instance(instance_id)["metadata"] == {"mine": 1}


def test_api_10_5_injection_is_accepted_in_every_state(api: Api):
    failed = api.start(step("w", "fail"))
    api.run_builtins()
    completed = api.start(noop("w"))
    api.run_builtins()
    waiting = api.start(step("w"))
    scheduled = api.start(step("w"), next_fire_at=LATER)
    paused = api.start(step("w"), next_fire_at=LATER)
    cancelled = api.start(step("w"))
    assert api.signal(paused, "pause").status_code == 201
    assert api.signal(cancelled, "cancel").status_code == 201
    for instance_id, state in [
        (failed, "failed"),
        (completed, "completed"),
        (waiting, "waiting"),
        (scheduled, "scheduled"),
        (paused, "paused"),
        (cancelled, "cancelled"),
    ]:
        assert api.state(instance_id) == state
        assert inject(api, instance_id, noop("x")).status_code == 200
        assert api.state(instance_id) == state


@pytest.mark.parametrize(
    "body",
    [
        {"blocks": []},
        {},
        {"blocks": None},
        {"blocks": {"type": "step"}},
        {"blocks": "text"},
        {"blocks": [{"type": "leap", "id": "x"}]},
        {"blocks": [{"type": "step", "id": "x"}]},
        {"blocks": [{"type": "step", "id": "", "handler": "noop"}]},
        {"blocks": [{"type": "loop", "id": "x", "condition": " ", "body": [noop("y")]}]},
        {"blocks": [noop("w")]},
        {"blocks": [noop("x"), noop("x")]},
        {"blocks": [noop("x")], "position": -1},
    ],
)
def test_api_10_5_injection_of_what_is_invalid_is_400_and_stores_nothing(api: Api, body: dict[str, Any]):
    instance_id = api.start(step("w"))
    answer = api.http.post(f"/instances/{instance_id}/inject-blocks", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("invalid argument: ")
    assert list(api.states(instance_id)) == ["w"]


def test_api_10_5_injection_elsewhere_is_404(api: Api):
    assert inject(api, str(uuid4()), noop("x")).status_code == 404
    instance_id = api.start(step("w"))
    answer = api.http.post(
        f"/instances/{instance_id}/inject-blocks", json={"blocks": [noop("x")]}, headers={"X-Tenant-Id": "other"}
    )
    assert (answer.status_code, answer.json()) == (404, {"error": f"not found: instance {instance_id}"})


def test_api_11_3_gate_of_an_injected_step_is_in_the_approvals(api: Api):
    instance_id = api.start(step("w"))
    inject(api, instance_id, noop("g", wait_for_input={"prompt": "Well?"}))
    api.complete({})
    (item,) = api.http.get("/approvals").json()["items"]
    assert (item["block_id"], item["prompt"]) == ("g", "Well?")


def test_api_13_injected_step_is_a_task_with_its_params(api: Api):
    instance_id = api.start(step("w"))
    inject(api, instance_id, step("x", "late", params={"n": "{{ outputs.w.n }}"}))
    api.complete({"n": 5})
    assert [task["params"] for task in api.http.get("/workers/tasks").json() if task["block_id"] == "x"] == [{"n": 5}]
    (task,) = api.poll("late")
    assert (task["block_id"], task["params"]) == ("x", {"n": 5})
