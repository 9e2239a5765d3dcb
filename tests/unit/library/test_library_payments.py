"""The ready sequences about money: payment_failover, dunning, payment_failed."""

from datetime import timedelta

import pytest

from orchestrator.testing import Harness, PermanentError, RetryableError, answer, at, hangs, script, silent, waiting
from sequences import library
from tests.support.library import calls, moments
from workers import StepContext

ORDER = library.example_input("payment_failover")
ACCOUNT = library.example_input("dunning")
SMALL = {**ACCOUNT, "account_value": 500}
AWAY = RetryableError("bad gateway", details={"status": 502})
DAY = timedelta(days=1)


# -- payment_failover --------------------------------------------------------------------------------------------------


def test_payment_failover_asks_nobody_else_when_stripe_charges(harness: Harness) -> None:
    run = harness.run("payment_failover", ORDER)
    run.expect("completed", ran=["prepare", "stripe_charge", "record"])
    assert calls(run, "record")[0].params == {"order_id": "A-1001", "charge_id": "ch_stripe"}


def test_payment_failover_falls_to_the_third_provider_after_each_has_been_tried_three_times(harness: Harness) -> None:
    run = harness.run("payment_failover", ORDER, handlers={"stripe_charge": AWAY, "braintree_charge": AWAY})
    run.expect("completed", not_ran=[])
    assert [call.block_id for call in calls(run, "stripe_charge", "braintree_charge", "adyen_charge")] == [
        *["stripe_charge"] * 3,
        *["braintree_charge"] * 3,
        "adyen_charge",
    ]
    assert calls(run, "record")[0].params["charge_id"] == "ch_adyen"
    assert run.logs == [
        ("log_stripe", "warn", "stripe failed: bad gateway"),
        ("log_braintree", "warn", "braintree failed: bad gateway"),
    ]


def test_payment_failover_backs_off_one_second_then_two(harness: Harness) -> None:
    run = harness.run("payment_failover", ORDER, handlers={"stripe_charge": script(AWAY, AWAY, {"charge_id": "ch"})})
    run.expect("completed", not_ran=["log_stripe", "braintree_charge"])
    assert moments(run, "stripe_charge") == [timedelta(seconds=second) for second in (0, 1, 3)]


def test_payment_failover_uses_one_idempotency_key_for_all_attempts_and_providers(harness: Harness) -> None:
    run = harness.run("payment_failover", ORDER, handlers={"stripe_charge": AWAY, "braintree_charge": AWAY})
    charges = calls(run, "stripe_charge", "braintree_charge", "adyen_charge")
    assert {call.params["idempotency_key"] for call in charges} == {"charge-A-1001"}
    assert {call.params["charge"]["currency"] for call in charges} == {"eur"}


def test_payment_failover_takes_usd_when_no_currency_is_given(harness: Harness) -> None:
    run = harness.run("payment_failover", {"order_id": "A-1", "amount": 100})
    assert run.outputs["prepare"]["currency"] == "usd"


def test_payment_failover_does_not_retry_a_declined_card(harness: Harness) -> None:
    run = harness.run(
        "payment_failover", ORDER, handlers={"stripe_charge": RetryableError("declined", code="card_declined")}
    )
    run.expect("completed")
    assert len(calls(run, "stripe_charge")) == 1
    assert calls(run, "record")[0].params["charge_id"] == "ch_braintree"


def test_payment_failover_does_not_retry_what_is_no_listed_error(harness: Harness) -> None:
    run = harness.run("payment_failover", ORDER, handlers={"stripe_charge": RetryableError("no such currency")})
    assert len(calls(run, "stripe_charge")) == 1
    run.expect("completed")


def test_payment_failover_waits_fifteen_seconds_for_a_provider_that_hangs(harness: Harness) -> None:
    run = harness.run("payment_failover", ORDER, handlers={"stripe_charge": hangs()})
    run.expect("completed")
    assert moments(run, "stripe_charge") == [timedelta(seconds=second) for second in (0, 16, 33)]
    assert moments(run, "braintree_charge") == [timedelta(seconds=48)]


def test_payment_failover_ends_in_the_dead_letters_and_goes_on_from_there(harness: Harness) -> None:
    parts = {"stripe_charge": AWAY, "braintree_charge": AWAY, "adyen_charge": script(AWAY, AWAY, {"charge_id": "late"})}
    run = harness.run("payment_failover", ORDER, handlers=parts)
    run.expect("failed", not_ran=["record"])
    assert len(calls(run, "adyen_charge")) == 2
    run.retry().go()
    run.expect("completed")
    assert calls(run, "record")[0].params["charge_id"] == "late"
    assert len(calls(run, "prepare")) == 1


def test_payment_failover_records_one_charge_whatever_crashes(harness: Harness) -> None:
    parts = {"stripe_charge": AWAY, "braintree_charge": AWAY}
    points = ("after_handler", "before_commit")
    assert harness.every_crash("payment_failover", ORDER, handlers=parts, points=points).schedules > 30


# -- dunning -----------------------------------------------------------------------------------------------------------


def test_dunning_ends_after_three_days_when_the_second_charge_is_paid(harness: Harness) -> None:
    run = harness.run("dunning", ACCOUNT, handlers={"retry_charge": {"paid": True}})
    run.expect("completed", ran=["notify_failed", "charge_2", "confirm_2"])
    assert run.elapsed == 3 * DAY
    assert [call.params["template"] for call in calls(run, "notify_failed", "confirm_2")] == [
        "payment_failed",
        "payment_ok",
    ]


def test_dunning_ends_after_eight_days_when_the_third_charge_is_paid(harness: Harness) -> None:
    def charge(ctx: StepContext) -> dict[str, bool]:
        return {"paid": ctx.block_id == "charge_3"}

    run = harness.run("dunning", ACCOUNT, handlers={"retry_charge": charge})
    run.expect("completed", ran=["notify_failed", "charge_2", "urgent", "charge_3", "confirm_3"])
    assert run.elapsed == 8 * DAY


def test_dunning_retries_a_charge_that_the_bank_did_not_answer(harness: Harness) -> None:
    parts = {"retry_charge": script(RetryableError("bank is away"), {"paid": True})}
    run = harness.run("dunning", ACCOUNT, handlers=parts)
    run.expect("completed")
    assert moments(run, "charge_2") == [3 * DAY, 3 * DAY + timedelta(seconds=5)]


def test_dunning_ends_in_the_dead_letters_when_the_bank_never_answers(harness: Harness) -> None:
    run = harness.run("dunning", ACCOUNT, handlers={"retry_charge": RetryableError("bank is away")})
    run.expect("failed", not_ran=["urgent"])
    assert len(calls(run, "charge_2")) == 3


def test_dunning_suspends_when_a_person_says_so(harness: Harness) -> None:
    run = harness.run("dunning", ACCOUNT, signals=[at(waiting("review"), answer("review", "suspend"))])
    run.expect("completed", data={"decision": "suspend"}, not_ran=["grace"])
    assert [call.block_id for call in run.executions][-2:] == ["suspend", "tell_user"]
    assert run.elapsed == 8 * DAY


def test_dunning_keeps_the_account_when_a_person_says_so(harness: Harness) -> None:
    run = harness.run("dunning", ACCOUNT, signals=[at("9d", answer("review", "keep"))])
    run.expect("completed", not_ran=["suspend", "tell_user"])
    assert calls(run, "grace")[0].result == "completed"
    assert run.elapsed == 9 * DAY


def test_dunning_does_not_listen_to_an_answer_that_is_no_choice(harness: Harness) -> None:
    run = harness.run("dunning", ACCOUNT, signals=[at("9d", answer("review", "perhaps"))], until="9d")
    run.expect("waiting", standing={"review": "gate"})


def test_dunning_tells_the_manager_after_two_silent_days_and_suspends(harness: Harness) -> None:
    run = harness.run("dunning", ACCOUNT)
    run.expect("completed", not_ran=["grace"])
    assert run.elapsed == 10 * DAY
    assert run.outputs["review"] == {
        "_escalated": True,
        "_escalation_handler": "notify_manager",
        "_timeout_seconds": 172800,
    }
    [told] = [call for call in run.executions if call.handler == "notify_manager"]
    assert told.params["block_id"] == "review"
    assert told.params["prompt"] == "Suspend?"
    assert told.params["reason"] == "timeout"
    assert calls(run, "suspend")[0].result == "completed"


def test_dunning_asks_nobody_about_a_small_account(harness: Harness) -> None:
    run = harness.run("dunning", SMALL)
    run.expect("completed", not_ran=["review"])
    assert run.elapsed == 8 * DAY


def test_dunning_reports_a_third_charge_that_is_late_by_its_deadline(harness: Harness) -> None:
    """The deadline counts from the end of the delay: 3 days to the second charge, 5 to the third, 7 of patience."""
    parts = {"retry_charge": silent(), "http_request": {"status": 200, "body": ""}}
    run = harness.run("dunning", ACCOUNT, handlers=parts)
    run.expect("waiting", standing={"charge_2": "ready"})
    run.complete("charge_2", {"paid": False})
    run.expect("failed", not_ran=["suspend"])
    assert run.elapsed == 15 * DAY
    assert [call.handler for call in run.executions] == ["send_email", "send_email", "http_request"]
    hook = run.executions[-1]
    assert hook.params["url"] == "https://hooks.slack.example/billing"
    assert hook.params["_breach_block_id"] == "charge_3"
    assert hook.params["_breach_deadline_ms"] == 604800000
    [row] = [row for row in run.rows if row.block_id == "charge_3"]
    assert row.output["_error"] == "sla_deadline_breached"


def test_dunning_cannot_be_cancelled_while_it_suspends(harness: Harness) -> None:
    busy = {"suspend_account": script(RetryableError("locked"), {"suspended": True})}
    run = harness.run("dunning", SMALL, handlers=busy, signals=[at(waiting("suspend"), "cancel")])
    assert [call.block_id for call in run.executions][-3:] == ["suspend", "suspend", "tell_user"]
    assert run.state in {"cancelled", "completed"}


def test_dunning_is_cancelled_at_once_while_it_waits(harness: Harness) -> None:
    run = harness.run("dunning", ACCOUNT, signals=[at("1d", "cancel")])
    run.expect("cancelled", ran=["notify_failed"])
    assert run.elapsed == DAY


# -- payment_failed ----------------------------------------------------------------------------------------------------

EVENT = library.example_input("payment_failed")
STARTED = {"instance_id": "0", "sequence_name": "dunning", "deduped": False}


def test_payment_failed_starts_the_dunning_once_for_each_payment(harness: Harness) -> None:
    run = harness.run("payment_failed", EVENT, handlers={"emit_event": STARTED})
    run.expect("completed", ran=["customer", "start_dunning"])
    assert calls(run, "customer")[0].params == {"stripe_id": "cus_42"}
    assert calls(run, "start_dunning")[0].params == {
        "trigger_slug": "dunning-start",
        "data": {"customer": {"customer": {"name": "Ada", "email": "ada@example.com"}}},
        "dedupe_key": "dunning-evt_1",
        "dedupe_scope": "tenant",
    }


@pytest.mark.parametrize("error", [PermanentError("no such customer"), RetryableError("crm is away")])
def test_payment_failed_starts_nothing_without_the_customer(harness: Harness, error: Exception) -> None:
    run = harness.run("payment_failed", EVENT, handlers={"load_customer": error, "emit_event": STARTED})
    run.expect("failed", ran=["customer"])


def test_payment_failed_fails_when_there_is_no_such_trigger(harness: Harness) -> None:
    """The built-in handler itself, in a world without triggers."""
    run = harness.run("payment_failed", EVENT)
    run.expect("failed")
    assert "dunning-start" in run.errors()["start_dunning"]
