"""Signals and approvals over HTTP (contract, api §11; sequences §5.5, §9.4, §16)."""

from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.contract.client import TENANT, Api, step

GATE: dict[str, Any] = {
    "prompt": "Ship?",
    "choices": [{"label": "Go", "value": "go"}, {"label": "Stop", "value": "stop"}],
}


def gated(**gate: Any) -> dict[str, Any]:
    return step("g", "noop", wait_for_input={**GATE, **gate})


def test_api_11_1_signal_is_201_with_an_id(api: Api):
    answer = api.signal(api.start(step("a")), {"custom": "anything"}, {"x": 1})
    assert answer.status_code == 201
    UUID(answer.json()["signal_id"])


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"signal_type": ""},
        {"signal_type": "odd"},
        {"signal_type": 5},
        {"signal_type": {"other": "x"}},
        {"payload": 1},
        [],
        5,
    ],
)
def test_api_11_1_unknown_types_are_422(api: Api, body: Any):
    assert api.http.post(f"/instances/{api.start(step('a'))}/signals", json=body).status_code == 422


def test_api_11_1_unknown_instance_is_404(api: Api):
    assert api.signal(str(uuid4()), "cancel").status_code == 404


def test_api_11_1_terminal_instance_is_400_and_named(api: Api):
    instance = api.start(step("a"))
    api.signal(instance, "cancel")
    answer = api.signal(instance, "cancel")
    assert answer.status_code == 400
    expected = f"invalid argument: cannot send signal to instance {instance}: target is in a terminal state"
    assert answer.json() == {"error": expected}


@pytest.mark.needs_own_server("nobody may run its step in between")
def test_api_11_1_control_signals_act_at_once(api: Api):
    instance = api.start(step("a", "noop"), next_fire_at="2099-01-01T00:00:00Z")
    states = []
    for signal in ("pause", "resume", "pause", "cancel"):
        assert api.signal(instance, signal).status_code == 201
        states.append(api.state(instance))
    assert states == ["paused", "running", "paused", "cancelled"], "a resume is due now, whatever start was chosen"


def test_api_11_1_update_context_merges_the_data_of_its_payload(api: Api):
    instance = api.start(step("a"), data={"x": 1, "y": 2})
    assert api.signal(instance, "update_context", {"data": {"y": 3}, "config": {"no": 1}}).status_code == 201
    for ignored in (None, {}, {"data": 5}, [1]):
        assert api.signal(instance, "update_context", ignored).status_code == 201
    context = api.instance(instance)["context"]
    assert (context["data"], context["config"]) == ({"x": 1, "y": 3}, None)


@pytest.mark.parametrize("data", [None, [1], 5])
@pytest.mark.parametrize("payload", [None, {}, {"data": 5}, {"data": {}}])
def test_s9_4_update_context_without_keys_leaves_the_data_as_they_were(api: Api, payload: Any, data: Any):
    instance = api.start(step("a"), data=data)
    assert api.signal(instance, "update_context", payload).status_code == 201
    assert api.instance(instance)["context"]["data"] == data


def test_api_20_2_short_forms_and_alias(api: Api):
    instance = api.start(gated(), step("h", "noop", wait_for_input=GATE))
    answer = api.http.post(f"/instances/{instance}/signal", json={"type": "custom", "payload": {"decision": "go"}})
    assert answer.status_code == 201
    api.run_builtins()
    named = {"signal_type": "custom", "name": "human_input:h", "payload": {"value": "stop"}}
    assert api.http.post(f"/instances/{instance}/signals", json=named).status_code == 201
    api.run_builtins()
    assert api.instance(instance)["context"]["data"] == {"g": "go", "h": "stop"}
    assert api.state(instance) == "completed"


def test_api_20_2_nameless_signal_that_fits_several_gates_is_400_naming_them(api: Api):
    both = {"type": "parallel", "id": "p", "branches": [[gated()], [step("h", "noop", wait_for_input=GATE)]]}
    answer = api.signal(api.start(both), "custom", {"value": "go"})
    assert answer.status_code == 400
    assert "'g'" in answer.json()["error"]
    assert "'h'" in answer.json()["error"]


def test_api_11_2_only_the_exact_answer_opens_the_gate(api: Api):
    instance = api.start(gated(store_as="verdict"))
    for name, payload in (
        ("human_input:g", {"value": "GO"}),
        ("human_input:g", {"decision": "go"}),
        ("human_input:g", None),
        ("human_input:x", {"value": "go"}),
        ("g", {"value": "go"}),
    ):
        assert api.signal(instance, {"custom": name}, payload).status_code == 201
    assert api.state(instance) == "waiting"
    assert api.signal(instance, {"custom": "human_input:g"}, {"value": "go"}).status_code == 201
    api.run_builtins()
    assert api.instance(instance)["context"]["data"] == {"verdict": "go"}
    first = api.outputs(instance)[0]["output"]
    assert (first["value"], first["_orch8_human_gate"]) == ("go", True)
    assert len(api.outputs(instance)) == 2


def test_api_11_2_an_early_answer_waits_for_its_gate(api: Api):
    instance = api.start(step("a"), gated())
    assert api.signal(instance, {"custom": "human_input:g"}, {"value": "stop"}).status_code == 201
    api.complete({})
    api.run_builtins()
    assert api.state(instance) == "completed"


def test_api_11_3_approvals_show_open_gates(api: Api):
    assert api.http.get("/approvals").json() == {"items": [], "total": 0}
    gate = gated(timeout=1.5, store_as="v", escalation_handler="page", allow_comment=True)
    sequence = api.sequence({"type": "parallel", "id": "p", "branches": [[gate]]}, name="shipping")
    instance = api.start_of(sequence, metadata={"k": 1})
    (item,) = api.http.get("/approvals").json()["items"]
    opened = datetime.fromisoformat(item.pop("waiting_since"))
    assert datetime.fromisoformat(item.pop("deadline")) - opened == timedelta(seconds=1.5)
    assert item == {
        "instance_id": instance,
        "tenant_id": TENANT,
        "namespace": "default",
        "sequence_id": sequence,
        "sequence_name": "shipping",
        "block_id": "g",
        "prompt": "Ship?",
        "choices": GATE["choices"],
        "store_as": "v",
        "timeout_seconds": 1.5,
        "escalation_handler": "page",
        "metadata": {"k": 1},
        "allow_comment": True,
    }
    api.signal(instance, {"custom": "human_input:g"}, {"value": "go"})
    assert api.http.get("/approvals").json() == {"items": [], "total": 0}


def test_api_11_3_default_choices_and_open_gates(api: Api):
    api.start(step("g", "noop", wait_for_input={}))
    api.start(step("s", "noop", wait_for_signal=True))
    api.run_builtins()
    items = {item["block_id"]: item for item in api.http.get("/approvals").json()["items"]}
    assert [choice["value"] for choice in items["g"]["choices"]] == ["yes", "no"]
    assert (items["g"]["timeout_seconds"], items["g"]["deadline"], items["g"]["store_as"]) == (None, None, None)
    assert items["s"]["choices"] == []


def test_api_11_3_approvals_are_filtered_and_cut(api: Api):
    first = api.start(gated())
    second = api.start(gated(), namespace="n2")

    def found(**query: Any) -> list[str]:
        answer = api.http.get("/approvals", params=query).json()
        assert answer["total"] == len(answer["items"])
        return [item["instance_id"] for item in answer["items"]]

    assert found() == [second, first]
    assert found(namespace="n2") == [second]
    assert found(limit=1) == [second]
    assert found(offset=1) == [first]
    assert api.http.get("/approvals", headers={"X-Tenant-Id": "other"}).json()["total"] == 0
