"""The ready sequences about who may see and decide: deploy, observed, least_privilege, verify_email."""

from datetime import timedelta
from typing import Any

import pytest

from orchestrator.testing import Harness, PermanentError, RetryableError, Run, answer, at, script, takes, waiting
from sequences import library
from tests.support.library import calls, moments
from workers import StepContext

# -- deploy ------------------------------------------------------------------------------------------------------------

COMMIT = library.example_input("deploy")
NOTICE = {"http_request": {"status": 200, "body": ""}}
APPROVED = at(waiting("approve"), answer("approve", "approved"))


def deploy(harness: Harness, *signals: Any, **handlers: Any) -> Run:
    return harness.run("deploy", COMMIT, handlers={**NOTICE, **handlers}, signals=signals)


def test_deploy_releases_what_a_person_approves(harness: Harness) -> None:
    run = deploy(harness, APPROVED)
    run.expect("completed", data={"decision": "approved"}, not_ran=["approve_backup", "tell_rejected"])
    assert [call.block_id for call in run.executions if call.handler != "http_request"] == [
        "ci",
        "diff",
        "approve",
        "release",
        "tell_team",
    ]


def test_deploy_tells_the_reviewers_when_it_begins_to_wait(harness: Harness) -> None:
    run = deploy(harness, at("3h", answer("approve", "approved")))
    [notice] = [call for call in run.executions if call.handler == "http_request"]
    assert notice.at - calls(run, "ci")[0].at < timedelta(seconds=1)
    assert notice.params["url"] == "https://hooks.slack.example/deploys"
    assert notice.params["body"]["reviewer"] == "release-team"
    assert notice.params["body"]["review_data"] == {"files": 3}


def test_deploy_gives_the_comment_of_a_rejection_to_the_team(harness: Harness) -> None:
    run = deploy(harness, at(waiting("approve"), answer("approve", "rejected", comment="tests are thin")))
    run.expect("completed", data={"decision": "rejected"}, not_ran=["release", "approve_backup"])
    assert next(row.output.get("comment") for row in run.rows if row.block_id == "approve") == "tests are thin"
    assert calls(run, "tell_rejected")[0].result == "completed"


def test_deploy_says_so_when_no_reason_was_given(harness: Harness) -> None:
    run = deploy(harness, at(waiting("approve"), answer("approve", "rejected")))
    assert calls(run, "tell_rejected")[0].params == {"text": "rejected: no reason given"}


def test_deploy_asks_the_backup_after_four_silent_hours(harness: Harness) -> None:
    run = deploy(harness)
    run.expect("waiting", standing={"approve_backup": "gate"}, not_ran=["release", "tell_rejected"])
    assert run.elapsed == timedelta(hours=4)
    [told] = [call for call in run.executions if call.handler == "notify_backup_reviewer"]
    assert told.params["prompt"] == "Deploy?"
    run.answer("approve_backup", "approved")
    run.expect("completed", data={"decision": "approved"})
    assert calls(run, "release")[0].result == "completed"


def test_deploy_does_not_release_what_the_backup_rejects(harness: Harness) -> None:
    run = deploy(harness).answer("approve_backup", "rejected")
    run.expect("completed", not_ran=["release"])


def test_deploy_asks_nobody_when_the_tests_stay_red(harness: Harness) -> None:
    run = deploy(harness, run_ci=RetryableError("red"))
    run.expect("failed", ran=["ci"] * 3)
    assert moments(run, "ci") == [timedelta(seconds=second) for second in (0, 10, 30)]


def test_deploy_finishes_a_release_that_has_begun(harness: Harness) -> None:
    """The release is shielded; what comes after it does not start."""
    slow = takes("10m", {"released": True})
    cancel = at("4m", "cancel")
    run = deploy(harness, at("1m", answer("approve", "approved")), cancel, deploy_release=slow)
    run.expect("cancelled", outputs={"release": {"released": True}}, not_ran=["tell_team"])
    assert run.elapsed == timedelta(minutes=11)


# -- observed ----------------------------------------------------------------------------------------------------------

CUSTOMER = library.example_input("observed")
BESIDE = ("_interceptor:before:load", "_interceptor:after:load", "_interceptor:before:act", "_interceptor:after:act")


def redact(step: str, output: dict[str, Any]) -> dict[str, Any]:
    """Take the address out of what the customer's step returns."""
    return {"output": {"customer": {**output["customer"], "email": "***"}}} if step == "load" else {}


def test_observed_logs_before_and_after_each_step_and_at_the_end(harness: Harness) -> None:
    run = harness.run("observed", CUSTOMER)
    run.expect("completed")
    written = [row.block_id for row in run.rows if row.ref is None]
    before_load, load, after_load, before_act, act, after_act, end = written
    assert (before_load, after_load, before_act, after_act) == BESIDE
    assert (load, act, end) == ("load", "act", "_interceptor:on_complete")


def test_observed_gives_the_log_the_params_of_each_step(harness: Harness) -> None:
    run = harness.run("observed", CUSTOMER)
    assert [call.params for call in run.executions if call.handler == "audit_log"] == [
        {"event": "start", "step": "load", "input": {"id": "c-42"}},
        {"event": "start", "step": "act", "input": {"customer": run.outputs["load"]}},
    ]


def test_observed_takes_personal_data_out_before_the_output_is_stored(harness: Harness) -> None:
    run = harness.run("observed", CUSTOMER, handlers={"redact_pii": redact})
    run.expect("completed", outputs={"load": {"customer": {"name": "Ada", "email": "***"}}})
    assert calls(run, "act")[-1].params["customer"]["customer"]["email"] == "***"


def test_observed_goes_on_when_the_log_is_away(harness: Harness) -> None:
    run = harness.run("observed", CUSTOMER, handlers={"audit_log": PermanentError("disk full")})
    run.expect("completed", outputs={"act": {"done": True}})
    assert [row.output for row in run.rows if row.block_id == BESIDE[0]][-1] == {"_error": "disk full"}


def test_observed_pages_somebody_when_it_fails(harness: Harness) -> None:
    run = harness.run("observed", CUSTOMER, handlers={"do_work": PermanentError("no stock")})
    run.expect("failed")
    [page] = [call for call in run.executions if call.handler == "page_oncall"]
    assert page.params == {"instance": str(run.id), "error": "no stock"}
    assert "_interceptor:on_complete" not in run.outputs


def test_observed_notes_a_signal(harness: Harness) -> None:
    run = harness.run("observed", CUSTOMER, signals=[at(timedelta(0), {"custom": "hello"}, {"n": 1})])
    run.expect("completed")
    row = run.outputs["_interceptor:on_signal"]
    assert (row["event"], row["_signal"]["payload"]) == ("signal", {"n": 1})


# -- least_privilege ---------------------------------------------------------------------------------------------------

ORDER = library.example_input("least_privilege")


def test_least_privilege_shows_the_vendor_two_fields_and_no_secrets(harness: Harness) -> None:
    seen: dict[str, Any] = {}

    def look(ctx: StepContext, params: Any) -> dict[str, Any]:
        seen[ctx.block_id] = (ctx.context["data"], ctx.context["config"])
        return {"ref": "V-9"}

    run = harness.run(
        "least_privilege", ORDER, config={"key": "secret"}, handlers={"vendor_plugin": look, "book_order": look}
    )
    run.expect("completed")
    assert seen["vendor"] == ({"order_id": "A-1001", "items": ORDER["items"]}, {})
    data, config = seen["internal"]
    assert (data["card_token"], config) == ("not for vendors", {"key": "secret"})
    assert calls(run, "internal")[0].params == {"vendor_ref": "V-9"}


@pytest.mark.parametrize("error", [PermanentError("refused"), RetryableError("vendor is away")])
def test_least_privilege_books_nothing_without_the_vendor(harness: Harness, error: Exception) -> None:
    run = harness.run("least_privilege", ORDER, handlers={"vendor_plugin": error})
    run.expect("failed", ran=["vendor"])


# -- verify_email ------------------------------------------------------------------------------------------------------

ADDRESS = library.example_input("verify_email")
CLICK = answer("confirm", "yes")


def verify(harness: Harness, *signals: Any, session: Any = None, **handlers: Any) -> Run:
    return harness.run("verify_email", ADDRESS, handlers=handlers, signals=signals, session=session)


def test_verify_email_writes_to_the_session_when_the_link_is_clicked(harness: Harness) -> None:
    run = verify(harness, at("1h", CLICK), session={"locale": "de"})
    run.expect("completed", ran=["send", "confirm", "share"])
    assert calls(run, "send")[0].params == {"email": "ada@example.com", "locale": "de"}
    assert run.session == {"locale": "de", "email_verified": True}


def test_verify_email_speaks_english_to_a_session_without_a_language(harness: Harness) -> None:
    run = verify(harness, at("1h", CLICK), session={})
    assert calls(run, "send")[0].params["locale"] == "en"


def test_verify_email_reminds_the_user_after_a_day(harness: Harness) -> None:
    run = verify(harness, session={})
    [told] = [call for call in run.executions if call.handler == "remind_user"]
    assert told.params["block_id"] == "confirm"
    assert run.elapsed == timedelta(days=1)
    run.expect("completed")


def test_verify_email_waits_when_the_mail_was_not_sent(harness: Harness) -> None:
    run = verify(harness, session={}, send_verification=script(PermanentError("bounced"), {}))
    run.expect("failed", ran=["send"])
    run.retry().go(timedelta(hours=1))
    run.expect("waiting", standing={"confirm": "gate"})
