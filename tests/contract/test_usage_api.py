"""What models have used (contract, api §18.3, §20.15; sequences §11.1)."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pydantic import ValidationError

from orchestrator.client import AsyncClient, Client
from orchestrator.engine import Engine
from orchestrator.pricing import Price
from orchestrator.settings import Settings
from orchestrator.store.session import Store
from tests.contract.client import CALL, TENANT, Api, step
from tests.support.serving import Reception


def report(api: Api, *outputs: Any) -> str:
    """Let a step end with each output; returns the instance's id."""
    instance = api.start(*(step(f"s{number}") for number in range(len(outputs))))
    for output in outputs:
        api.complete(output)
    return instance


def used(api: Api, **query: Any) -> dict[str, Any]:
    answer = api.http.get("/usage", params=query)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_api_18_3_nothing_is_used_at_first(api: Api):
    shown = used(api)
    assert list(shown) == ["tenant", "start", "end", "usage", "total_cost_usd", "cost_is_estimate"]
    assert (shown["tenant"], shown["usage"], shown["total_cost_usd"], shown["cost_is_estimate"]) == (
        TENANT,
        [],
        0,
        True,
    )
    start, end = (datetime.fromisoformat(shown[name]) for name in ("start", "end"))
    assert end - start == timedelta(days=30)
    assert abs(datetime.now(UTC) - end) < timedelta(minutes=1)


def test_api_18_3_sums_by_kind_and_model_with_costs(api: Api):
    gpt = {"model": "gpt-4o-2024-08-06", "provider": "openai"}
    report(
        api,
        {"usage": {"input_tokens": 1_000_000, "output_tokens": 100_000, **gpt}},
        {"usage": {"prompt_tokens": 1_000_000, "completion_tokens": 0}, **gpt},
        {"usage": {"input_tokens": 5, "output_tokens": 6, "model": "home-grown"}},
        {"usage": {"input_tokens": 7}},
    )
    shown = used(api)
    assert shown["usage"] == [
        {
            "kind": "llm_tokens",
            "model": "gpt-4o-2024-08-06",
            "events": 2,
            "input_tokens": 2_000_000,
            "output_tokens": 100_000,
            "cost_usd": 6.0,
        },
        {
            "kind": "llm_tokens",
            "model": "home-grown",
            "events": 1,
            "input_tokens": 5,
            "output_tokens": 6,
            "cost_usd": None,
        },
        {
            "kind": "llm_tokens",
            "model": "unknown",
            "events": 1,
            "input_tokens": 7,
            "output_tokens": 0,
            "cost_usd": None,
        },
    ]
    assert shown["total_cost_usd"] == 6.0
    assert "groups" not in shown


@pytest.mark.parametrize(
    "output",
    [
        None,
        {"usage": None},
        {"usage": [1]},
        {"usage": {}},
        {"usage": {"input_tokens": 0, "output_tokens": 0}},
        {"usage": {"input_tokens": -1}},
        {"usage": {"input_tokens": "7"}},
        {"usage": {"input_tokens": True}},
        {"usage": {"input_tokens": 2**60}},
        [{"usage": {"input_tokens": 7}}],
    ],
)
def test_api_20_15_what_is_no_report_is_none(api: Api, output: Any):
    instance = report(api, output)
    assert api.state(instance) == "completed"
    assert used(api)["usage"] == []


def test_api_20_15_odd_names_are_no_fault(api: Api):
    report(
        api,
        {"usage": {"input_tokens": 1, "model": 7, "provider": {}}},
        {"usage": {"input_tokens": 1, "model": "m" * 900}},
    )
    assert [(each["model"], each["events"]) for each in used(api)["usage"]] == [("m" * 200, 1), ("unknown", 1)]


def test_api_20_15_failed_and_repeated_reports_are_not_counted_twice(api: Api):
    api.start(step("a", retry={"max_attempts": 2, "initial_backoff": 1, "max_backoff": 1}))
    (task,) = api.poll()
    assert api.report(task, "fail", message="x", retryable=True).status_code == 200
    api.pass_time()
    (task,) = api.poll()
    output = {"usage": {"input_tokens": 3, "model": "m"}}
    assert [api.report(task, "complete", output=output).status_code for _ in range(2)] == [200, 409]
    assert [(each["events"], each["input_tokens"]) for each in used(api)["usage"]] == [(1, 3)]


def test_api_20_15_groups(api: Api):
    usage = {"input_tokens": 1_000_000, "model": "gpt-4o"}
    first = report(api, {"usage": {**usage, "provider": "openai"}}, {"usage": {**usage, "model": "home-grown"}})
    second = report(api, {"usage": {"input_tokens": 1, "model": "home-grown"}})
    of_first = api.instance(first)["sequence_id"]

    def keys(by: str) -> dict[str, tuple[Any, ...]]:
        groups = used(api, group_by=by)["groups"]
        assert {next(iter(each)) for each in groups} == {"key"}
        return {each["key"]: (each["events"], each["input_tokens"], each["cost_usd"]) for each in groups}

    assert keys("instance") == {first: (2, 2_000_000, 2.5), second: (1, 1, None)}
    assert keys("provider") == {"openai": (1, 1_000_000, 2.5), None: (2, 1_000_001, None)}
    assert keys("sequence")[of_first] == (2, 2_000_000, 2.5)
    steps = used(api, group_by="step")["groups"]
    assert [(each["key"], each["sequence_id"] == of_first) for each in steps] == [
        ("s0", True),
        ("s1", True),
        ("s0", False),
    ]
    assert used(api, group_by="step")["usage"] == used(api)["usage"]


def test_api_18_3_period(api: Api, store: Store):
    report(api, {"usage": {"input_tokens": 1, "model": "m"}})
    with store.transaction() as tx:
        tx.execute("UPDATE usage_events SET created_at = '2026-01-15T12:00:00Z'")
    assert used(api, start="2026-01-15T12:00:00Z", end="2026-01-15T12:00:00Z")["usage"][0]["events"] == 1
    shown = used(api, start="2026-01-15T14:00:00+02:00", end="2026-02-01T00:00:00Z")
    assert (shown["start"], len(shown["usage"])) == ("2026-01-15T12:00:00Z", 1)
    assert used(api, end="2026-02-01T00:00:00Z")["start"] == "2026-01-02T00:00:00Z"
    assert used(api, end="2026-01-15T11:59:59Z")["usage"] == []
    assert used(api, start="2026-01-15T12:00:01Z", end="2027-01-01T00:00:00Z")["usage"] == []


@pytest.mark.parametrize(
    "query",
    [
        {"start": "yesterday"},
        {"end": "2026-01-01"},
        {"end": ""},
        {"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"},
        {"end": "0001-01-01T00:00:00Z"},
        {"group_by": "colour"},
        {"group_by": ""},
    ],
)
def test_api_18_3_bad_query_is_400(api: Api, query: dict[str, str]):
    assert api.http.get("/usage", params=query).status_code == 400


def test_api_18_3_scope_replaces_the_tenant_asked_for(
    api: Api, reception: Reception, engine: Engine, settings: Settings
):
    report(api, {"usage": {"input_tokens": 1, "model": "m"}})
    foreign = api.http.get("/usage", params={"tenant": TENANT}, headers={"X-Tenant-Id": "other"}).json()
    assert (foreign["tenant"], foreign["usage"]) == ("other", [])
    lax = settings.model_copy(update={"require_tenant_header": False})
    with httpx.Client(base_url=reception.address(engine, lax), **CALL) as unscoped:
        answer = unscoped.get("/usage")
        assert (answer.status_code, answer.json()) == (400, {"error": "invalid argument: tenant is required"})
        assert len(unscoped.get("/usage", params={"tenant": TENANT}).json()["usage"]) == 1


def test_api_18_3_prices_are_overridden(api: Api, reception: Reception, engine: Engine, settings: Settings):
    report(api, {"usage": {"input_tokens": 1_000_000, "output_tokens": 1_000_000, "model": "home/grown-7b"}})
    over = {"grown": Price(input=1, output=2), "grown-7": Price(input=10, output=20)}
    url = reception.address(engine, settings.model_copy(update={"model_pricing": over}))
    shown = httpx.get(f"{url}/usage", headers={"X-Tenant-Id": TENANT}, **CALL).json()
    assert (shown["usage"][0]["cost_usd"], shown["total_cost_usd"]) == (30.0, 30.0)


def test_api_18_3_prices_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ORCH8_MODEL_PRICING", '{"m": {"input": 1.5, "output": 6}}')
    assert Settings().model_pricing == {"m": Price(input=1.5, output=6)}
    for wrong in ("[]", "{", '{"m": 1}', '{"m": {"input": -1, "output": 1}}', '{"m": {"input": 1}}'):
        monkeypatch.setenv("ORCH8_MODEL_PRICING", wrong)
        with pytest.raises(ValidationError):
            Settings()


def test_usage_outlives_its_instance(api: Api):
    instance = report(api, {"usage": {"input_tokens": 1, "model": "m"}})
    assert api.http.delete(f"/sequences/{api.instance(instance)['sequence_id']}").status_code == 204
    assert used(api)["usage"][0]["events"] == 1


@pytest.mark.needs_own_server("the clients do not rename tenants")
def test_usage_through_the_clients(api: Api):
    report(api, {"usage": {"input_tokens": 1_000_000, "model": "gpt-4o"}})

    async def asked() -> float:
        async with AsyncClient(api.root, tenant=TENANT) as client:
            return (await client.usage()).total_cost_usd

    with Client(api.root, tenant=TENANT) as client:
        shown = client.usage(start=datetime(2026, 1, 1, tzinfo=UTC), group_by="step")
    assert [each.key for each in shown.groups] == ["s0"]
    assert (shown.usage[0].cost_usd, asyncio.run(asked())) == (2.5, 2.5)
