"""What is called beside the flow, as clients see it (contract, sequences §5.5, §5.8, §14; api §8.3, §11.3, §16)."""

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.contract.client import Api, step
from tests.support.drive import Completed

NOTED = {"handler": "noop", "params": {"by": "test"}}
ALL = dict.fromkeys(("before_step", "after_step", "on_signal", "on_complete", "on_failure"), NOTED)


def ids(api: Api, instance: str) -> list[str]:
    return [row["block_id"] for row in api.outputs(instance)]


def test_s14_rows_are_ordered_by_created_at(api: Api):
    sequence = api.sequence(step("a"), step("b", "noop"), interceptors=ALL)
    assert api.http.get(f"/sequences/{sequence}").json()["interceptors"] == ALL
    instance = api.start_of(sequence)
    api.signal(instance, {"custom": "hello"}, {"x": 1})
    api.complete({"v": 1})
    api.run_builtins()
    rows = api.outputs(instance)
    assert [row["block_id"] for row in rows] == [
        "_interceptor:before:a",
        "_interceptor:on_signal",
        "a",
        "_interceptor:after:a",
        "_interceptor:before:b",
        "b",
        "_interceptor:after:b",
        "_interceptor:on_complete",
    ]
    assert [row["created_at"] for row in rows] == sorted(row["created_at"] for row in rows)
    signal = rows[1]["output"]
    assert signal == {"by": "test", "_signal": {"signal_type": {"custom": "hello"}, "payload": {"x": 1}}}
    assert all(row["output"] == {"by": "test"} for row in rows if row["block_id"].startswith("_interceptor:before"))
    assert api.state(instance) == "completed"
    metadata = api.instance(instance)["metadata"]
    assert metadata is None


def test_s14_on_failure_row_stands_with_the_state(api: Api):
    instance = api.start_of(api.sequence(step("a"), interceptors=ALL))
    api.fail()
    assert (api.state(instance), ids(api, instance)[-1]) == ("failed", "_interceptor:on_failure")
    assert "_interceptor:after:a" not in ids(api, instance)


def test_s14_external_handlers_of_interceptors_are_tasks_like_any_other(api: Api):
    hook = {"handler": "audit", "params": {"at": "{{ step.id }}"}}
    instance = api.start_of(api.sequence(step("a"), interceptors={"before_step": hook}))
    (task,) = api.poll("audit")
    assert (task["block_id"], task["params"], task["instance_id"]) == ("_interceptor:before:a", {"at": "a"}, instance)
    assert task["timeout_ms"] == 30_000
    listed = api.http.get("/workers/tasks", params={"handler_name": "audit"}).json()
    assert [item["params"] for item in listed if item["id"] == task["id"]] == [{"at": "a"}]
    api.complete({"v": 1})
    assert api.state(instance) == "completed"
    assert api.report(task, "complete", output={"seen": 1}).status_code == 200
    assert api.outputs(instance)[0]["output"] == {"at": "a", "_result": {"seen": 1}}
    assert api.report(task, "complete", output={"seen": 2}).status_code == 409
    assert (api.state(instance), len(api.outputs(instance))) == ("completed", 2)


@pytest.mark.needs_own_server("nobody may run its steps in between")
def test_s14_an_output_that_is_held_back_is_replaced(api: Api):
    hide = {"handler": "transform", "params": {"output": {"card": "***"}}}
    instance = api.start_of(api.sequence(step("a"), step("b"), interceptors={"after_step": hide}))
    api.complete({"card": "4711"})
    assert (api.state(instance), ids(api, instance), api.states(instance)["a"]) == ("running", [], "running")
    api.run_builtins(transform=lambda params: Completed(output=params))
    assert api.outputs(instance)[0]["output"] == {"card": "***"}
    assert (api.state(instance), api.instance(instance)["context"]["data"]) == ("waiting", {"card": "***"})


@pytest.mark.needs_own_server("nobody may run its steps in between")
def test_s14_hooks_run_after_the_final_state_and_never_revive(api: Api):
    hook = [step("tidy", "noop"), step("tell", "outside"), step("last", "noop")]
    instance = api.start_of(api.sequence(step("a"), on_failure=hook))
    api.fail("broken")
    before = api.instance(instance)
    assert (before["state"], ids(api, instance)) == ("failed", [])
    api.run_builtins()
    api.complete({"told": True})
    after = api.instance(instance)
    assert ids(api, instance) == ["tidy", "last", "tell"]
    assert after == before
    assert "tidy" not in api.tree(instance)
    assert api.http.post(f"/instances/{instance}/retry").status_code == 200
    api.complete({})
    assert (api.state(instance), ids(api, instance)) == ("completed", ["tidy", "last", "tell", "a"])


def test_s5_8_a_missed_deadline_withdraws_the_task(api: Api):
    breach = {"handler": "page", "params": {"who": "ops"}}
    instance = api.start(step("a", deadline=60_000, on_deadline_breach=breach))
    (task,) = api.poll()
    _elapse(api)
    assert (api.state(instance), len(api.outputs(instance))) == ("failed", 1)
    row = api.outputs(instance)[0]
    assert (row["block_id"], row["output"]["_error"], row["output"]["_deadline_ms"]) == (
        "a",
        "sla_deadline_breached",
        60_000,
    )
    assert api.report(task, "complete", output={}).status_code == 409
    (page,) = api.poll("page")
    assert (page["params"]["who"], page["params"]["_breach_block_id"]) == ("ops", "a")
    assert api.report(page, "complete", output={"paged": 1}).status_code == 200
    assert len(api.outputs(instance)) == 1


def test_s5_3_next_fire_at_is_that_of_the_delay_whatever_else_is_watched(api: Api):
    blocks = [step("a", "noop", delay={"duration": 3_600_000})]
    instance = api.start_of(api.sequence(*blocks, sla={"max_runtime": 1000}))
    shown = api.instance(instance)
    due = datetime.fromisoformat(shown["next_fire_at"]) - datetime.fromisoformat(shown["created_at"])
    assert timedelta(minutes=59) < due < timedelta(minutes=61)


def test_s14_an_sla_that_is_missed_is_an_event_and_a_metric(api: Api):
    sla = {"max_runtime": 60_000, "max_step_runtime": 60_000}
    instance = api.start_of(api.sequence(step("a"), sla=sla))
    before = _breaches(api)
    _elapse(api)
    assert api.state(instance) == "waiting"
    assert sorted(ids(api, instance)) == ["_sla:runtime", "_sla:step:a"]
    events = [row for row in api.http.get(f"/instances/{instance}/audit").json() if row["event_type"] == "sla_breached"]
    assert {row["details"]["type"] for row in events} == {"max_runtime", "max_step_runtime"}
    assert all(row["details"]["limit_ms"] == 60_000 <= row["details"]["elapsed_ms"] for row in events)
    assert _breaches(api) == {kind: count + 1 for kind, count in before.items()}
    api.complete({})
    assert api.state(instance) == "completed"


def test_api_11_3_an_open_gate_shows_all_its_fields(api: Api):
    gate = {"prompt": "Ship?", "timeout": 90_000, "escalation_handler": "boss", "store_as": "go", "allow_comment": True}
    instance = api.start(step("g", "noop", wait_for_input=gate, deadline=30_000), metadata={"team": "x"})
    (item,) = api.http.get("/approvals").json()["items"]
    since = datetime.fromisoformat(item.pop("waiting_since"))
    assert datetime.fromisoformat(item.pop("deadline")) - since == timedelta(seconds=90)
    assert item == {
        "instance_id": instance,
        "tenant_id": "acme",
        "namespace": "default",
        "sequence_id": api.instance(instance)["sequence_id"],
        "sequence_name": item["sequence_name"],
        "block_id": "g",
        "prompt": "Ship?",
        "choices": [{"label": "Yes", "value": "yes"}, {"label": "No", "value": "no"}],
        "store_as": "go",
        "timeout_seconds": 90,
        "escalation_handler": "boss",
        "metadata": {"team": "x"},
        "allow_comment": True,
    }


def _elapse(api: Api) -> None:
    """Let two minutes pass."""
    with api.engine.store.transaction() as tx:
        tx.execute("UPDATE timers SET due_at = due_at - interval '2 minutes'")
        tx.execute(
            "UPDATE steps SET deadline_at = deadline_at - interval '2 minutes', "
            "started_at = started_at - interval '2 minutes', wake_at = wake_at - interval '2 minutes'"
        )
        tx.execute("UPDATE instances SET created_at = created_at - interval '2 minutes', version = version + 1")
    api.fire_due()


def _breaches(api: Api) -> dict[str, float]:
    text = api.http.get(f"{api.root}/metrics").text
    found: dict[str, Any] = {}
    for line in text.splitlines():
        if line.startswith("orch8_sla_breached_total{"):
            found[line.partition('type="')[2].partition('"')[0]] = float(line.rpartition(" ")[2])
    assert set(found) == {"max_runtime", "max_step_runtime"}
    return found


def test_s10_an_escalation_that_is_still_called_leaves_its_block_completed(api: Api):
    instance_id = api.start(step("g", "noop", wait_for_input={"timeout": 1.5, "escalation_handler": "boss"}))
    api.pass_time()
    node = api.tree(instance_id)["g"]
    assert (api.state(instance_id), node["state"]) == ("completed", "completed")
    assert node["started_at"] is not None
    api.complete(handler="boss")
    assert api.tree(instance_id)["g"] == node
