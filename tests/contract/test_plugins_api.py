"""The registry of plugins over HTTP (contract, api §21)."""

import httpx
import pytest

from orchestrator.engine import Engine
from orchestrator.settings import Settings
from tests.contract.client import CALL, TENANT, Api
from tests.support.serving import Reception

OTHER = {"X-Tenant-Id": "other"}
BODY = {"name": "p/1", "plugin_type": "grpc", "source": "grpc://x:1"}


def make(api: Api, **fields):
    answer = api.http.post("/plugins", json={**BODY, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_api_21_plugin_is_made_read_changed_and_removed(api: Api):
    made = make(api, config={"a": [1]}, description="d")
    assert made == {
        **BODY,
        "tenant_id": TENANT,
        "enabled": True,
        "config": {"a": [1]},
        "description": "d",
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
    }
    second = make(api, name="b", plugin_type="wasm", tenant_id=TENANT)
    assert (second["config"], second["description"]) == (None, None)
    assert api.http.get("/plugins").json() == [second, made]
    assert api.http.get("/plugins/p%2F1").json() == made
    changed = api.http.patch("/plugins/p%2F1", json={"source": "s", "enabled": False, "config": 1, "name": "x"})
    expected = {**made, "source": "s", "enabled": False, "config": 1, "updated_at": changed.json()["updated_at"]}
    assert (changed.status_code, changed.json()) == (200, expected)
    assert api.http.patch("/plugins/p%2F1", json={"source": None, "config": None}).json()["config"] is None
    assert api.http.get("/plugins/p%2F1").json()["source"] == "s"
    assert api.http.delete("/plugins/p%2F1").status_code == 204
    gone = [
        api.http.delete("/plugins/p%2F1"),
        api.http.get("/plugins/p%2F1"),
        api.http.patch("/plugins/p%2F1", json={}),
    ]
    assert [each.status_code for each in gone] == [404] * 3
    assert gone[0].json() == {"error": "not found: plugin p/1"}


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"name": " "}, 400),
        ({"name": "n" * 256}, 400),
        ({"source": ""}, 400),
        ({"plugin_type": "native"}, 422),
        ({"plugin_type": None}, 422),
        ({"source": 1}, 422),
        ({"name": None}, 422),
        ({"description": 1}, 422),
        ({"tenant_id": "other"}, 403),
    ],
)
def test_api_21_plugin_is_refused(api: Api, fields, status: int):
    assert api.http.post("/plugins", json={**BODY, **fields}).status_code == status
    assert api.http.get("/plugins").json() == []


def test_api_21_plugin_is_its_tenants_own(api: Api):
    made = make(api)
    assert api.http.post("/plugins", json=BODY).status_code == 409
    foreign = [
        api.http.get("/plugins/p%2F1", headers=OTHER),
        api.http.patch("/plugins/p%2F1", json={"source": "s"}, headers=OTHER),
        api.http.delete("/plugins/p%2F1", headers=OTHER),
    ]
    assert [each.status_code for each in foreign] == [404] * 3
    assert api.http.post("/plugins", json=BODY, headers=OTHER).status_code == 201
    assert api.http.get("/plugins").json() == [made]
    for fields, status in (({"source": " "}, 400), ({"enabled": 1}, 422)):
        assert api.http.patch("/plugins/p%2F1", json=fields).status_code == status


def test_api_3_3_callers_without_a_tenant_see_the_plugins_of_all(
    api: Api, reception: Reception, engine: Engine, settings: Settings
):
    made = make(api)
    lax = settings.model_copy(update={"require_tenant_header": False})
    with httpx.Client(base_url=reception.address(engine, lax), **CALL) as unscoped:
        assert unscoped.get("/plugins/p%2F1").json() == made
        assert unscoped.get("/plugins/p%2F1", params={"tenant_id": "other"}).status_code == 404
        assert unscoped.patch("/plugins/p%2F1", json={"enabled": False}).json()["tenant_id"] == TENANT
        assert api.http.post("/plugins", json=BODY, headers=OTHER).status_code == 201
        for answer in (unscoped.get("/plugins/p%2F1"), unscoped.delete("/plugins/p%2F1")):
            assert (answer.status_code, "tenant_id" in answer.json()["error"]) == (400, True)
        assert unscoped.get("/plugins/p%2F1", params={"tenant_id": TENANT}).status_code == 200
        ours = unscoped.post("/plugins", json=BODY).json()
        assert (ours["tenant_id"], unscoped.get("/plugins/p%2F1").json()) == ("default", ours)
        assert [unscoped.delete("/plugins/p%2F1").status_code for _ in range(2)] == [204, 400]
