"""What an instance still has to do, changed over HTTP: injection, migration, resume, fork (api §9, §10.5)."""

from typing import Any
from uuid import uuid4

import pytest

from tests.contract.client import Api, definition, step

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


# -- migration -------------------------------------------------------------------------------------------------------


def migrate(api: Api, instance_id: str, target: str, **request: Any) -> Any:
    body = {"instance_id": instance_id, "target_sequence_id": target}
    return api.http.post("/sequences/migrate-instance", json=body, **request)


def test_api_9_migration_is_answered_at_once_while_a_step_runs(api: Api):
    first, second = api.sequence(step("w"), noop("b")), api.sequence(step("w"), noop("x"))
    instance_id = api.start_of(first)
    (task,) = api.poll()
    answer = migrate(api, instance_id, second)
    assert (answer.status_code, answer.json()) == (
        200,
        {"migrated": True, "instance_id": instance_id, "from_sequence_id": first, "to_sequence_id": second},
    )
    assert api.instance(instance_id)["sequence_id"] == second
    assert api.report(task, "complete", output={"n": 1}).status_code == 200
    api.run_builtins()
    assert api.state(instance_id) == "completed"
    assert [row["block_id"] for row in api.outputs(instance_id)] == ["w", "x"]
    assert api.states(instance_id) == dict.fromkeys("wx", "completed")


def test_api_9_task_of_the_former_version_is_still_described(api: Api):
    instance_id = api.start(step("w", params={"n": 1}))
    (task,) = api.poll()
    assert migrate(api, instance_id, api.sequence(noop("x"))).status_code == 200
    (listed,) = api.http.get("/workers/tasks").json()
    assert (listed["id"], listed["params"]) == (task["id"], {"n": 1})


def test_api_9_migration_refusals_change_nothing(api: Api):
    first, second = api.sequence(step("w")), api.sequence(noop("x"))
    instance_id = api.start_of(first)
    foreign = api.http.post(
        "/sequences", json=definition(noop("x"), tenant_id="other"), headers={"X-Tenant-Id": "other"}
    ).json()["id"]
    assert migrate(api, str(uuid4()), second).status_code == 404
    assert migrate(api, instance_id, str(uuid4())).status_code == 404
    answer = migrate(api, instance_id, foreign)
    assert (answer.status_code, answer.json()["error"][:11]) == (403, "forbidden: ")
    assert migrate(api, instance_id, foreign, headers={"X-Tenant-Id": "other"}).status_code == 404
    assert migrate(api, "text", second).status_code == 422
    assert api.http.post("/sequences/migrate-instance", json={"instance_id": instance_id}).status_code == 422
    assert api.instance(instance_id)["sequence_id"] == first
    api.signal(instance_id, "cancel")
    answer = migrate(api, instance_id, second)
    assert (answer.status_code, answer.json()["error"][:18]) == (400, "invalid argument: ")
    assert api.instance(instance_id)["sequence_id"] == first


def test_api_20_10_bulk_migration_counts(api: Api):
    first, second = api.sequence(step("w")), api.sequence(step("w"), noop("x"))
    ids = [api.start_of(first, metadata={"batch": "a"}) for _ in range(3)]
    api.start_of(first, metadata={"batch": "b"})
    api.signal(ids[0], "cancel")
    body = {"filter": {"sequence_id": first, "metadata": {"batch": "a"}}, "target_sequence_id": second}
    expected = {"matched": 3, "migrated": 2, "skipped": 1, "failed": 0}
    for dry_run, sequences in ((True, {first}), (False, {second})):
        answer = api.http.post("/sequences/migrate-instances", json={**body, "dry_run": dry_run})
        assert (answer.status_code, answer.json()) == (200, expected)
        assert {api.instance(instance_id)["sequence_id"] for instance_id in ids[1:]} == sequences
    again = {**body, "filter": {"states": ["waiting"], "metadata": {"batch": "a"}}}
    answer = api.http.post("/sequences/migrate-instances", json=again).json()
    assert answer == {"matched": 2, "migrated": 0, "skipped": 2, "failed": 0}


def test_api_20_10_bulk_migration_needs_a_tenant_and_a_target(api: Api):
    body = {"filter": {}, "target_sequence_id": str(uuid4())}
    assert api.http.post("/sequences/migrate-instances", json=body).status_code == 404
    assert api.http.post("/sequences/migrate-instances", json={"filter": {"states": ["x"]}}).status_code == 422


# -- deletion and status ---------------------------------------------------------------------------------------------


def test_api_9_former_version_can_be_deleted_while_its_step_still_runs(api: Api):
    first = api.sequence(step("w"))
    instance_id = api.start_of(first)
    (task,) = api.poll()
    answer = api.http.delete(f"/sequences/{first}")
    reason = f"conflict: cannot delete sequence {first}: 1 active instance(s) still reference it"
    assert (answer.status_code, answer.json()) == (409, {"error": reason})
    migrate(api, instance_id, api.sequence(noop("x")))
    assert api.http.delete(f"/sequences/{first}").status_code == 204
    assert api.http.get(f"/sequences/{first}").status_code == 404
    assert api.report(task, "complete", output={"n": 1}).status_code == 200
    api.run_builtins()
    assert (api.state(instance_id), [row["block_id"] for row in api.outputs(instance_id)]) == ("completed", ["w", "x"])


def test_api_9_ended_instances_go_with_their_version(api: Api):
    document = definition(noop("a"))
    assert api.http.post("/sequences", json=document).status_code == 201
    instance_id = api.start_of(document["id"], idempotency_key="k")
    api.run_builtins()
    assert api.http.delete(f"/sequences/{document['id']}", headers={"X-Tenant-Id": "other"}).status_code == 404
    assert api.http.delete(f"/sequences/{document['id']}").status_code == 204
    assert api.http.get(f"/instances/{instance_id}").status_code == 404
    assert api.http.delete(f"/sequences/{document['id']}").status_code == 404
    assert api.http.post("/sequences", json={**document, "blocks": [noop("b")]}).status_code == 409
    assert api.http.post("/sequences", json=document).status_code == 201
    assert api.start_of(document["id"], idempotency_key="k") != instance_id


def test_api_9_status_moves_on_and_never_back(api: Api):
    sequence = api.sequence(noop("a"), status="draft")
    for status, code in [
        ("production", 400),
        ("staging", 204),
        ("draft", 400),
        ("production", 204),
        ("unpublished", 204),
        ("draft", 400),
        ("elsewhere", 422),
    ]:
        assert api.http.post(f"/sequences/{sequence}/status", json={"status": status}).status_code == code
    assert api.http.get(f"/sequences/{sequence}").json()["status"] == "unpublished"
    assert api.http.post(f"/sequences/{uuid4()}/status", json={"status": "staging"}).status_code == 404
