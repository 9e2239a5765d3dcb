"""Views for those who look for what went wrong (contract, api §21)."""

from uuid import uuid4

from tests.contract.client import Api, step

OTHER = {"X-Tenant-Id": "other"}


def two_steps(api: Api, output: object) -> str:
    instance_id = api.start(step("a"), step("b"), data={"same": 1})
    api.complete(output)
    return instance_id


def test_api_21_a_fork_is_previewed(api: Api):
    instance_id = two_steps(api, 1)
    answer = api.http.get(f"/instances/{instance_id}/fork-preview?from_block_id=b")
    assert answer.json() == {
        "instance_id": instance_id,
        "from_block_id": "b",
        "copied_blocks": ["a"],
        "rerun_blocks": ["b"],
    }
    assert api.http.get(f"/instances/{instance_id}/fork-preview?from_block_id=x").status_code == 400
    assert api.http.get(f"/instances/{instance_id}/fork-preview").status_code == 400
    assert api.http.get(f"/instances/{uuid4()}/fork-preview?from_block_id=b").status_code == 404


def test_api_21_two_instances_are_compared(api: Api):
    first = two_steps(api, {"n": 1})
    api.complete({"m": 1})
    second = two_steps(api, {"n": 2})
    shown = api.http.get(f"/instances/{first}/compare/{second}").json()
    assert shown["states"] == {"instance": "completed", "other": "waiting"}
    assert shown["same_sequence"] is False
    assert shown["blocks"] == [
        {"block_id": "a", "instance": {"n": 1}, "other": {"n": 2}},
        {"block_id": "b", "instance": {"m": 1}},
    ]
    assert {each["key"] for each in shown["data"]} == {"n", "m"}
    same = api.http.get(f"/instances/{first}/compare/{first}").json()
    assert (same["blocks"], same["data"], same["same_sequence"]) == ([], [], True)


def test_api_21_foreign_instances_are_compared_with_nothing(api: Api):
    instance_id = two_steps(api, 1)
    assert api.http.get(f"/instances/{instance_id}/compare/{uuid4()}").status_code == 404
    assert api.http.get(f"/instances/{instance_id}/compare/{instance_id}", headers=OTHER).status_code == 404
