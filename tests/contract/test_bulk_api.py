"""Operations on many instances, lists and timelines over HTTP (contract, api §10.4, §10.7)."""

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from tests.contract.client import TENANT, Api, step

LATER = "2099-01-01T00:00:00Z"
OTHER = {"X-Tenant-Id": "other"}


def bulk(api: Api, verb: str, **body):
    method = "POST" if verb == "batch-action" else "PATCH"
    path = "/instances/batch-action" if verb == "batch-action" else f"/instances/bulk/{verb}"
    answer = api.http.request(method, path, json={"filter": {}, **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def audit(api: Api, instance: str):
    return api.http.get(f"/instances/{instance}/audit").json()


# -- bulk state ------------------------------------------------------------------------------------------------------


def test_api_10_7_bulk_state_ends_work_in_progress(api: Api):
    sequence = api.sequence(step("a"))
    waiting = [api.start_of(sequence, metadata={"group": "g"}) for _ in range(3)]
    other = api.start_of(sequence, metadata={"group": "h"})
    (task, *_) = api.poll()
    assert bulk(api, "state", filter={"metadata": {"group": "g"}}, state="cancelled") == {"count": 3}
    assert [api.state(i) for i in waiting] == ["cancelled"] * 3
    assert api.state(other) == "waiting"
    assert api.report(task, "complete", output={}).status_code == 200
    assert [each["instance_id"] for each in api.poll(limit=9)] == [other]


def test_api_10_7_bulk_state_sets_ended_instances_too_unless_states_exclude_them(api: Api):
    sequence = api.sequence(step("a"))
    done, waiting = api.start_of(sequence), api.start_of(sequence)
    (task,) = api.poll()
    assert task["instance_id"] == done
    api.report(task, "complete", output={})
    assert bulk(api, "state", filter={"sequence_id": sequence, "states": ["waiting"]}, state="failed") == {"count": 1}
    assert (api.state(done), api.state(waiting)) == ("completed", "failed")
    assert bulk(api, "state", filter={"sequence_id": sequence}, state="failed") == {"count": 2}
    assert api.state(done) == "failed"
    assert bulk(api, "state", filter={"sequence_id": sequence}, state="scheduled") == {"count": 2}
    assert (api.state(done), api.state(waiting)) == ("completed", "waiting")
    assert bulk(api, "state", filter={"namespace": "nowhere"}, state="paused") == {"count": 0}


def test_api_10_7_more_instances_than_one_transaction_locks(api: Api):
    sequence = api.sequence(step("a"))
    batch = {"instances": [api.body(sequence) for _ in range(230)]}
    assert api.http.post("/instances/batch", json=batch).status_code == 201
    assert bulk(api, "state", filter={"sequence_id": sequence}, state="paused") == {"count": 230}
    assert api.poll() == []
    assert bulk(api, "batch-action", action="cancel", limit=150)["applied"] == 150
    assert bulk(api, "batch-action", action="cancel", filter={"states": ["paused"]})["applied"] == 80


@pytest.mark.parametrize(
    ("verb", "body", "status"),
    [
        ("state", {"filter": {}}, 422),
        ("state", {"state": "paused"}, 422),
        ("state", {"filter": {}, "state": "asleep"}, 422),
        ("state", {"filter": {"states": ["asleep"]}, "state": "paused"}, 422),
        ("state", {"filter": {"sequence_id": "x"}, "state": "paused"}, 422),
        ("reschedule", {"filter": {}}, 422),
        ("reschedule", {"filter": {}, "offset_secs": "1"}, 422),
        ("reschedule", {"filter": {}, "offset_secs": 10**12}, 400),
        ("batch-action", {"filter": {}}, 422),
        ("batch-action", {"filter": {}, "action": "explode"}, 422),
        ("batch-action", {"filter": {}, "action": "signal"}, 400),
        ("batch-action", {"filter": {}, "action": "signal", "signal_type": "shout"}, 422),
        ("batch-action", {"filter": {}, "action": "retry", "limit": 0}, 400),
        ("batch-action", {"filter": {}, "action": "retry", "limit": 10_001}, 400),
    ],
)
def test_api_10_7_refusals(api: Api, verb: str, body, status: int):
    method, path = ("POST", "batch-action") if verb == "batch-action" else ("PATCH", f"bulk/{verb}")
    assert api.http.request(method, f"/instances/{path}", json=body).status_code == status


def test_api_10_7_a_tenant_is_needed_and_foreign_instances_are_not_touched(api: Api):
    mine = api.start(step("a"))
    body = {"filter": {"tenant_id": TENANT}, "state": "cancelled"}
    answer = api.http.patch("/instances/bulk/state", json=body, headers=OTHER)
    assert (answer.json(), api.state(mine)) == ({"count": 0}, "waiting")


# -- bulk reschedule -------------------------------------------------------------------------------------------------


def test_api_10_7_reschedule_shifts_scheduled_instances_only(api: Api):
    sequence = api.sequence(step("a"))
    future = api.start_of(sequence, next_fire_at=LATER)
    waiting = api.start_of(sequence)
    delayed = api.start(step("d", "noop", delay={"duration": 3_600_000}))
    before = datetime.fromisoformat(api.instance(delayed)["next_fire_at"])
    assert bulk(api, "reschedule", offset_secs=3600) == {"count": 2}
    assert api.instance(future)["next_fire_at"] == "2099-01-01T01:00:00Z"
    assert datetime.fromisoformat(api.instance(delayed)["next_fire_at"]) == before + timedelta(hours=1)
    assert api.instance(waiting)["next_fire_at"] is None
    assert bulk(api, "reschedule", offset_secs=-7200, filter={"states": ["waiting"]}) == {"count": 0}
    assert bulk(api, "reschedule", offset_secs=-3 * 3600) == {"count": 2}
    assert datetime.fromisoformat(api.instance(delayed)["next_fire_at"]) < datetime.now(UTC)


# -- batch action ----------------------------------------------------------------------------------------------------


def test_api_10_7_batch_action_tells_what_it_came_to(api: Api):
    sequence = api.sequence(step("a"))
    failed, waiting = api.start_of(sequence), api.start_of(sequence)
    (task,) = api.poll()
    api.report(task, "fail", message="x")
    assert task["instance_id"] == failed
    which = {"sequence_id": sequence}
    result = {"matched": 2, "applied": 0, "skipped": 0, "failed": 0, "dry_run": True}
    assert bulk(api, "batch-action", filter=which, action="retry", dry_run=True) == result
    rows = len(audit(api, failed))
    result = {"matched": 2, "applied": 1, "skipped": 1, "failed": 0, "dry_run": False}
    assert bulk(api, "batch-action", filter=which, action="retry") == result
    assert (api.state(failed), api.state(waiting)) == ("waiting", "waiting")
    noted = [row for row in audit(api, failed) if row["event_type"] == "batch_action"]
    assert [(row["details"], row["from_state"], "to_state" in row) for row in noted] == [
        ({"action": "retry"}, "failed", False)
    ]
    assert len(audit(api, failed)) > rows
    assert not [row for row in audit(api, waiting) if row["event_type"] == "batch_action"]


@pytest.mark.needs_own_server("nobody may run its steps in between")
def test_api_10_7_batch_signals(api: Api):
    sequence = api.sequence(step("g", "noop", wait_for_input={}))
    ids = [api.start_of(sequence) for _ in range(2)]
    signal = {"signal_type": {"custom": "human_input:g"}, "payload": {"value": "yes"}}
    assert bulk(api, "batch-action", action="signal", **signal, limit=1)["applied"] == 1
    assert api.http.get("/approvals").json()["total"] == 1
    assert bulk(api, "batch-action", action="signal", **signal)["applied"] == 2
    api.run_builtins()
    assert [api.state(i) for i in ids] == ["completed"] * 2
    sleeping = api.start(step("d", "noop", delay={"duration": 60_000}))
    assert bulk(api, "batch-action", action="pause")["applied"] == 1
    assert api.state(sleeping) == "paused"
    assert bulk(api, "batch-action", action="resume", filter={"states": ["paused"]})["applied"] == 1
    assert api.state(sleeping) == "scheduled"


# -- lists, timeline -------------------------------------------------------------------------------------------------


def test_api_10_4_list_mixes_ended_and_open_instances_by_their_last_change(api: Api):
    sequence = api.sequence(step("a"))
    ids = [api.start_of(sequence) for _ in range(6)]
    for task in api.poll(limit=3):
        api.report(task, "complete", output={})
    api.signal(ids[4], "update_context", {"data": {}})
    api.http.patch(f"/instances/{ids[1]}/context", json={"context": {}})
    listed = api.http.get("/instances").json()["items"]
    assert [each["id"] for each in listed] == [ids[i] for i in (1, 4, 2, 0, 5, 3)]
    assert [each["updated_at"] for each in listed] == sorted((each["updated_at"] for each in listed), reverse=True)
    pages = [api.http.get("/instances", params={"offset": o, "limit": 4}).json() for o in (0, 4)]
    assert [each["id"] for page in pages for each in page["items"]] == [each["id"] for each in listed]
    assert [page["has_more"] for page in pages] == [True, False]


def test_api_10_4_timeline_gives_moves_and_rows(api: Api):
    instance = api.start(step("a"), step("b", "fail"))
    api.complete({"n": 1})
    api.run_builtins()
    timeline = api.http.get(f"/instances/{instance}/timeline").json()
    assert list(timeline) == ["instance", "state_transitions", "entries", "offset", "limit", "has_more"]
    assert timeline["instance"] == api.instance(instance)
    assert timeline["state_transitions"] == audit(api, instance)[::-1]
    assert [(e["block_id"], e["attempt"], e["is_sentinel"]) for e in timeline["entries"]] == [
        ("a", 0, False),
        ("b", 0, True),
    ]
    assert "output" not in timeline["entries"][0]
    assert timeline["entries"][1]["output_ref"] == "__error__"
    assert (timeline["offset"], timeline["limit"], timeline["has_more"]) == (0, 200, False)
    page = api.http.get(f"/instances/{instance}/timeline", params={"limit": 1, "include_outputs": "true"}).json()
    assert (page["entries"][0]["output"], page["has_more"]) == ({"n": 1}, True)


def test_api_10_4_timeline_of_nobody_is_404(api: Api):
    instance = api.start(step("a"))
    assert api.http.get(f"/instances/{uuid4()}/timeline").status_code == 404
    assert api.http.get(f"/instances/{instance}/timeline", headers=OTHER).status_code == 404


def test_api_10_7_bulk_operations_hold_a_page_of_instances_at_once(api: Api, monkeypatch: pytest.MonkeyPatch):
    """What a page has changed matches no more; the next page goes on behind it, and nothing is met twice."""
    monkeypatch.setattr("orchestrator.api.bulk.PAGE", 2)
    sequence, target = api.sequence(step("a")), api.sequence(step("a"), step("b"))
    ids = [api.start_of(sequence, metadata={"group": "paged"}) for _ in range(5)]
    which = {"metadata": {"group": "paged"}, "states": ["waiting"]}
    assert bulk(api, "batch-action", filter=which, action="cancel", dry_run=True)["matched"] == 5
    assert bulk(api, "batch-action", filter=which, action="cancel", limit=3)["applied"] == 3
    answer = api.http.post(
        "/sequences/migrate-instances", json={"filter": {"sequence_id": sequence}, "target_sequence_id": target}
    )
    assert answer.json() == {"matched": 5, "migrated": 2, "skipped": 3, "failed": 0}
    assert bulk(api, "state", filter=which, state="cancelled") == {"count": 2}
    assert {api.state(instance) for instance in ids} == {"cancelled"}


@pytest.mark.parametrize("state", ["paused", "waiting"])
def test_api_10_7_a_flow_that_ended_before_it_began_goes_on_after_bulk_state_and_resume(api: Api, state: str):
    instance = api.start(step("a", "noop"), next_fire_at="2099-01-01T00:00:00Z")
    api.signal(instance, "cancel")
    answer = api.http.patch("/instances/bulk/state", json={"filter": {"tenant_id": TENANT}, "state": state})
    assert (answer.json()["count"], api.state(instance)) == (1, state)
    api.signal(instance, "resume")
    api.run_builtins()
    assert api.state(instance) == "completed"
