"""What workers log, and what is read of it (contract, api §10.4, §13.4)."""

from uuid import uuid4

from tests.contract.client import Api, step


def logs(api: Api, instance_id: str) -> list[dict]:
    answer = api.http.get(f"/instances/{instance_id}/logs")
    assert answer.status_code == 200, answer.text
    return answer.json()


def report(api: Api, verb: str, lines: object, **fields: object) -> int:
    [task] = api.poll()
    return api.report(task, verb, logs=lines, **fields).status_code


def test_api_10_4_logs_of_workers_are_shown_in_their_order(api: Api):
    retry = {"max_attempts": 2, "initial_backoff": 1, "max_backoff": 1}
    instance_id = api.start(step("a", retry=retry), step("b"))
    first = {"ts": "2026-01-01T00:00:00Z", "level": "warn", "message": "slow"}
    assert report(api, "fail", [first], message="no", retryable=True) == 200
    api.pass_time()
    assert (
        report(api, "complete", [{"ts": 5, "level": "info", "message": f"line {n}"} for n in (1, 2)], output=1) == 200
    )
    assert report(api, "complete", None, output=2) == 200
    assert logs(api, instance_id) == [
        {"block_id": "a", **first},
        {"block_id": "a", "ts": 5, "level": "info", "message": "line 1"},
        {"block_id": "a", "ts": 5, "level": "info", "message": "line 2"},
    ]


def test_api_10_4_lines_of_any_form_are_kept_and_never_refuse_a_report(api: Api):
    instance_id = api.start(step("a"))
    lines = ["100 % %s", 5, None, {"message": {"n": 1}}, {"level": 7}, *(["more"] * 1000)]
    assert report(api, "complete", lines[:5], output=1) == 200
    shown = logs(api, instance_id)
    assert [each["message"] for each in shown] == ["100 % %s", "5", "null", '{"n":1}', '{"level":7}']
    assert all(each["ts"] for each in shown)
    long = api.start(step("a"))
    assert report(api, "complete", lines, output=1) == 200
    assert [each["message"] for each in logs(api, long)] == ["more"] * 1000


def test_api_13_4_logs_of_a_lost_lease_are_not_kept(api: Api):
    instance_id = api.start(step("a"))
    [task] = api.poll()
    assert api.report({**task, "claim_epoch": 9}, "complete", output=1, logs=["late"]).status_code == 409
    assert logs(api, instance_id) == []


def test_api_10_4_logs_of_unknown_and_foreign_instances_are_404(api: Api):
    instance_id = api.start(step("a"))
    assert api.http.get(f"/instances/{uuid4()}/logs").status_code == 404
    assert api.http.get(f"/instances/{instance_id}/logs", headers={"X-Tenant-Id": "other"}).status_code == 404
