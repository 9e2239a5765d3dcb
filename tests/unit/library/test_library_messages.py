"""The ready sequences that send: notify_all, outreach, office_hours, warm_send, onboarding, ab_onboarding.

Send limits and mailbox pools are not played in memory: `rate_limit_key` and `resource_pool` have no effect here.
"""

from collections import Counter
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from zoneinfo import ZoneInfo

import pytest

from orchestrator.testing import Harness, PermanentError, RetryableError, Run, at, hangs, script
from sequences import library
from tests.support.library import PARTS, calls, moments

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
LEAD = library.example_input("outreach")
AWAY = RetryableError("away")


def begins(year: int, month: int, day: int, hour: int, minute: int = 0) -> Harness:
    """A harness that begins at a moment in UTC."""
    return Harness(PARTS, start=datetime(year, month, day, hour, minute, tzinfo=UTC))


def moment_of(run: Run, block_id: str) -> datetime:
    """The one moment a block was executed, to the second."""
    [call] = calls(run, block_id)
    return call.at.replace(microsecond=0)


def is_within_two_hours(found: datetime, expected: datetime) -> bool:
    """Whether a jitter of two hours explains the difference."""
    return abs(found - expected) <= 2 * HOUR


# -- notify_all --------------------------------------------------------------------------------------------------------

DEVICES = library.example_input("notify_all")


def test_notify_all_uses_the_first_provider_of_each_channel(harness: Harness) -> None:
    run = harness.run("notify_all", DEVICES)
    run.expect("completed", not_ran=["sendgrid", "vonage", "push_failed"])
    assert calls(run, "record")[0].params == {"email": "ses-1", "sms": "twilio-1", "push": "fcm-1"}


def test_notify_all_falls_back_on_each_channel_by_itself(harness: Harness) -> None:
    broken = {"send_ses": AWAY, "send_twilio": PermanentError("bad number"), "send_fcm": PermanentError("gone")}
    run = harness.run("notify_all", DEVICES, handlers=broken)
    run.expect("completed")
    assert [len(calls(run, block_id)) for block_id in ("ses", "twilio", "firebase")] == [2, 1, 1]
    assert calls(run, "record")[0].params == {"email": "sendgrid-1", "sms": "vonage-1", "push": None}
    assert run.logs == [("push_failed", "warn", "push failed")]


def test_notify_all_sends_on_two_channels_while_the_third_hangs(harness: Harness) -> None:
    run = harness.run("notify_all", DEVICES, handlers={"send_fcm": hangs()})
    run.expect("completed")
    assert moments(run, "ses") == moments(run, "twilio") == [timedelta(0)]
    assert moments(run, "push_failed") == [timedelta(seconds=5)]
    assert moments(run, "record") == [timedelta(seconds=5)]


def test_notify_all_fails_when_a_channel_has_no_way_left_but_only_after_the_others(harness: Harness) -> None:
    broken = {"send_twilio": AWAY, "send_vonage": AWAY, "send_ses": script(AWAY, {"id": "ses-2"})}
    run = harness.run("notify_all", DEVICES, handlers=broken)
    run.expect("failed", outputs={"ses": {"id": "ses-2"}, "firebase": {"id": "fcm-1"}}, not_ran=["record"])


def test_notify_all_tries_the_second_mail_provider_three_times(harness: Harness) -> None:
    run = harness.run(
        "notify_all", DEVICES, handlers={"send_ses": AWAY, "send_sendgrid": script(AWAY, AWAY, {"id": 3})}
    )
    run.expect("completed")
    assert moments(run, "ses") == [timedelta(0), HOUR / 7200]
    assert moments(run, "sendgrid") == [timedelta(seconds=second) for second in (0.5, 1.0, 2.0)]


# -- outreach ----------------------------------------------------------------------------------------------------------


def test_outreach_sends_twice_and_closes_the_lead_after_two_silent_weeks() -> None:
    """Wednesday noon; three days later is a Saturday, and five days after that Monday another."""
    run = begins(2026, 3, 4, 12).run("outreach", LEAD)
    run.expect("completed", not_ran=["crm_replied_1", "crm_replied_2"])
    assert moment_of(run, "send_first") == datetime(2026, 3, 4, 12, tzinfo=UTC)
    assert is_within_two_hours(moment_of(run, "check_1"), datetime(2026, 3, 9, 12, tzinfo=UTC))
    assert moment_of(run, "follow_up") == moment_of(run, "check_1")
    second = moment_of(run, "follow_up") + 5 * DAY
    assert is_within_two_hours(moment_of(run, "check_2"), second + 2 * DAY)
    assert moment_of(run, "check_2").weekday() == 0
    assert calls(run, "crm_silent")[0].params == {"status": "no_reply"}


@pytest.mark.parametrize("seed", range(8))
def test_outreach_jitters_its_checks_by_two_hours_at_most(seed: int) -> None:
    run = begins(2026, 3, 2, 12).run("outreach", LEAD, seed=seed)
    assert is_within_two_hours(moment_of(run, "check_1"), datetime(2026, 3, 5, 12, tzinfo=UTC))


def test_outreach_jitters_each_flow_in_its_own_way() -> None:
    checks = {moment_of(begins(2026, 3, 2, 12).run("outreach", LEAD, seed=seed), "check_1") for seed in range(8)}
    assert len(checks) > 1


def test_outreach_waits_over_the_weekend_with_its_first_mail() -> None:
    """Saturday evening in Berlin; the office opens on Monday at eight, which is seven UTC."""
    run = begins(2026, 3, 7, 20).run("outreach", LEAD, timezone="Europe/Berlin", until="1h")
    run.expect("scheduled", standing={"send_first": "window"}, not_ran=["send_first"])
    run.go()
    assert moment_of(run, "send_first").astimezone(BERLIN) == datetime(2026, 3, 9, 8, tzinfo=BERLIN)


def test_outreach_sends_its_follow_up_within_the_office_hours() -> None:
    """The first mail goes out just before five, so a check that jitter moves on falls after the office closes."""
    for seed in range(10):
        run = begins(2026, 3, 2, 16, 55).run("outreach", LEAD, seed=seed)
        sent = moment_of(run, "follow_up")
        assert 8 <= sent.hour < 17
        if moment_of(run, "check_1").hour >= 17:
            assert sent == datetime(2026, 3, 6, 8, tzinfo=UTC)
            return
    pytest.fail("no seed of ten moves the check beyond the office hours")


def test_outreach_stops_at_a_reply_to_the_first_mail(harness: Harness) -> None:
    run = harness.run("outreach", LEAD, handlers={"check_reply": {"replied": True}})
    run.expect("completed", not_ran=["follow_up", "check_2", "crm_silent"])
    assert calls(run, "crm_replied_1")[0].params == {"status": "replied"}


def test_outreach_stops_at_a_reply_to_the_follow_up(harness: Harness) -> None:
    run = harness.run("outreach", LEAD, handlers={"check_reply": lambda ctx: {"replied": ctx.block_id == "check_2"}})
    run.expect("completed", not_ran=["crm_replied_1", "crm_silent"])
    assert calls(run, "crm_replied_2")[0].result == "completed"


def test_outreach_writes_one_of_two_subjects(harness: Harness) -> None:
    seen = {}
    for seed in range(20):
        run = harness.run("outreach", LEAD, until="1h", seed=seed)
        seen[run.outputs["subject"]["variant"]] = calls(run, "send_first")[0].params["subject"]
    assert seen == {"A": "Quick question about Example Ltd", "B": "Example Ltd and us"}


def test_outreach_retries_a_mail_after_one_minute_then_two_and_sends_no_second_one(harness: Harness) -> None:
    run = harness.run("outreach", LEAD, handlers={"send_email": script(AWAY, AWAY, {"sent": True})})
    assert moments(run, "send_first") == [timedelta(minutes=minute) for minute in (0, 1, 3)]
    run.expect("failed", not_ran=["check_2"])


def test_outreach_is_in_the_dead_letters_when_the_company_is_unknown(harness: Harness) -> None:
    run = harness.run("outreach", LEAD, handlers={"enrich_company": AWAY})
    run.expect("failed", ran=["enrich"] * 3)


def test_outreach_can_be_cancelled_while_it_waits_for_a_reply(harness: Harness) -> None:
    run = harness.run("outreach", LEAD, signals=[at("1d", "cancel")])
    run.expect("cancelled", not_ran=["check_1", "follow_up"])
    assert run.elapsed == DAY


# -- office_hours ------------------------------------------------------------------------------------------------------

TO = library.example_input("office_hours")


def test_office_hours_sends_at_once_within_the_hours_and_again_two_days_later(harness: Harness) -> None:
    run = harness.run("office_hours", TO)
    run.expect("completed", ran=["first", "second"])
    assert moment_of(run, "first") == datetime(2026, 3, 2, 12, tzinfo=UTC)
    assert is_within_two_hours(moment_of(run, "second"), datetime(2026, 3, 4, 12, tzinfo=UTC))


def test_office_hours_waits_for_nine_in_the_zone_of_the_flow() -> None:
    run = begins(2026, 3, 2, 5).run("office_hours", TO, timezone="America/New_York")
    assert moment_of(run, "first") == datetime(2026, 3, 2, 14, tzinfo=UTC)


def test_office_hours_is_closed_at_five() -> None:
    run = begins(2026, 3, 2, 17).run("office_hours", TO)
    assert moment_of(run, "first") == datetime(2026, 3, 3, 9, tzinfo=UTC)


def test_office_hours_skips_christmas_and_the_weekend_after_it() -> None:
    """Wednesday, 23 December 2026: two days later is a holiday, and it is followed by a weekend."""
    run = begins(2026, 12, 23, 12).run("office_hours", TO)
    assert is_within_two_hours(moment_of(run, "second"), datetime(2026, 12, 28, 12, tzinfo=UTC))


def test_office_hours_keeps_nine_o_clock_when_the_clocks_change() -> None:
    """Summer time begins in Berlin on Sunday, 29 March 2026; Monday's nine is seven UTC, not eight."""
    run = begins(2026, 3, 27, 20).run("office_hours", TO, timezone="Europe/Berlin")
    assert moment_of(run, "first") == datetime(2026, 3, 30, 7, tzinfo=UTC)


# -- warm_send ---------------------------------------------------------------------------------------------------------


def test_warm_send_waits_for_the_next_working_day() -> None:
    run = begins(2026, 3, 6, 18).run("warm_send", TO)
    run.expect("completed", ran=["send"])
    assert moment_of(run, "send") == datetime(2026, 3, 9, 9, tzinfo=UTC)
    assert calls(run, "send")[0].params["to"] == "ada@example.com"


def test_warm_send_retries_after_one_minute_then_two(harness: Harness) -> None:
    run = harness.run("warm_send", TO, handlers={"send_email": AWAY})
    run.expect("failed")
    assert moments(run, "send") == [timedelta(minutes=minute) for minute in (0, 1, 3)]


def test_warm_send_does_not_retry_after_the_office_has_closed() -> None:
    run = begins(2026, 3, 2, 16, 58).run("warm_send", TO, handlers={"send_email": script(AWAY, AWAY, {"sent": True})})
    run.expect("completed")
    assert calls(run, "send")[-1].at.replace(microsecond=0) == datetime(2026, 3, 3, 9, tzinfo=UTC)


# -- onboarding --------------------------------------------------------------------------------------------------------

CUSTOMER = library.example_input("onboarding")
ENDS = ["account", "welcome", "getting_started"]


def test_onboarding_gives_an_enterprise_its_own_servers_and_people(harness: Harness) -> None:
    run = harness.run("onboarding", CUSTOMER)
    run.expect("completed", not_ran=["infra_pro", "features", "infra_free"])
    ran = [call.block_id for call in run.executions]
    assert ran == ["account", "welcome", "infra_dedicated", "csm", "sso", "kickoff", "getting_started"]
    assert calls(run, "infra_dedicated")[0].params == {"kind": "dedicated", "region": "eu-central-1"}
    assert run.elapsed == HOUR


def test_onboarding_gives_pro_customers_more_features(harness: Harness) -> None:
    run = harness.run("onboarding", {**CUSTOMER, "plan": "pro"})
    run.expect("completed", ran=["account", "welcome", "infra_pro", "features", "getting_started"])
    assert calls(run, "welcome")[0].params == {"template": "welcome_pro"}


def test_onboarding_takes_the_free_plan_when_none_is_given(harness: Harness) -> None:
    run = harness.run("onboarding", {"email": "ada@example.com"})
    run.expect("completed", ran=["account", "welcome", "infra_free", "getting_started"])
    assert calls(run, "account")[0].params["plan"] == "free"
    assert calls(run, "welcome")[0].params == {"template": "welcome_free"}


def test_onboarding_lets_the_others_finish_and_repeats_only_what_failed(harness: Harness) -> None:
    parts = {"setup_sso": script(PermanentError("no such domain"), {"sso": True})}
    run = harness.run("onboarding", CUSTOMER, handlers=parts)
    run.expect("failed", not_ran=["kickoff", "getting_started"])
    assert calls(run, "csm")[0].result == "completed"
    run.retry().go()
    run.expect("completed")
    ran = Counter(call.block_id for call in run.executions)
    assert ran == {**dict.fromkeys(ran, 1), "sso": 2}


# -- ab_onboarding -----------------------------------------------------------------------------------------------------


def test_ab_onboarding_takes_the_tour_of_the_variant_and_tracks_it(harness: Harness) -> None:
    for seed in range(8):
        run = harness.run("ab_onboarding", {"user_id": "u-42"}, seed=seed)
        variant = run.outputs["flow"]["variant"]
        run.expect("completed", ran=[f"{variant}_tour", "track"])
        assert run.outputs["track"] == {"experiment": "tour", "variant": variant}
        assert calls(run, f"{variant}_tour")[0].params == {"steps": {"short": 3, "long": 9}[variant]}


def test_ab_onboarding_gives_two_of_three_flows_the_short_tour_and_each_by_its_own_id(harness: Harness) -> None:
    variants = {}
    for seed in range(240):
        run = harness.run("ab_onboarding", {"user_id": "u-42"}, seed=seed)
        variants[run.id] = run.outputs["flow"]["variant"]
    chosen = {
        instance_id: "short" if int.from_bytes(sha256(instance_id.bytes + b"\0flow").digest()[:8]) % 3 < 2 else "long"
        for instance_id in variants
    }
    assert variants == chosen
    assert 120 <= Counter(variants.values())["short"] <= 200


def test_ab_onboarding_keeps_its_variant_through_failure_and_retry(harness: Harness) -> None:
    run = harness.run("ab_onboarding", {"user_id": "u-42"}, handlers={"send_tour": script(AWAY, {"tour": 1})})
    run.expect("failed")
    variant = run.outputs["flow"]["variant"]
    run.retry().go()
    run.expect("completed", ran=[f"{variant}_tour", f"{variant}_tour", "track"])
    assert [row.block_id for row in run.rows] == ["flow", f"{variant}_tour", "track"]


def test_ab_onboarding_keeps_its_variant_through_every_crash(harness: Harness) -> None:
    assert harness.every_crash("ab_onboarding", {"user_id": "u-42"}).schedules > 10
