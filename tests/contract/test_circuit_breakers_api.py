"""Circuit breakers over HTTP (contract, api §17.3, §20.5; sequences §13.6)."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from uuid import uuid4

import pytest

from orchestrator.core.outcomes import Completed, Failed, FailureKind, Outcome
from orchestrator.exchange import Report, Wish
from orchestrator.store.claiming import Worker
from tests.contract.client import TENANT, Api, step

OTHER = {"X-Tenant-Id": "other"}


def breaker(api: Api, handler: str = "outside"):
    answer = api.http.get(f"/tenants/{TENANT}/circuit-breakers/{quote(handler, safe='')}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def handlers(api: Api) -> list[str]:
    return [each["handler"] for each in api.http.get("/circuit-breakers").json()]


def fail(api: Api, times: int, handler: str = "outside", **fields):
    sequence = api.sequence(step("a", handler))
    for _ in range(times):
        api.start_of(sequence)
        api.fail(handler=handler, **fields)


def succeed(api: Api, handler: str = "outside"):
    api.start(step("a", handler))
    api.complete({}, handler=handler)


def cool_down(api: Api):
    """Let every open breaker be half open."""
    with api.engine.store.transaction() as tx:
        tx.execute("UPDATE circuit_breakers SET opened_at = opened_at - interval '61 seconds'")


def report_together(api: Api, outcomes: list[Outcome]):
    """Let a worker of ours run as many steps, and report them in one commit."""
    sequence = api.sequence(step("a", "mine"))
    for _ in outcomes:
        api.start_of(sequence)
    wish = Wish(queue="default", handlers=["mine"], together=frozenset({"mine"}), limit=len(outcomes))
    claims = api.engine.claim(Worker(id=uuid4(), name="in-process"), wish)
    assert len(claims) == len(outcomes)
    in_order_of_locks = sorted(claims, key=lambda claim: claim.instance_id)
    reports = [Report(claim=claim, outcome=each) for claim, each in zip(in_order_of_locks, outcomes, strict=True)]
    api.engine.finish(reports)


# -- counting --------------------------------------------------------------------------------------------------------


def test_s13_6_breaker_exists_from_the_first_execution_on(api: Api):
    api.start(step("a"))
    (task,) = api.poll()
    assert handlers(api) == []
    assert api.http.get(f"/tenants/{TENANT}/circuit-breakers/outside").status_code == 404
    api.report(task, "complete", output={})
    assert breaker(api) == {
        "tenant_id": TENANT,
        "handler": "outside",
        "state": "closed",
        "failure_count": 0,
        "failure_threshold": 5,
        "cooldown_secs": 60,
        "on_open": "auto",
    }


@pytest.mark.parametrize("retryable", [False, True])
def test_s13_6_one_failure_is_counted_and_five_open(api: Api, retryable: bool):
    fail(api, 1, retryable=retryable)
    assert (breaker(api)["state"], breaker(api)["failure_count"], "opened_at" in breaker(api)) == ("closed", 1, False)
    fail(api, 3, retryable=retryable)
    assert (breaker(api)["state"], breaker(api)["failure_count"]) == ("closed", 4)
    fail(api, 1, retryable=retryable)
    opened = breaker(api)
    assert (opened["state"], opened["failure_count"]) == ("open", 5)
    assert abs(datetime.fromisoformat(opened["opened_at"]) - datetime.now(UTC)) < timedelta(minutes=1)
    fail(api, 1)
    assert breaker(api) == opened


def test_s13_6_attempts_of_one_step_count_each(api: Api):
    api.start(step("a", retry={"max_attempts": 5, "initial_backoff": 1, "max_backoff": 1}))
    for _ in range(5):
        api.fail(retryable=True)
        api.pass_time()
    assert breaker(api)["state"] == "open"


def test_s13_6_success_ends_the_row_of_failures(api: Api):
    fail(api, 4)
    succeed(api)
    assert breaker(api)["failure_count"] == 0
    fail(api, 4)
    assert (breaker(api)["state"], breaker(api)["failure_count"]) == ("closed", 4)


def test_s13_6_half_open_after_the_cool_down_until_one_shows_the_way(api: Api):
    fail(api, 5)
    cool_down(api)
    assert breaker(api)["state"] == "half_open"
    fail(api, 1)
    assert (breaker(api)["state"], breaker(api)["failure_count"]) == ("open", 6)
    cool_down(api)
    succeed(api)
    closed = breaker(api)
    assert (closed["state"], closed["failure_count"], "opened_at" in closed) == ("closed", 0, False)


def test_s13_6_what_one_commit_reports_counts_in_its_order(api: Api):
    good, bad = Completed(output={}), Failed(message="x", retryable=False)
    report_together(api, [bad] * 5 + [good, bad])
    assert (breaker(api, "mine")["state"], breaker(api, "mine")["failure_count"]) == ("closed", 1)
    report_together(api, [bad] * 7)
    assert (breaker(api, "mine")["state"], breaker(api, "mine")["failure_count"]) == ("open", 8)


def test_s13_6_pure_built_ins_and_what_never_ran_are_not_tracked(api: Api):
    api.start(step("a", "noop"), step("b", "fail"))
    api.run_builtins()
    api.start(step("a", params={"x": "{{ nonsense.y }}"}))
    api.poll()
    report_together(api, [Failed(message="x", retryable=False, kind=FailureKind.INPUT)])
    running = api.start(step("a"))
    api.poll()
    api.signal(running, "cancel")
    assert handlers(api) == []


def test_s13_6_nothing_leaks_from_one_handler_or_tenant_to_another(api: Api):
    fail(api, 1, "one")
    succeed(api, "two")
    assert {each: breaker(api, each)["failure_count"] for each in handlers(api)} == {"one": 1, "two": 0}
    assert api.http.get("/circuit-breakers", headers=OTHER).json() == []


# -- §17.3 -----------------------------------------------------------------------------------------------------------


def test_api_17_3_lists_are_the_scopes(api: Api):
    fail(api, 1, "b/c ü")
    fail(api, 2, "a")
    listed = api.http.get("/circuit-breakers").json()
    assert [each["handler"] for each in listed] == ["a", "b/c ü"]
    assert api.http.get(f"/tenants/{TENANT}/circuit-breakers").json() == listed
    assert breaker(api, "b/c ü") == listed[1]
    assert api.http.get("/circuit-breakers", params={"tenant_id": TENANT}, headers=OTHER).json() == []
    for path in ("", "/a"):
        assert api.http.get(f"/tenants/{TENANT}/circuit-breakers{path}", headers=OTHER).status_code == 404


def test_api_17_3_reset_closes_what_exists_and_creates_nothing(api: Api):
    fail(api, 5, "http-ish/x")
    path = f"/tenants/{TENANT}/circuit-breakers/http-ish%2Fx/reset"
    assert api.http.post(path, headers=OTHER).status_code == 404
    assert breaker(api, "http-ish/x")["state"] == "open"
    for body in ({"json": {"a": 1}}, {"content": b"{no json", "headers": {"Content-Type": "text/x"}}, {}):
        answer = api.http.post(path, **body)
        assert (answer.status_code, answer.content) == (200, b"")
    assert (breaker(api, "http-ish/x")["state"], breaker(api, "http-ish/x")["failure_count"]) == ("closed", 0)
    assert api.http.post(f"/tenants/{TENANT}/circuit-breakers/unknown/reset").status_code == 200
    assert handlers(api) == ["http-ish/x"]


# -- §20.5 -----------------------------------------------------------------------------------------------------------


def test_api_20_5_configured_breaker_opens_by_its_own_threshold(api: Api):
    answer = api.http.post(
        "/circuit-breakers", json={"handler": "outside", "failure_threshold": 2, "cooldown_secs": 0, "on_open": "fail"}
    )
    assert answer.status_code == 200
    assert answer.json() == {
        "tenant_id": TENANT,
        "handler": "outside",
        "state": "closed",
        "failure_count": 0,
        "failure_threshold": 2,
        "cooldown_secs": 0,
        "on_open": "fail",
    }
    assert api.http.get("/circuit-breakers/outside").json() == answer.json()
    fail(api, 2)
    assert (breaker(api)["state"], breaker(api)["failure_count"]) == ("half_open", 2)
    again = api.http.post("/circuit-breakers", json={"handler": "outside"}).json()
    assert (again["state"], again["failure_threshold"], again["on_open"]) == ("open", 5, "auto")
    assert api.http.post("/circuit-breakers/outside/reset").status_code == 200
    assert breaker(api)["state"] == "closed"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"handler": 1}, 422),
        ({"handler": " "}, 400),
        ({"handler": "h" * 1025}, 400),
        ({"handler": "noop"}, 400),
        ({"handler": "h", "failure_threshold": 0}, 400),
        ({"handler": "h", "failure_threshold": 2**31}, 422),
        ({"handler": "h", "failure_threshold": "5"}, 422),
        ({"handler": "h", "cooldown_secs": -1}, 400),
        ({"handler": "h", "cooldown_secs": 0.5}, 422),
        ({"handler": "h", "on_open": "wait"}, 422),
        ({"handler": "h", "tenant_id": "other"}, 403),
        ({"handler": "h", "tenant_id": ""}, 403),
    ],
)
def test_api_20_5_configuration_is_refused(api: Api, body, status: int):
    assert api.http.post("/circuit-breakers", json=body).status_code == status
    assert api.http.get("/circuit-breakers").json() == []


def test_api_20_5_breakers_are_found_in_the_scope_only(api: Api):
    fail(api, 1, "a/b")
    assert api.http.get("/circuit-breakers/a%2Fb").json() == breaker(api, "a/b")
    assert api.http.get("/circuit-breakers/a%2Fb", headers=OTHER).status_code == 404
    assert api.http.post("/circuit-breakers/a%2Fb/reset", headers=OTHER).status_code == 200
    assert breaker(api, "a/b")["failure_count"] == 1
