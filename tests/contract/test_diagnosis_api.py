"""Why an instance stands where it stands, and what can be done about it (contract, api §21)."""

from typing import Any
from uuid import uuid4

import pytest

from orchestrator.store import workers
from tests.contract.client import Api, step

OTHER = {"X-Tenant-Id": "other"}
RETRY = {"max_attempts": 3, "initial_backoff": 60_000, "max_backoff": 60_000}
HOUR = 3_600_000


def diagnosis(api: Api, instance_id: str) -> dict[str, Any]:
    answer = api.http.get(f"/instances/{instance_id}/diagnosis")
    assert answer.status_code == 200, answer.text
    return answer.json()


def causes(api: Api, instance_id: str) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in diagnosis(api, instance_id)["causes"]}


def remediations(api: Api, instance_id: str) -> list[dict[str, Any]]:
    answer = api.http.get(f"/instances/{instance_id}/remediations")
    assert answer.status_code == 200, answer.text
    return answer.json()


def apply(api: Api, instance_id: str, preview_id: str):
    return api.http.post(f"/instances/{instance_id}/remediations/{preview_id}/apply")


def test_api_21_a_task_that_nobody_takes_is_explained(api: Api):
    instance_id = api.start(step("a", handler=f"unheard-{uuid4()}"))
    shown = diagnosis(api, instance_id)
    assert list(shown) == ["instance_id", "state", "summary", "causes", "next", "generated_at"]
    [_, cause] = shown["causes"]
    assert (cause["name"], cause["severity"], cause["block_id"]) == ("unknown_handler", "warning", "a")
    assert shown["summary"] == cause["what"]
    assert shown["next"] == {"what": "a worker claims step 'a'", "at": None, "block_id": "a"}
    assert remediations(api, instance_id) == []


def test_api_21_a_task_that_is_polled_is_queued_and_then_run(api: Api):
    api.poll("heard")
    instance_id = api.start(step("a", handler="heard"))
    assert "queued" in causes(api, instance_id)
    named = api.start(step("a", handler="heard", queue_name="far"))
    assert "queue_without_worker" in causes(api, named)
    api.poll("heard", worker="w7")
    cause = causes(api, instance_id)["running"]
    assert cause["details"]["worker"] == "w7"
    assert diagnosis(api, instance_id)["next"]["what"] == "the worker reports about step 'a'"


def test_api_21_pollers_of_other_tenants_serve_nobody_here(api: Api):
    api.http.post(
        "/workers/tasks/poll", json={"handler_name": "theirs", "worker_id": "w"}, headers=OTHER
    ).raise_for_status()
    assert "unknown_handler" in causes(api, api.start(step("a", handler="theirs")))


def test_api_21_a_claim_of_a_dead_worker_is_named(api: Api):
    instance_id = api.start(step("a", "noop"))
    with api.engine.store.transaction() as tx:
        tx.execute(
            "UPDATE steps SET state = 'claimed', worker_id = %s, worker_name = 'gone', token = gen_random_uuid(), "
            "claimed_at = clock_timestamp()",
            (uuid4(),),
        )
    assert "stuck_claim" in causes(api, instance_id)


def test_api_21_a_queue_that_only_others_serve_is_named(api: Api):
    with api.engine.store.transaction() as tx:
        workers.register(tx, uuid4(), name="w", kind="celery", queues=["default"], handlers=["noop"], slots=1)
    assert "queued" in causes(api, api.start(step("a", "noop")))
    assert "queue_without_worker" in causes(api, api.start(step("a", "noop", queue_name="gpu")))


def test_api_21_a_gate_says_what_it_asks_and_which_signal_answers_it(api: Api):
    gate = {"prompt": "Go?", "timeout": HOUR, "choices": [{"label": "Y", "value": "y"}, {"label": "N", "value": "n"}]}
    instance_id = api.start(step("a", wait_for_input=gate))
    cause = causes(api, instance_id)["gate"]
    assert cause["until"] is not None
    details = cause["details"]
    assert (details["signal"], details["prompt"], details["choices"]) == ("human_input:a", "Go?", ["y", "n"])
    following = diagnosis(api, instance_id)["next"]
    assert following == {"what": "the time to answer step 'a' is over", "at": cause["until"], "block_id": "a"}
    api.signal(instance_id, {"custom": details["signal"]}, {"value": "y"})
    assert "gate" not in causes(api, instance_id)


@pytest.mark.parametrize(
    ("block", "name", "what"),
    [
        (step("a", delay={"duration": HOUR}), "delayed", "the delay of step 'a' is over"),
        (
            {"type": "sub_sequence", "id": "a", "sequence_name": "child"},
            "child",
            "child",
        ),
    ],
)
def test_api_21_moments_and_children_are_told(api: Api, block: dict[str, Any], name: str, what: str):
    api.sequence(step("x"), name="child")
    instance_id = api.start(block)
    cause = causes(api, instance_id)[name]
    assert cause["block_id"] == "a"
    assert diagnosis(api, instance_id)["next"]["what"].startswith(what)


def test_api_21_an_instance_that_was_put_off_says_until_when(api: Api):
    instance_id = api.start(step("a"), next_fire_at="2100-01-01T00:00:00Z")
    assert causes(api, instance_id)["not_started"]["until"] == "2100-01-01T00:00:00Z"
    assert diagnosis(api, instance_id)["next"]["at"] == "2100-01-01T00:00:00Z"


def test_api_21_a_failure_is_explained_and_retried_once(api: Api):
    instance_id = api.start(step("a"), step("b"))
    api.complete({"n": 1})
    api.fail("order 5 is gone")
    shown = diagnosis(api, instance_id)
    cause = shown["causes"][1]
    assert (cause["name"], cause["severity"], cause["block_id"]) == ("failed", "error", "b")
    assert "order 5 is gone" in shown["summary"]
    assert cause["details"]["last_attempt"] == {"block_id": "b", "handler": "outside", "outcome": "failed"}
    [group] = api.http.get("/instances/dlq/groups").json()
    assert cause["details"]["fingerprint"] == group["fingerprint"]
    assert shown["next"] is None

    before = api.instance(instance_id)
    [preview] = remediations(api, instance_id)
    assert (preview["action"], preview["safe"], preview["from_state"], preview["to_state"]) == (
        "retry",
        True,
        "failed",
        "waiting",
    )
    assert [(each["block_id"], each["state"], each["attempt"]) for each in preview["steps"]] == [("b", "ready", 0)]
    assert api.instance(instance_id) == before
    answer = apply(api, instance_id, preview["preview_id"])
    assert (answer.status_code, answer.json()) == (
        200,
        {
            "preview_id": preview["preview_id"],
            "instance_id": instance_id,
            "action": "retry",
            "state": preview["to_state"],
        },
    )
    assert api.states(instance_id) == {"a": "completed", "b": "waiting"}
    again = apply(api, instance_id, preview["preview_id"])
    assert again.status_code == 409
    assert again.json()["error"].startswith(f"conflict: instance {instance_id} no longer stands as previewed")
    api.complete(2)
    assert api.state(instance_id) == "completed"


def test_api_21_a_failure_that_a_client_has_set_is_not_told_as_an_older_one(api: Api):
    instance_id = api.start(step("a"))
    api.fail("old reason")
    api.http.post(f"/instances/{instance_id}/retry").raise_for_status()
    api.http.patch(f"/instances/{instance_id}/state", json={"state": "failed"}).raise_for_status()
    cause = causes(api, instance_id)["failed"]
    assert "as a client has set it" in cause["what"]
    assert (cause["block_id"], cause["details"]["error"]) == (None, None)


def test_api_21_a_preview_of_another_failure_is_refused(api: Api):
    instance_id = api.start(step("a"))
    api.fail("first")
    [preview] = remediations(api, instance_id)
    api.http.post(f"/instances/{instance_id}/retry").raise_for_status()
    api.fail("second")
    assert api.state(instance_id) == "failed"
    assert apply(api, instance_id, preview["preview_id"]).status_code == 409
    assert api.state(instance_id) == "failed"


def test_api_21_a_claim_meanwhile_makes_a_preview_old(api: Api):
    instance_id = api.start(step("a"))
    api.signal(instance_id, "pause")
    [preview] = remediations(api, instance_id)
    assert preview["action"] == "resume"
    with api.engine.store.transaction() as tx:
        tx.execute("UPDATE steps SET attempt = attempt + 1")
    assert apply(api, instance_id, preview["preview_id"]).status_code == 409


@pytest.mark.needs_own_server("nobody may run its steps in between")
def test_api_21_a_paused_instance_is_resumed(api: Api):
    instance_id = api.start(step("a", "noop"))
    api.signal(instance_id, "pause")
    assert {"paused", "held"} <= set(causes(api, instance_id))
    assert diagnosis(api, instance_id)["next"]["what"] == "somebody resumes the instance"
    [preview] = remediations(api, instance_id)
    assert (preview["action"], preview["from_state"], preview["to_state"]) == ("resume", "paused", "running")
    assert apply(api, instance_id, preview["preview_id"]).json()["state"] == "running"
    assert "paused" not in causes(api, instance_id)


def test_api_21_a_pause_while_others_are_waited_for_leaves_them_next(api: Api):
    instance_id = api.start(step("a"))
    api.signal(instance_id, "pause")
    assert api.state(instance_id) == "waiting"
    assert "nothing behind that begins" in causes(api, instance_id)["paused"]["what"]
    assert diagnosis(api, instance_id)["next"]["what"] == "a worker claims step 'a'"


def test_api_21_a_parked_instance_says_why(api: Api):
    instance_id = api.start(step("a"), step("b"), budget={"max_steps": 0})
    if api.state(instance_id) != "paused":
        api.complete(1)
    cause = causes(api, instance_id)["parked"]
    assert cause["severity"] == "warning"
    assert cause["details"]["kind"] == "budget"


def test_api_21_a_back_off_is_explained_and_cut_short(api: Api):
    instance_id = api.start(step("a", retry=RETRY))
    api.fail("busy", retryable=True)
    cause = causes(api, instance_id)["backoff"]
    assert "busy" in cause["what"]
    assert cause["details"]["last_error"]["message"] == "busy"
    assert diagnosis(api, instance_id)["next"] == {
        "what": "step 'a' is tried again",
        "at": cause["until"],
        "block_id": "a",
    }
    [preview] = remediations(api, instance_id)
    assert preview["action"] == "retry_now"
    assert apply(api, instance_id, preview["preview_id"]).status_code == 200
    api.fire_due()
    api.complete(1)
    assert api.state(instance_id) == "completed"


def test_api_21_a_delay_beside_a_back_off_is_not_cut_short(api: Api):
    branches = [[step("a", retry=RETRY)], [step("b", delay={"duration": HOUR})]]
    instance_id = api.start({"type": "parallel", "id": "p", "branches": branches})
    api.fail("busy", retryable=True)
    assert api.state(instance_id) == "scheduled"
    assert remediations(api, instance_id) == []


def test_api_21_ended_instances_have_nothing_next(api: Api):
    done = api.start(step("a"))
    api.complete(1)
    cancelled = api.start(step("a"))
    api.signal(cancelled, "cancel")
    for instance_id, name in ((done, "completed"), (cancelled, "cancelled")):
        assert name in causes(api, instance_id)
        assert diagnosis(api, instance_id)["next"] is None
        assert remediations(api, instance_id) == []


def test_api_21_the_workbench_shows_all_of_it_together(api: Api):
    instance_id = api.start(step("a"), step("b"))
    [task] = api.poll()
    api.report(task, "complete", output=1, logs=["one line"]).raise_for_status()
    api.fail("gone")
    api.signal(instance_id, {"custom": "later"}, 1)
    answer = api.http.get(f"/instances/{instance_id}/workbench")
    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert shown["instance"] == api.instance(instance_id)
    assert shown["diagnosis"]["causes"] == diagnosis(api, instance_id)["causes"]
    assert shown["remediations"] == remediations(api, instance_id)
    assert shown["tree"] == api.http.get(f"/instances/{instance_id}/tree").json()
    assert shown["attempts"] == api.http.get(f"/instances/{instance_id}/attempts").json()
    assert shown["audit"] == api.http.get(f"/instances/{instance_id}/audit").json()
    assert [line["message"] for line in shown["logs"]] == ["one line"]
    assert (shown["signals"], shown["children"]) == ([], [])


@pytest.mark.parametrize("preview_id", ["x", "retry", "retry-", f"retry-{'g' * 24}", f"cancel-{'0' * 24}", "ä"])
def test_api_21_what_is_no_preview_is_not_found(api: Api, preview_id: str):
    instance_id = api.start(step("a"))
    assert apply(api, instance_id, preview_id).status_code == 404
    assert apply(api, instance_id, f"retry-{'0' * 24}").status_code == 409


def test_api_21_foreign_and_unknown_instances_are_not_found(api: Api):
    instance_id = api.start(step("a"))
    api.signal(instance_id, "pause")
    [preview] = remediations(api, instance_id)
    for verb in ("diagnosis", "remediations", "workbench"):
        assert api.http.get(f"/instances/{uuid4()}/{verb}").status_code == 404
        assert api.http.get(f"/instances/{instance_id}/{verb}", headers=OTHER).status_code == 404
        assert api.http.get(f"/instances/5/{verb}").status_code == 400
    path = f"/instances/{instance_id}/remediations/{preview['preview_id']}/apply"
    assert api.http.post(path, headers=OTHER).status_code == 404
    assert api.http.post(path.replace(instance_id, str(uuid4()))).status_code == 404
    assert "paused" in causes(api, instance_id)
