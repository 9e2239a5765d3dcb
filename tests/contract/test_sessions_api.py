"""Sessions and checkpoints over HTTP (contract, api §17.1, §20.7, §10.6)."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest

from tests.contract.client import TENANT, Api, step

PAST, LATER = "2020-01-01T00:00:00Z", "2099-01-01T00:00:00Z"
TOO_MUCH = "x" * 262_145


def make(api: Api, key: str = "k", **fields):
    answer = api.http.post("/sessions", json={"tenant_id": TENANT, "session_key": key, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


# -- §17.1 -----------------------------------------------------------------------------------------------------------


def test_api_17_1_session_is_made_and_found_by_id_and_key(api: Api):
    session = make(api, "user/1 ü", data={"a": [1]}, expires_at=LATER)
    assert list(session) == [
        "id",
        "tenant_id",
        "session_key",
        "data",
        "state",
        "created_at",
        "updated_at",
        "expires_at",
    ]
    assert (session["data"], session["state"], session["expires_at"]) == ({"a": [1]}, "active", LATER)
    assert api.http.get(f"/sessions/{session['id']}").json() == session
    assert api.http.get(f"/sessions/by-key/{TENANT}/user/1%20%C3%BC").json() == session
    plain = make(api, "plain")
    assert (plain["data"], "expires_at" in plain) == (None, False)


def test_api_17_1_key_is_unique_in_its_tenant(api: Api):
    make(api, "k")
    answer = api.http.post("/sessions", json={"tenant_id": TENANT, "session_key": "k"})
    assert (answer.status_code, answer.json()["error"]) == (409, "already exists: session 'k'")
    other = {"X-Tenant-Id": "other"}
    body = {"tenant_id": "other", "session_key": "k"}
    assert api.http.post("/sessions", json=body, headers=other).status_code == 201


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"tenant_id": TENANT, "session_key": ""}, 400),
        ({"tenant_id": TENANT, "session_key": "k" * 513}, 400),
        ({"tenant_id": TENANT}, 422),
        ({"session_key": "k"}, 422),
        ({"tenant_id": TENANT, "session_key": 1}, 422),
        ({"tenant_id": "other", "session_key": "k"}, 403),
        ({"tenant_id": TENANT, "session_key": "k", "data": TOO_MUCH}, 413),
        ({"tenant_id": TENANT, "session_key": "k", "expires_at": "soon"}, 422),
    ],
)
def test_api_17_1_session_is_refused(api: Api, body, status: int):
    assert api.http.post("/sessions", json=body).status_code == status


def test_api_17_1_longest_key_is_fine(api: Api):
    assert make(api, "k" * 512)["session_key"] == "k" * 512


def test_api_17_1_unknown_and_foreign_sessions_are_404(api: Api):
    session = make(api)
    foreign = {"X-Tenant-Id": "other"}
    for session_id, headers in ((str(uuid4()), {}), (session["id"], foreign)):
        path = f"/sessions/{session_id}"
        answers = [
            api.http.get(path, headers=headers),
            api.http.patch(f"{path}/data", json={"data": 1}, headers=headers),
            api.http.patch(f"{path}/state", json={"state": "paused"}, headers=headers),
            api.http.get(f"{path}/instances", headers=headers),
            api.http.post(f"{path}/cancel", headers=headers),
        ]
        assert [answer.status_code for answer in answers] == [404] * 5
        assert answers[0].json() == {"error": f"not found: session {session_id}"}
    assert api.http.get(f"/sessions/by-key/{TENANT}/none").status_code == 404
    assert api.http.get(f"/sessions/by-key/{TENANT}/k", headers=foreign).status_code == 404
    assert api.http.get(f"/sessions/by-key/{TENANT}/{'k' * 513}").status_code == 400
    assert api.http.get(f"/sessions/by-key/{'t' * 129}/k").status_code == 400


def test_api_17_1_data_and_state_are_replaced(api: Api):
    session = make(api, data={"a": 1})
    path = f"/sessions/{session['id']}"
    answer = api.http.patch(f"{path}/data", json={"data": [2]})
    assert (answer.status_code, answer.content) == (200, b"")
    assert api.http.patch(f"{path}/data", json={"data": TOO_MUCH}).status_code == 413
    assert api.http.patch(f"{path}/data", json={}).status_code == 422
    assert api.http.patch(f"{path}/state", json={"state": "gone"}).status_code == 422
    answer = api.http.patch(f"{path}/state", json={"state": "completed"})
    assert (answer.status_code, answer.content) == (200, b"")
    now = api.http.get(path).json()
    assert (now["data"], now["state"]) == ([2], "completed")


def test_api_17_1_instances_of_a_session_are_listed(api: Api):
    session, empty = make(api), make(api, "empty")
    sequence = api.sequence(step("a"))
    by_id = api.start_of(sequence, session_id=session["id"])
    by_key = api.start_of(sequence, session_key="k")
    api.start_of(sequence)
    listed = api.http.get(f"/sessions/{session['id']}/instances").json()
    assert {each["id"] for each in listed} == {by_id, by_key}
    assert {each["session_id"] for each in listed} == {session["id"]}
    assert api.http.get(f"/sessions/{empty['id']}/instances").json() == []


# -- binding, §20.7 --------------------------------------------------------------------------------------------------


def test_api_20_7_unknown_session_is_404_and_one_that_is_not_active_400(api: Api):
    sequence = api.sequence(step("a"))
    assert api.http.post("/instances", json=api.body(sequence, session_key="none")).status_code == 404
    session = make(api)
    api.http.patch(f"/sessions/{session['id']}/state", json={"state": "paused"})
    answer = api.http.post("/instances", json=api.body(sequence, session_key="k"))
    assert (answer.status_code, answer.json()["error"]) == (
        400,
        f"invalid argument: session {session['id']} is not active, its state: paused",
    )
    batch = {"instances": [api.body(sequence), api.body(sequence, session_id=session["id"])]}
    assert api.http.post("/instances/batch", json=batch).status_code == 400
    assert api.http.get("/instances").json()["items"] == []


def test_api_20_7_session_whose_time_has_passed_is_expired(api: Api):
    session = make(api, expires_at=PAST)
    body = api.body(api.sequence(step("a")), session_id=session["id"])
    assert api.http.post("/instances", json=body).status_code == 400
    assert api.http.get(f"/sessions/{session['id']}").json()["state"] == "expired"


def test_api_20_7_task_shows_the_session_and_merges_into_it(api: Api):
    session = make(api, data={"n": 1})
    bound = api.start(step("a", params={"n": "{{ session.n }}"}), session_id=session["id"])
    (task,) = api.poll()
    assert (task["context"]["session"], task["params"]) == ({"n": 1}, {"n": 1})
    api.report(task, "complete", output={"ok": True, "_session": {"m": 2}})
    assert api.http.get(f"/sessions/{session['id']}").json()["data"] == {"n": 1, "m": 2}
    assert api.instance(bound)["context"]["data"] == {"ok": True}
    api.start(step("a"))
    assert "session" not in api.poll()[0]["context"]


def test_api_20_7_cancel_ends_what_has_not_ended(api: Api):
    session = make(api)
    sequence = api.sequence(step("a"))
    done = api.start_of(sequence, session_key="k")
    api.complete({})
    going = [api.start_of(sequence, session_key="k") for _ in range(3)]
    path = f"/sessions/{session['id']}/cancel"
    answer = api.http.post(path)
    assert (answer.status_code, answer.json()) == (200, {"count": 3})
    assert [api.state(i) for i in going] == ["cancelled"] * 3
    assert api.state(done) == "completed"
    assert api.http.post(path).json() == {"count": 0}


# -- §10.6 -----------------------------------------------------------------------------------------------------------


def test_api_10_6_checkpoints_are_kept_listed_and_pruned(api: Api):
    instance = api.start(step("a"))
    path = f"/instances/{instance}/checkpoints"
    assert (api.http.get(path).json(), api.http.get(f"{path}/latest").status_code) == ([], 404)
    ids = []
    for data in ({"n": 1}, None, [3]):
        answer = api.http.post(path, json={"checkpoint_data": data})
        assert (answer.status_code, list(answer.json())) == (201, ["id"])
        ids.append(answer.json()["id"])
    api.complete({})
    listed = api.http.get(path).json()
    assert [each["id"] for each in listed] == ids[::-1]
    assert [each["checkpoint_data"] for each in listed] == [[3], None, {"n": 1}]
    assert list(listed[0]) == ["id", "instance_id", "checkpoint_data", "created_at"]
    assert datetime.fromisoformat(listed[0]["created_at"]) <= datetime.now(UTC)
    assert api.http.get(f"{path}/latest").json() == listed[0]
    assert api.http.post(f"{path}/prune", json={"keep": 1}).json() == {"count": 2}
    assert [each["id"] for each in api.http.get(path).json()] == ids[2:]
    assert api.http.post(f"{path}/prune", json={"keep": 0}).json() == {"count": 1}
    assert api.http.get(f"{path}/latest").status_code == 404


def test_api_10_6_refusals(api: Api):
    instance = api.start(step("a"))
    for instance_id, headers in ((str(uuid4()), {}), (instance, {"X-Tenant-Id": "other"})):
        path = f"/instances/{instance_id}/checkpoints"
        answers = [
            api.http.post(path, json={"checkpoint_data": 1}, headers=headers),
            api.http.get(path, headers=headers),
            api.http.get(f"{path}/latest", headers=headers),
            api.http.post(f"{path}/prune", json={"keep": 1}, headers=headers),
        ]
        assert [answer.status_code for answer in answers] == [404] * 4
    path = f"/instances/{instance}/checkpoints"
    assert api.http.post(path, json={}).status_code == 422
    assert api.http.post(path, json={"checkpoint_data": TOO_MUCH}).status_code == 413
    for body in ({}, {"keep": -1}, {"keep": "1"}):
        assert api.http.post(f"{path}/prune", json=body).status_code == 422


# -- context ---------------------------------------------------------------------------------------------------------


def test_api_10_1_audit_entries_come_back_and_are_never_changed(api: Api):
    entry = {"timestamp": "2026-01-01T00:00:00Z", "event": "made", "details": {"by": "me"}}
    context = {"data": {"a": 1}, "audit": [entry], "runtime": {"attempt": 7, "run_id": str(uuid4()), "dry_run": True}}
    instance = api.start_of(api.sequence(step("a")), context=context)
    shown = api.instance(instance)["context"]
    assert (shown["audit"], shown["runtime"]["attempt"], shown["runtime"]["dry_run"]) == ([entry], 0, False)
    assert api.poll()[0]["context"]["audit"] == [entry]
    changed = {"context": {"data": {"b": 2}, "audit": [], "runtime": {"attempt": 9}}}
    assert api.http.patch(f"/instances/{instance}/context", json=changed).status_code == 200
    shown = api.instance(instance)["context"]
    assert (shown["data"], shown["audit"], shown["runtime"]["attempt"]) == ({"b": 2}, [entry], 0)


def test_api_11_1_signal_that_would_make_the_context_too_large_is_413(api: Api):
    instance = api.start(step("a"))
    answer = api.signal(instance, "update_context", {"data": {"x": TOO_MUCH}})
    assert (answer.status_code, answer.json()["error"].split(":")[0]) == (413, "payload too large")
