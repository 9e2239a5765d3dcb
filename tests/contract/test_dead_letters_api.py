"""Dead letters by their cause (contract, api §21)."""

from uuid import uuid4

import pytest

from tests.contract.client import Api, step

OTHER = {"X-Tenant-Id": "other"}


def failed(api: Api, message: str, block_id: str = "a", **fields: object) -> str:
    instance_id = api.start(step(block_id))
    api.fail(message, **fields)
    return instance_id


def groups(api: Api, **headers: str) -> list[dict]:
    answer = api.http.get("/instances/dlq/groups", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def retry(api: Api, fingerprint: str, **body: object):
    return api.http.post(f"/instances/dlq/groups/{fingerprint}/retry", json=body)


def test_api_21_failed_instances_are_grouped_by_cause(api: Api):
    first = failed(api, "order 17 is gone")
    second = failed(api, "order 18 is gone", "b")
    other = failed(api, "no route", details={"code": "E7"})
    assert groups(api, **OTHER) == []
    [large, small] = groups(api)
    assert list(large) == [
        *("fingerprint", "components", "error_class", "error_code", "sample_message", "count"),
        *("first_occurrence", "last_occurrence", "sequences", "blocks", "handlers", "sample_instance_ids"),
    ]
    assert (large["count"], large["sample_message"]) == (2, "order 18 is gone")
    assert large["components"] == {"error_class": "handler", "error_code": None, "message": "order <n> is gone"}
    assert (large["sample_instance_ids"], sorted(large["blocks"])) == ([second, first], ["a", "b"])
    assert large["handlers"] == ["outside"]
    assert len(large["sequences"]) == 2
    assert large["first_occurrence"] < large["last_occurrence"]
    assert (small["error_code"], small["sample_instance_ids"]) == ("E7", [other])


def test_api_21_a_group_is_retried_by_one_sample_and_then_in_bulk(api: Api):
    ids = [failed(api, f"order {n} is gone") for n in range(3)]
    [group] = groups(api)
    fingerprint = group["fingerprint"]
    answer = retry(api, fingerprint, mode="sample")
    assert (answer.status_code, answer.json()) == (
        200,
        {"fingerprint": fingerprint, "mode": "sample", "retried": 1, "skipped": 0},
    )
    sample = ids[-1]
    assert api.state(sample) != "failed"
    assert retry(api, fingerprint, mode="bulk").status_code == 400
    assert retry(api, fingerprint, mode="bulk", sample_verified_instance_id=sample).status_code == 400
    api.complete(1)
    assert retry(api, fingerprint, mode="bulk", sample_verified_instance_id=sample, limit=1).json()["retried"] == 1
    assert retry(api, fingerprint, mode="bulk", force=True).json()["retried"] == 1
    assert [api.state(each) for each in ids] == ["waiting", "waiting", "completed"]
    assert groups(api) == []


def test_api_21_what_is_no_group_is_not_retried(api: Api):
    failed(api, "broken")
    [group] = groups(api)
    assert retry(api, "0" * 16, mode="sample").status_code == 404
    answer = api.http.post(
        f"/instances/dlq/groups/{group['fingerprint']}/retry", json={"mode": "bulk", "force": True}, headers=OTHER
    )
    assert answer.status_code == 404
    assert retry(api, group["fingerprint"], mode="bulk", sample_verified_instance_id=str(uuid4())).status_code == 404


@pytest.mark.parametrize(
    "body", [{}, {"mode": "all"}, {"mode": "bulk", "limit": 0}, {"mode": "bulk", "force": "yes"}, {"mode": 5}]
)
def test_api_21_a_retry_of_another_form_is_refused(api: Api, body: dict):
    assert retry(api, "0" * 16, **body).status_code == 422
