"""Resource pools over HTTP (contract, api §17.2; sequences §13.5)."""

from uuid import uuid4

import pytest

from tests.contract.client import TENANT, Api

OTHER = {"X-Tenant-Id": "other"}


def pool(api: Api, name: str = "senders", **fields):
    answer = api.http.post("/pools", json={"tenant_id": TENANT, "name": name, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def resource(api: Api, pool_id: str, **fields):
    body = {"resource_key": "a@x", "name": "A", **fields}
    answer = api.http.post(f"/pools/{pool_id}/resources", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_api_17_2_pool_is_made_read_listed_and_removed(api: Api):
    made = pool(api, "Ü 1", round_robin_index=9, id="x")
    assert list(made) == ["id", "tenant_id", "name", "strategy", "round_robin_index", "created_at", "updated_at"]
    assert (made["strategy"], made["round_robin_index"]) == ("round_robin", 0)
    second = pool(api, "b", strategy="weighted")
    assert api.http.get(f"/pools/{made['id']}").json() == made
    assert api.http.get("/pools", params={"tenant_id": "other"}).json() == [made, second]
    assert api.http.get("/pools", params={"limit": 1, "offset": 1}).json() == [second]
    kept = resource(api, second["id"])
    resource(api, made["id"])
    assert api.http.delete(f"/pools/{made['id']}").status_code == 204
    for path in ("", "/resources"):
        assert api.http.get(f"/pools/{made['id']}{path}").status_code == 404
    answer = api.http.delete(f"/pools/{made['id']}")
    assert (answer.status_code, answer.json()["error"]) == (404, f"not found: pool {made['id']}")
    assert api.http.get(f"/pools/{second['id']}/resources").json() == [kept]


def test_api_17_2_name_is_unique_in_its_tenant(api: Api):
    pool(api, "p")
    answer = api.http.post("/pools", json={"tenant_id": TENANT, "name": "p", "strategy": "random"})
    assert (answer.status_code, answer.json()["error"]) == (409, "already exists: pool 'p'")
    assert api.http.post("/pools", json={"tenant_id": "other", "name": "p"}, headers=OTHER).status_code == 201


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"tenant_id": TENANT, "name": "p", "strategy": "best"}, 422),
        ({"tenant_id": TENANT, "name": "p", "strategy": None}, 422),
        ({"tenant_id": TENANT, "name": 1}, 422),
        ({"tenant_id": TENANT}, 422),
        ({"name": "p"}, 422),
        ({"tenant_id": " ", "name": "p"}, 422),
        ({"tenant_id": "other", "name": "p"}, 403),
        ({"tenant_id": TENANT, "name": " "}, 400),
        ({"tenant_id": TENANT, "name": "p" * 256}, 400),
        ({"tenant_id": TENANT, "name": "p\0"}, 400),
    ],
)
def test_api_17_2_pool_is_refused(api: Api, body, status: int):
    assert api.http.post("/pools", json=body).status_code == status
    assert api.http.get("/pools").json() == []


def test_api_17_2_resource_has_defaults_and_may_share_its_key(api: Api):
    made = pool(api)
    first, second = resource(api, made["id"], enabled=False), resource(api, made["id"], warmup_start="2026-02-28")
    assert first == {
        "id": first["id"],
        "pool_id": made["id"],
        "resource_key": "a@x",
        "name": "A",
        "weight": 1,
        "enabled": True,
        "daily_cap": 0,
        "daily_usage": 0,
        "daily_usage_date": None,
        "warmup_start": None,
        "warmup_days": 0,
        "warmup_start_cap": 0,
        "created_at": first["created_at"],
    }
    assert second["warmup_start"] == "2026-02-28"
    assert api.http.get(f"/pools/{made['id']}/resources").json() == [first, second]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"resource_key": ""}, 400),
        ({"resource_key": "k" * 256}, 400),
        ({"name": ""}, 400),
        ({"name": "n" * 256}, 400),
        ({"weight": 0}, 400),
        ({"weight": -1}, 400),
        ({"weight": 1.5}, 422),
        ({"weight": "1"}, 422),
        ({"weight": 2**31}, 422),
        ({"daily_cap": -1}, 422),
        ({"daily_cap": 2**31}, 422),
        ({"warmup_days": True}, 422),
        ({"warmup_start_cap": "x"}, 422),
        ({"warmup_start": 20260101}, 422),
        ({"warmup_start": "2026-02-30"}, 400),
        ({"warmup_start": "20260101"}, 400),
        ({"warmup_start": "2026-W01-1"}, 400),
        ({"warmup_start": "2026-01-01T00:00:00Z"}, 400),
        ({"warmup_start": ""}, 400),
    ],
)
def test_api_17_2_resource_is_refused_when_made_or_changed(api: Api, fields, status: int):
    made = pool(api)
    kept = resource(api, made["id"])
    path = f"/pools/{made['id']}/resources"
    assert api.http.post(path, json={"resource_key": "k", "name": "n", **fields}).status_code == status
    assert api.http.put(f"{path}/{kept['id']}", json=fields).status_code == status
    assert api.http.get(path).json() == [kept]


def test_api_17_2_longest_names_and_largest_numbers_are_fine(api: Api):
    most = 2**31 - 1
    numbers = {"weight": most, "daily_cap": most, "warmup_days": most, "warmup_start_cap": most}
    made = pool(api, "ü" * 255)
    assert resource(api, made["id"], resource_key="𝄞" * 255, name="n" * 255, **numbers)["weight"] == most


def test_api_17_2_resource_changes_as_given(api: Api):
    made = pool(api)
    kept = resource(api, made["id"], warmup_start="2026-01-01", warmup_days=14, daily_cap=100)
    path = f"/pools/{made['id']}/resources/{kept['id']}"
    changed = api.http.put(path, json={"enabled": False, "weight": 3, "name": None})
    assert (changed.status_code, changed.json()) == (200, {**kept, "enabled": False, "weight": 3})
    assert api.http.put(path, json={}).json() == changed.json()
    assert api.http.put(path, json={"warmup_start": None}).json()["warmup_start"] is None
    assert api.http.put(path, json={"warmup_start": "2027-01-31"}).json()["warmup_start"] == "2027-01-31"
    for fields in ({"enabled": 1}, {"enabled": "true"}):
        assert api.http.put(path, json=fields).status_code == 422


def test_api_17_2_resource_is_removed_once_and_only_from_its_own_pool(api: Api):
    made, second = pool(api), pool(api, "b")
    kept = resource(api, made["id"])
    for pool_id in (second["id"], str(uuid4())):
        path = f"/pools/{pool_id}/resources/{kept['id']}"
        assert (api.http.delete(path).status_code, api.http.put(path, json={"weight": 2}).status_code) == (404, 404)
    assert api.http.get(f"/pools/{made['id']}/resources").json() == [kept]
    path = f"/pools/{made['id']}/resources/{kept['id']}"
    assert [api.http.delete(path).status_code for _ in range(2)] == [204, 204]
    assert api.http.get(f"/pools/{made['id']}/resources").json() == []
    answer = api.http.put(path, json={})
    assert (answer.status_code, answer.json()["error"]) == (404, f"not found: resource {kept['id']}")


def test_api_17_2_foreign_and_malformed_ids(api: Api):
    made = pool(api)
    kept = resource(api, made["id"])
    path = f"/pools/{made['id']}"
    foreign = [
        api.http.get(path, headers=OTHER),
        api.http.delete(path, headers=OTHER),
        api.http.get(f"{path}/resources", headers=OTHER),
        api.http.post(f"{path}/resources", json={"resource_key": "k", "name": "n"}, headers=OTHER),
        api.http.put(f"{path}/resources/{kept['id']}", json={"weight": 2}, headers=OTHER),
        api.http.delete(f"{path}/resources/{kept['id']}", headers=OTHER),
    ]
    assert [answer.status_code for answer in foreign] == [404] * 6
    assert api.http.get("/pools", headers=OTHER).json() == []
    assert api.http.get(f"{path}/resources").json() == [kept]
    assert api.http.get("/pools/x").status_code == 400
    assert api.http.delete(f"{path}/resources/x").status_code == 400
