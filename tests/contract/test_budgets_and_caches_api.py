"""Budgets, cached outputs and pauses beside a gate, over HTTP (sequences contract §9.6, §5.7, §9.4)."""

import time

import pytest

from tests.contract.client import Api, step


def metric(api: Api, name: str) -> float:
    lines = api.http.get(f"{api.root}/metrics").text.splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name}_total "))


def test_s9_6_exceeded_budget_pauses_and_stands_in_the_metadata(api: Api):
    instance = api.start(
        step("a", "noop"), step("b", "noop"), step("c", "noop"), budget={"max_steps": 1}, metadata={"mine": [1]}
    )
    api.run_builtins()
    read = api.instance(instance)
    breach = {"limit": "max_steps", "limit_value": 1, "actual": 2}
    assert (read["state"], read["budget"]) == ("paused", {"max_steps": 1})
    assert read["metadata"] == {"mine": [1], "paused_reason": "budget_exceeded", "budget_breach": breach}
    assert api.signal(instance, "resume").status_code == 201
    api.run_builtins()
    assert api.state(instance) == "paused"
    assert len(api.outputs(instance)) == 2


def test_s9_6_metadata_that_are_no_object_give_way(api: Api):
    instance = api.start(step("a", "noop"), step("b", "noop"), budget={"max_steps": 0}, metadata="text")
    api.run_builtins()
    assert api.instance(instance)["metadata"]["paused_reason"] == "budget_exceeded"


def test_s5_7_hits_and_misses_are_counted(api: Api):
    hits, misses = metric(api, "orch8_cache_hits"), metric(api, "orch8_cache_misses")
    answer = api.start(step("a", cache_key="k"), step("b", cache_key="k"))
    api.complete({"n": 1})
    assert api.state(answer) == "completed"
    assert [row["output"] for row in api.outputs(answer)] == [{"n": 1}] * 2
    until = time.monotonic() + 60
    while metric(api, "orch8_cache_hits") == hits and time.monotonic() < until:
        pass
    assert (metric(api, "orch8_cache_hits"), metric(api, "orch8_cache_misses")) == (hits + 1, misses + 1)
    assert [task["block_id"] for task in api.http.get("/workers/tasks").json()] == ["a"]


@pytest.mark.needs_own_server("nobody may run its steps in between")
def test_s9_4_paused_flow_with_an_open_gate_takes_the_answer_and_hands_out_no_task(api: Api):
    branches = [[step("g", "noop", wait_for_input={})], [step("t")], [step("s", "noop")]]
    instance = api.start({"type": "parallel", "id": "p", "branches": branches})
    api.signal(instance, "pause")
    assert api.state(instance) == "paused"
    assert (api.poll(), len(api.http.get("/approvals").json()["items"])) == ([], 1)
    api.signal(instance, {"custom": "human_input:g"}, {"value": "yes"})
    assert (api.state(instance), api.http.get("/approvals").json()["total"]) == ("paused", 0)
    api.signal(instance, "resume")
    api.run_builtins()
    api.complete({})
    assert api.state(instance) == "completed"
