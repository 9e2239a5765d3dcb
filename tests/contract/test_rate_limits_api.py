"""Limits by key over HTTP (contract, api §20.4)."""

import httpx
import pytest

from orchestrator.engine import Engine
from orchestrator.settings import Settings
from tests.contract.client import CALL, TENANT, Api
from tests.support.serving import Reception

OTHER = {"X-Tenant-Id": "other"}


def put(api: Api, key: str = "mail", **fields):
    body = {"tenant_id": TENANT, "resource_key": key, "max_count": 5, "window_seconds": 60, **fields}
    answer = api.http.post("/rate-limits", json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_api_17_4_limit_is_set_again_read_listed_and_taken_away(api: Api):
    first = put(api)
    again = put(api, max_count=7, window_seconds=1)
    assert list(again) == ["tenant_id", "resource_key", "max_count", "window_seconds", "created_at", "updated_at"]
    assert (again["max_count"], again["window_seconds"], again["created_at"]) == (7, 1, first["created_at"])
    slashed = put(api, "a/b ü")
    assert api.http.get("/rate-limits/mail").json() == again
    assert api.http.get("/rate-limits/a%2Fb%20%C3%BC").json() == slashed
    assert api.http.get("/rate-limits", params={"tenant_id": "other"}).json() == [slashed, again]
    assert api.http.delete("/rate-limits/mail").status_code == 204
    answers = [api.http.delete("/rate-limits/mail"), api.http.get("/rate-limits/mail")]
    assert [each.status_code for each in answers] == [404, 404]
    assert answers[0].json() == {"error": "not found: rate limit mail"}


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"max_count": 0}, 400),
        ({"max_count": -1}, 400),
        ({"max_count": 1.5}, 422),
        ({"max_count": None}, 422),
        ({"max_count": 2**31}, 422),
        ({"window_seconds": 0}, 400),
        ({"window_seconds": "60"}, 422),
        ({"resource_key": " "}, 400),
        ({"resource_key": "k" * 256}, 400),
        ({"resource_key": 1}, 422),
        ({"tenant_id": ""}, 422),
        ({"tenant_id": None}, 422),
        ({"tenant_id": "other"}, 403),
    ],
)
def test_api_17_4_limit_is_refused(api: Api, fields, status: int):
    body = {"tenant_id": TENANT, "resource_key": "k", "max_count": 1, "window_seconds": 1, **fields}
    assert api.http.post("/rate-limits", json=body).status_code == status
    assert api.http.get("/rate-limits").json() == []


def test_api_17_4_limits_are_their_tenants_own(api: Api):
    put(api)
    assert api.http.get("/rate-limits", headers=OTHER).json() == []
    assert api.http.get("/rate-limits/mail", headers=OTHER).status_code == 404
    assert api.http.delete("/rate-limits/mail", headers=OTHER).status_code == 404
    assert api.http.get("/rate-limits/mail").status_code == 200


def test_api_3_3_callers_without_a_tenant_see_the_limits_of_all(
    api: Api, reception: Reception, engine: Engine, settings: Settings
):
    made = put(api)
    lax = settings.model_copy(update={"require_tenant_header": False})
    with httpx.Client(base_url=reception.address(engine, lax), **CALL) as unscoped:
        assert unscoped.get("/rate-limits/mail").json() == made
        assert unscoped.get("/rate-limits/mail", params={"tenant_id": "other"}).status_code == 404
        unscoped.post("/rate-limits", json={**made, "tenant_id": "other"})
        assert [unscoped.get("/rate-limits/mail").status_code, unscoped.delete("/rate-limits/mail").status_code] == [
            400
        ] * 2
        assert unscoped.delete("/rate-limits/mail", params={"tenant_id": "other"}).status_code == 204
        assert [unscoped.delete("/rate-limits/mail").status_code for _ in range(2)] == [204, 404]
