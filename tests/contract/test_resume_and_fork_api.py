"""Going on from a block, in a flow or in a copy of it, over HTTP (api §10.5; sequences §9.8, §9.9)."""

from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from tests.contract.client import Api, step


def noop(block_id: str, **fields: Any) -> dict[str, Any]:
    return step(block_id, "noop", **fields)


def done(api: Api, **fields: Any) -> str:
    instance_id = api.start(noop("a"), noop("b"), noop("c"), **fields)
    api.run_builtins()
    assert api.state(instance_id) == "completed"
    return instance_id


def rows(api: Api, instance_id: str) -> list[str]:
    return [row["block_id"] for row in api.outputs(instance_id)]


# -- resume-from -----------------------------------------------------------------------------------------------------


def resume(api: Api, instance_id: str, block_id: str, **body: Any) -> Any:
    return api.http.post(f"/instances/{instance_id}/resume-from/{block_id}", **body)


@pytest.mark.needs_own_server("nobody may run its steps in between")
@pytest.mark.parametrize("body", [{}, {"json": {}}, {"json": {"context": None, "signals": None}}])
def test_api_10_5_resume_answers_with_what_it_dropped(api: Api, body: dict[str, Any]):
    instance_id = done(api)
    first = api.outputs(instance_id)[0]
    answer = resume(api, instance_id, "b", **body)
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "id": instance_id,
            "state": "scheduled",
            "resumed_from": "b",
            "outputs_deleted": 2,
            "signals_enqueued": 0,
        },
    )
    assert api.outputs(instance_id) == [first]
    api.run_builtins()
    assert (api.state(instance_id), rows(api, instance_id)) == ("completed", ["a", "b", "c"])
    assert api.outputs(instance_id)[0] == first


def test_s2_3_resume_finds_a_block_whatever_its_id(api: Api):
    instance_id = api.start(noop("a"), noop("päy/2 %"))
    api.run_builtins()
    answer = resume(api, instance_id, quote("päy/2 %", safe=""))
    assert (answer.status_code, answer.json()["resumed_from"]) == (200, "päy/2 %")


def test_api_10_5_resume_merges_the_context_and_delivers_the_signals_first(api: Api):
    instance_id = api.start(noop("a"), noop("b", when="n == 3"), data={"n": 1, "m": 1})
    api.run_builtins()
    assert api.states(instance_id)["b"] == "skipped"
    update = {"signal_type": "update_context", "payload": {"data": {"n": 3}}}
    answer = resume(api, instance_id, "b", json={"context": {"n": 2, "k": 2}, "signals": [update]})
    assert answer.json()["signals_enqueued"] == 1
    api.run_builtins()
    assert api.states(instance_id)["b"] == "completed"
    assert api.instance(instance_id)["context"]["data"] == {"n": 3, "m": 1, "k": 2}


def test_api_10_5_resume_takes_paused_failed_completed_and_cancelled_flows_only(api: Api):
    failed = api.start(step("a", "fail"))
    completed = api.start(noop("a"))
    api.run_builtins()
    paused = api.start(noop("a"), next_fire_at="2099-01-01T00:00:00Z")
    api.signal(paused, "pause")
    cancelled, living = api.start(step("a")), api.start(step("a"))
    api.signal(cancelled, "cancel")
    for instance_id in (failed, completed, paused, cancelled):
        assert resume(api, instance_id, "a").status_code == 200
    answer = resume(api, living, "a")
    reason = "can only resume failed, paused, completed or cancelled instances, current state: waiting"
    assert (answer.status_code, answer.json()) == (400, {"error": f"invalid argument: {reason}"})


def test_api_10_5_resume_at_a_block_inside_another_or_at_none_is_400(api: Api):
    instance_id = api.start({"type": "parallel", "id": "p", "branches": [[noop("x")]]})
    api.run_builtins()
    for block_id in ("x", "nobody"):
        answer = resume(api, instance_id, block_id)
        reason = f"invalid argument: block `{block_id}` is not a root block of the instance"
        assert (answer.status_code, answer.json()) == (400, {"error": reason})
    assert (api.state(instance_id), rows(api, instance_id)) == ("completed", ["x"])


def test_api_10_5_resume_of_an_unknown_or_foreign_flow_is_404(api: Api):
    instance_id = done(api)
    assert resume(api, str(uuid4()), "a").status_code == 404
    assert resume(api, instance_id, "a", headers={"X-Tenant-Id": "other"}).status_code == 404


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"context": 7}, 422),
        ({"signals": {}}, 422),
        ({"signals": [7]}, 422),
        ({"signals": [{"payload": 1}]}, 422),
        ({"signals": [{"signal_type": "explode"}]}, 422),
        ([], 422),
        ({"context": {"big": "x" * 300_000}}, 413),
    ],
)
def test_api_10_5_bad_resumes_are_refused_and_change_nothing(api: Api, body: Any, status: int):
    instance_id = done(api)
    assert resume(api, instance_id, "a", json=body).status_code == status
    assert (api.state(instance_id), rows(api, instance_id)) == ("completed", ["a", "b", "c"])


# -- fork ------------------------------------------------------------------------------------------------------------


def fork(api: Api, instance_id: str, **body: Any) -> Any:
    return api.http.post(f"/instances/{instance_id}/fork", json=body)


def test_api_10_5_fork_answers_with_what_it_copied_and_runs_the_rest_dry(api: Api):
    instance_id = api.start(noop("a"), step("w"), noop("c"), metadata={"mine": 1}, data={"n": 1})
    api.run_builtins()
    api.complete({"m": 1})
    api.run_builtins()
    source, before = api.instance(instance_id), api.outputs(instance_id)
    answer = fork(api, instance_id, from_block_id="w", context={"n": 2})
    copy = answer.json()["id"]
    assert (answer.status_code, answer.json()) == (
        201,
        {
            "id": copy,
            "forked_from": instance_id,
            "state": "scheduled",
            "copied_blocks": ["a"],
            "rerun_blocks": ["w", "c"],
            "dry_run": True,
        },
    )
    api.run_builtins()
    assert api.poll() == []
    forked = api.instance(copy)
    assert forked["state"] == "completed"
    assert forked["sequence_id"] == source["sequence_id"]
    assert forked["metadata"] == {"mine": 1, "forked_from": instance_id, "forked_at_block": "w", "sandbox": True}
    assert forked["context"]["data"] == {"n": 2, "m": 1}
    assert forked["context"]["runtime"]["dry_run"] is True
    assert forked["parent_instance_id"] is None
    rows = api.outputs(copy)
    assert [row["block_id"] for row in rows] == ["a", "w", "c"]
    assert rows[1]["output"] == {"dry_run": True, "handler": "outside", "would": {"params": None}}
    assert rows[0] == {**before[0], "id": rows[0]["id"], "instance_id": copy}
    assert rows[0]["id"] != before[0]["id"]
    assert (api.instance(instance_id), api.outputs(instance_id)) == (source, before)
    assert {each["id"] for each in api.http.get("/instances").json()["items"]} >= {copy, instance_id}


def test_api_10_5_fork_that_is_no_dry_run_asks_its_workers(api: Api):
    instance_id = api.start(noop("a"), step("w"))
    api.run_builtins()
    answer = fork(api, instance_id, from_block_id="w", dry_run=False, signals=[])
    assert (answer.status_code, answer.json()["dry_run"]) == (201, False)
    assert {task["instance_id"] for task in api.poll(limit=9)} == {instance_id, answer.json()["id"]}
    metadata = api.instance(answer.json()["id"])["metadata"]
    assert metadata == {"forked_from": instance_id, "forked_at_block": "w", "sandbox": False}


def test_api_10_5_fork_delivers_its_signals_first(api: Api):
    update = {"signal_type": "update_context", "payload": {"data": {"n": 3}}}
    answer = fork(api, done(api), from_block_id="b", signals=[update, {"signal_type": "pause"}])
    assert answer.json()["state"] == "paused"
    paused = api.instance(answer.json()["id"])
    assert (paused["state"], paused["context"]["data"]) == ("paused", {"n": 3})


def test_api_10_5_fork_keeps_no_idempotency_key_of_its_source(api: Api):
    instance_id = done(api, idempotency_key="k")
    copy = fork(api, instance_id, from_block_id="a").json()["id"]
    assert api.instance(copy)["idempotency_key"] is None
    assert api.instance(instance_id)["idempotency_key"] == "k"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"from_block_id": 7}, 422),
        ({"from_block_id": "a", "dry_run": "no"}, 422),
        ({"from_block_id": "a", "context": []}, 422),
        ({"from_block_id": "a", "signals": [{"signal_type": "explode"}]}, 422),
        ({"from_block_id": "nobody"}, 400),
        ({"from_block_id": "a", "context": {"big": "x" * 300_000}}, 413),
    ],
)
def test_api_10_5_bad_forks_are_refused_and_make_nothing(api: Api, body: Any, status: int):
    instance_id = done(api)
    before = len(api.http.get("/instances").json()["items"])
    assert fork(api, instance_id, **body).status_code == status
    assert len(api.http.get("/instances").json()["items"]) == before


def test_api_10_5_fork_of_an_unknown_or_foreign_flow_is_404(api: Api):
    body = {"from_block_id": "a"}
    assert fork(api, str(uuid4()), **body).status_code == 404
    path = f"/instances/{done(api)}/fork"
    assert api.http.post(path, json=body, headers={"X-Tenant-Id": "other"}).status_code == 404
