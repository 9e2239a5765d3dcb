"""Correlation events over HTTP (contract, api §21)."""

from uuid import uuid4

import pytest

from tests.contract.client import TENANT, Api

OTHER = {"X-Tenant-Id": "other"}
NAMES = {"tenant_id": TENANT, "event_name": "paid", "producer_event_id": "e1", "correlation_key": "order-1"}


def test_api_21_event_is_stored_once(api: Api):
    first = api.http.post("/events", json={**NAMES, "payload": {"a": 1}})
    event_id = first.json()["event_id"]
    assert (first.status_code, first.json()) == (201, {"event_id": event_id, "duplicate": False, "satisfied": False})
    again = api.http.post("/events", json={**NAMES, "event_name": "other"})
    assert (again.status_code, again.json()) == (200, {"event_id": event_id, "duplicate": True, "satisfied": False})
    stored = api.http.get(f"/events/{event_id}").json()
    assert stored == {
        "event_id": event_id,
        **NAMES,
        "payload": {"a": 1},
        "status": "pending",
        "created_at": stored["created_at"],
    }
    assert api.http.get("/events").json() == [stored]
    assert api.http.get(f"/events/{uuid4()}").status_code == 404
    assert api.http.get("/events/x").status_code == 400


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"tenant_id": ""}, 400),
        ({"event_name": " "}, 400),
        ({"producer_event_id": ""}, 400),
        ({"correlation_key": ""}, 400),
        ({"correlation_key": "k" * 256}, 400),
        ({"event_name": None}, 422),
        ({"correlation_key": 1}, 422),
        ({"tenant_id": "other"}, 403),
    ],
)
def test_api_21_event_is_refused_alone_and_in_a_batch(api: Api, fields, status: int):
    good, bad = {**NAMES, "producer_event_id": "good"}, {**NAMES, **fields}
    assert api.http.post("/events", json=bad).status_code == status
    assert api.http.post("/events/batch", json={"events": [good, bad]}).status_code == status
    assert api.http.get("/events").json() == []


def test_api_21_batch_tells_of_each_in_order(api: Api):
    known = api.http.post("/events", json=NAMES).json()["event_id"]
    batch = [{**NAMES, "producer_event_id": each} for each in ("e2", "e1", "e2")]
    answer = api.http.post("/events/batch", json={"events": batch})
    outcomes = answer.json()["outcomes"]
    assert (answer.status_code, [each["duplicate"] for each in outcomes]) == (200, [False, True, True])
    assert (outcomes[1]["event_id"], outcomes[2]["event_id"]) == (known, outcomes[0]["event_id"])
    for events in ([], [NAMES] * 101):
        assert api.http.post("/events/batch", json={"events": events}).status_code == 400
    for body in ({}, {"events": 1}, {"events": [1]}, []):
        assert api.http.post("/events/batch", json=body).status_code == 422


def test_api_21_events_are_listed_newest_first_and_filtered(api: Api):
    for number in range(3):
        api.http.post("/events", json={**NAMES, "producer_event_id": str(number), "correlation_key": f"k{number % 2}"})
    read = lambda **query: [each["producer_event_id"] for each in api.http.get("/events", params=query).json()]  # noqa: E731
    assert (read(), read(limit=1, offset=1), read(correlation_key="k0")) == (["2", "1", "0"], ["1"], ["2", "0"])
    assert (len(read(status="pending")), read(status="consumed"), read(event_name="x")) == (3, [], [])
    assert api.http.get("/events", params={"status": "x"}).status_code == 400


def test_api_21_events_are_their_tenants_own(api: Api):
    event_id = api.http.post("/events", json=NAMES).json()["event_id"]
    assert api.http.get(f"/events/{event_id}", headers=OTHER).status_code == 404
    assert api.http.get("/events", params={"tenant_id": TENANT}, headers=OTHER).json() == []
    assert api.http.post("/events", json={**NAMES, "tenant_id": "other"}, headers=OTHER).status_code == 201
