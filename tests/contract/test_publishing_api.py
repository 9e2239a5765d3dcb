"""Versions that are promoted and withdrawn, and the plain list (contract, api §9)."""

import pytest

from tests.contract.client import TENANT, Api, definition, step

WHERE = {"tenant_id": TENANT, "namespace": "default"}


def versions(api: Api, name: str, *statuses: str) -> list[str]:
    documents = [
        definition(step("a"), name=name, version=number, status=status) for number, status in enumerate(statuses, 1)
    ]
    for document in documents:
        assert api.http.post("/sequences", json=document).status_code == 201
    return [document["id"] for document in documents]


def status(api: Api, sequence_id: str) -> str:
    return api.http.get(f"/sequences/{sequence_id}").json()["status"]


def test_api_9_plain_list_has_the_rows_of_the_page(api: Api):
    versions(api, "n", "production", "draft")
    listed = api.http.get("/sequences.json").json()
    assert listed == api.http.get("/sequences").json()["items"]
    assert [each["version"] for each in listed] == [2, 1]
    assert api.http.get("/sequences.json", params={"limit": 1, "offset": 1}).json() == listed[1:]
    assert api.http.get("/sequences.json", headers={"X-Tenant-Id": "other"}).json() == []


def test_api_9_promote_brings_the_newest_version_or_the_given_one_to_production(api: Api):
    first, second = versions(api, "team/n", "staging", "draft")
    answer = api.http.post("/sequences/team%2Fn/promote", json=WHERE)
    assert (answer.status_code, answer.json()) == (201, {"id": second, "version": 2})
    assert (status(api, first), status(api, second)) == ("staging", "production")
    for _ in range(2):
        answer = api.http.post("/sequences/team%2Fn/promote", json={**WHERE, "version": 1})
        assert (answer.status_code, answer.json()) == (201, {"id": first, "version": 1})
    assert status(api, first) == "production"


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ({**WHERE, "version": 9}, 404),
        ({**WHERE, "namespace": "other"}, 404),
        ({**WHERE, "tenant_id": "other"}, 403),
        ({**WHERE, "version": "1"}, 422),
        ({**WHERE, "version": 2}, 400),
        ({**WHERE, "namespace": 1}, 422),
    ],
)
def test_api_9_promote_is_refused(api: Api, body, refusal: int):
    ids = versions(api, "n", "draft", "unpublished")
    assert api.http.post("/sequences/n/promote", json=body).status_code == refusal
    assert [status(api, each) for each in ids] == ["draft", "unpublished"]


def test_api_9_unpublish_withdraws_every_version(api: Api):
    ids = versions(api, "n", "draft", "production")
    assert api.http.post("/sequences/n/unpublish", headers={"X-Tenant-Id": "other"}).status_code == 404
    assert [status(api, each) for each in ids] == ["draft", "production"]
    for body in ({}, {"delete": False}):
        assert api.http.post("/sequences/n/unpublish", json=body).status_code == 204
    assert api.http.post("/sequences/n/unpublish").status_code == 204
    assert [status(api, each) for each in ids] == ["unpublished"] * 2
    assert api.http.post("/sequences/none/unpublish", json={}).status_code == 404
    assert api.http.post("/sequences/n/unpublish", json={"delete": "yes"}).status_code == 422
    assert api.http.post("/sequences/n/unpublish", json={"tenant_id": "other"}).status_code == 403


def test_api_9_unpublish_deletes_all_or_none(api: Api):
    first, second = versions(api, "n", "production", "production")
    instance = api.start_of(first)
    answer = api.http.post("/sequences/n/unpublish", json={"delete": True})
    assert (answer.status_code, answer.json()["error"].split(":")[0]) == (409, "conflict")
    assert [status(api, each) for each in (first, second)] == ["production"] * 2
    api.signal(instance, "cancel")
    assert api.http.post("/sequences/n/unpublish", json={"delete": True}).status_code == 204
    assert [api.http.get(f"/sequences/{each}").status_code for each in (first, second)] == [404, 404]
