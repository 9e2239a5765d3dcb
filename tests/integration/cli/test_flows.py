"""Flows on the command line: definitions, instances, people, and what starts flows."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from orchestrator.cli.exits import ExitCode
from orchestrator.core.outcomes import Failed
from orchestrator.engine import Engine
from tests.integration.cli.hands import ASK, GREET, Cli, work

pytestmark = pytest.mark.shares_database


def test_a_failure_is_diagnosed_and_remedied(cli: Cli, write: Callable[[Any], str], engine: Engine) -> None:
    cli("sequences", "create", write(GREET))
    instance = cli("instances", "start", "greet").out.strip()
    assert "next     a worker claims step 'noop'" in cli("instances", "diagnose", instance).out
    work(engine, "default", Failed(message="gone", retryable=False))
    assert "gone" in cli("instances", "diagnose", instance, "-o", "json").json["summary"]
    [offered] = cli("instances", "remedies", instance, "-o", "json").json
    assert "noop ready" in cli("instances", "remedies", instance).out
    preview = offered["preview_id"]
    assert cli("instances", "remedy", instance, preview, "-o", "json").json["state"] == offered["to_state"]
    assert cli("instances", "remedy", instance, preview).code == ExitCode.REFUSED
    assert cli("instances", "logs", instance, "-o", "json").json == []


def test_sequences_are_created_listed_shown_and_deprecated(cli: Cli, write: Callable[[Any], str]) -> None:
    first = cli("sequences", "create", write(GREET))
    assert (first.code, first.err) == (0, "")
    UUID(first.out.strip())
    again = cli("sequences", "create", write(GREET), "-o", "json")
    assert again.json == {"id": first.out.strip(), "warnings": [], "is_new": False}
    assert "says just this already" in again.err
    cli("sequences", "create", write({**GREET, "blocks": GREET["blocks"][:1]}))
    assert [each["version"] for each in cli("sequences", "versions", "greet", "--output=json").json] == [2, 1]
    shown = cli("sequences", "get", "greet", "--version", "1").out
    assert "charge  step  charge  on gpu" in shown
    assert cli("sequences", "get", "greet", "--output", "json").json["version"] == 2
    assert cli("sequences", "deprecate", "greet").code == ExitCode.USAGE
    assert cli("sequences", "deprecate", "greet", "--version", "2").out == "greet version 2 is deprecated\n"
    assert [line.split()[:2] for line in cli("sequences", "list").out.splitlines()[1:]] == [
        ["greet", "2"],
        ["greet", "1"],
    ]
    assert cli("sequences", "get", "greet", "-o", "json").json["version"] == 1


def test_a_bad_definition_is_refused_with_its_place(cli: Cli, write: Callable[[Any], str], tmp_path: Path) -> None:
    refused = cli("sequences", "create", write({"id": "x", "blocks": []}))
    assert (refused.code, refused.out) == (ExitCode.REFUSED, "")
    assert "sequence has no blocks" in refused.err
    broken = tmp_path / "broken.json"
    broken.write_text('{"id": }')
    said = cli("sequences", "create", str(broken))
    assert said.code == ExitCode.USAGE
    assert f"{broken} is no JSON" in " ".join(said.err.split())
    assert cli("sequences", "create", str(tmp_path / "missing.json")).code == ExitCode.USAGE
    assert cli("sequences", "create").code == ExitCode.USAGE
    unknown = cli("sequences", "create", "--library", "nothing")
    assert (unknown.code, "no library document 'nothing'" in unknown.err) == (ExitCode.REFUSED, True)


def test_a_ready_definition_becomes_the_tenants_own(cli: Cli) -> None:
    stored = [cli("sequences", "create", "--library", "quote", "--tenant", tenant) for tenant in ("north", "south")]
    assert [each.code for each in stored] == [ExitCode.OK, ExitCode.OK]
    assert stored[0].out != stored[1].out
    shown = cli("sequences", "get", "quote", "--tenant", "north", "-o", "json").json
    assert (shown["tenant_id"], shown["id"]) == ("north", stored[0].out.strip())


def test_an_instance_from_start_to_end(
    cli: Cli, write: Callable[[Any], str], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("sequences", "create", write(GREET))
    started = cli("instances", "start", "greet", "--data", "@" + write({"n": 1}), "--key", "k1")
    (instance,) = started.out.split()
    again = cli("instances", "start", "greet", "--key", "k1")
    assert (again.out.strip(), "exists" in again.err) == (instance, True)
    assert cli("instances", "get", instance, "--output", "json").json["context"]["data"] == {"n": 1}
    work(engine, "default")
    queue = cli("queues", "list", "-o", "json").json
    assert [(each["queue"], each["states"]) for each in queue] == [("gpu", {"ready": 1})]
    assert cli("queues", "list").out.splitlines()[1].split()[:5] == ["gpu", "0", "0", "1", "0"]
    late = cli("instances", "wait", instance, "--timeout", "0.2")
    assert (late.code, late.out) == (ExitCode.TIMED_OUT, "")
    assert re.search(rf"instance {instance} has not ended after \d+\.\d s", late.err)
    work(engine, "gpu")
    waited = cli("instances", "wait", instance, "-o", "json")
    assert (waited.code, waited.json["state"]) == (0, "completed")
    assert "2 steps done" in waited.err
    assert [row["block_id"] for row in cli("instances", "outputs", instance, "-o", "json").json] == ["noop", "charge"]
    assert cli("instances", "outputs", instance, "--block", "charge").json == {"n": 1}
    assert cli("instances", "watch", instance).out.splitlines()[-2:] == ['output  charge  {"n":1}', "done  completed"]
    lines = cli("instances", "watch", instance, "-o", "json").out.splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["state", "output", "output", "done"]
    assert "charge  step  completed" in cli("instances", "tree", instance).out
    assert {node["state"] for node in cli("instances", "tree", instance, "-o", "json").json} == {"completed"}
    assert cli("instances", "audit", instance, "-o", "json").json[0]["to_state"] == "completed"
    assert [each["queue"] for each in cli("instances", "attempts", instance, "-o", "json").json] == ["default", "gpu"]
    assert instance in cli("instances", "list", "--state", "completed", "--sequence", "greet").out
    assert cli("instances", "list", "--state", "failed", "-o", "json").json == []


def test_a_failed_instance_says_why_and_how_to_go_on(cli: Cli, write: Callable[[Any], str], engine: Engine) -> None:
    cli("sequences", "create", write(GREET))
    instance = cli("instances", "start", "greet").out.strip()
    work(engine, "default", Failed(message="card refused", retryable=False))
    failed = cli("instances", "wait", instance)
    assert failed.code == ExitCode.WORK_FAILED
    assert "failed at block 'noop', attempt 0: card refused" in failed.err
    assert f"orchestrator instances retry {instance}" in failed.err
    assert cli("instances", "retry", instance).out == f"instance {instance} is open again\n"
    refused = cli("instances", "retry", instance)
    assert (refused.code, "can only retry failed instances" in refused.err) == (ExitCode.REFUSED, True)


def test_pause_resume_and_cancel(cli: Cli, write: Callable[[Any], str]) -> None:
    cli("sequences", "create", write(GREET))
    instance = cli("instances", "start", "greet").out.strip()
    assert cli("instances", "pause", instance, "-o", "json").json["state"] == "paused"
    assert cli("instances", "resume", instance).code == 0
    assert cli("instances", "cancel", instance).code == 0
    waited = cli("instances", "wait", instance)
    assert (waited.code, f"instance {instance} was cancelled" in waited.err) == (ExitCode.WORK_FAILED, True)


def test_options_that_mean_nothing_are_usage_errors(cli: Cli) -> None:
    for arguments, text in (
        (("--data", "{"), "is no JSON"),
        (("--data", "@/no/such/file"), "cannot be read"),
        (("--not-before", "soon"), "is no time"),
        (("--not-before", "2030-01-01T00:00:00"), "needs a zone"),
        (("--priority", "extreme"), "extreme"),
    ):
        said = cli("instances", "start", "greet", *arguments)
        assert (said.code, said.out, text in " ".join(said.err.split())) == (ExitCode.USAGE, "", True), said
    assert cli("instances", "list", "--metadata", "x").code == ExitCode.USAGE
    assert cli("instances", "list", "-o", "xml").code == ExitCode.USAGE
    assert cli("nonsense").code == ExitCode.USAGE


def test_what_does_not_exist_is_not_found(cli: Cli) -> None:
    for arguments in (
        ("instances", "get", str(UUID(int=7))),
        ("instances", "start", "nothing"),
        ("sequences", "get", "nothing"),
        ("approvals", "answer", str(UUID(int=7)), "yes"),
    ):
        said = cli(*arguments)
        assert (said.code, said.out) == (ExitCode.NOT_FOUND, "")
        assert said.err.startswith("orchestrator: not found: ")


def test_a_list_that_goes_on_says_so(cli: Cli, write: Callable[[Any], str]) -> None:
    cli("sequences", "create", write(GREET))
    for _ in range(3):
        cli("instances", "start", "greet")
    page = cli("instances", "list", "--limit", "2", "-o", "json")
    assert (len(page.json), page.err) == (2, "there are more: --offset 2\n")
    assert cli("instances", "list", "--limit", "2", "--offset", "2").err == ""


def test_triggers_are_made_fired_and_removed(cli: Cli, write: Callable[[Any], str]) -> None:
    cli("sequences", "create", write(GREET))
    made = cli("triggers", "create", "orders", "greet", "--secret", "s3cret", "-o", "json").json
    assert (made["slug"], made["secret"], made["version"]) == ("orders", "[REDACTED]", None)
    assert "orders" in cli("triggers", "list").out
    started = cli("triggers", "fire", "orders", "--payload", '{"n": 1}', "--secret", "s3cret").out.strip()
    assert cli("instances", "get", started, "-o", "json").json["context"]["data"] == {"n": 1}
    assert "secret" in cli("triggers", "fire", "orders", "--secret", "wrong").err
    rotated = cli("triggers", "update", "orders", "--secret", "n3w", "--overlap-secs", "60", "-o", "json").json
    assert rotated["previous_secret_until"] is not None
    assert all(cli("triggers", "fire", "orders", "--secret", each).code == 0 for each in ("s3cret", "n3w"))
    assert cli("triggers", "update", "orders").code == ExitCode.REFUSED
    assert cli("triggers", "update", "orders", "--disable", "-o", "json").json["enabled"] is False
    assert "newest" in cli("triggers", "get", "orders").out
    assert cli("triggers", "delete", "orders", "-o", "json").json == {"slug": "orders", "deleted": True}
    assert cli("triggers", "get", "orders").code == ExitCode.NOT_FOUND


def test_schedules_are_made_shown_and_removed(cli: Cli, write: Callable[[Any], str]) -> None:
    cli("sequences", "create", write(GREET))
    said = cli("cron", "create", "greet", "0 12 29 2 *", "--timezone", "Europe/Berlin", "--metadata", '{"a": 1}')
    assert said.err.startswith("version 1 of greet, next at ")
    made = said.out.strip()
    assert cli("cron", "next-fires", made, "-n", "2").out.count("-02-29 11:00:00Z\n") == 2
    assert len(cli("cron", "next-fires", made, "-o", "json").json) == 5
    assert "0 12 29 2 *" in cli("cron", "list").out
    changed = cli("cron", "update", made, "--overlap", "skip", "--disable", "-o", "json").json
    assert (changed["overlap_policy"], changed["enabled"], changed["metadata"]) == ("skip", False, {"a": 1})
    assert "Europe/Berlin" in cli("cron", "get", made).out
    assert cli("cron", "create", "greet", "every day").code == ExitCode.REFUSED
    assert cli("cron", "delete", made, "-o", "json").json == {"id": made, "deleted": True}
    assert cli("cron", "get", made).code == ExitCode.NOT_FOUND


def test_an_approval_is_answered_with_one_of_its_choices(cli: Cli, write: Callable[[Any], str], engine: Engine) -> None:
    cli("sequences", "create", write(ASK))
    instance = cli("instances", "start", "ask").out.strip()
    assert "yes, no" in cli("approvals", "list").out
    refused = cli("approvals", "answer", instance, "maybe")
    assert (refused.code, "there are: yes, no" in refused.err) == (ExitCode.REFUSED, True)
    assert cli("approvals", "answer", instance, "yes", "--comment", "x").code == ExitCode.REFUSED
    assert cli("approvals", "answer", instance, "yes", "--block", "other").code == ExitCode.NOT_FOUND
    assert cli("approvals", "answer", instance, "yes").out == "block review was answered with yes\n"
    work(engine, "default")
    assert cli("instances", "wait", instance).code == 0
    assert cli("approvals", "list", "-o", "json").json == []


def test_signals_are_sent(cli: Cli, write: Callable[[Any], str]) -> None:
    cli("sequences", "create", write(GREET))
    instance = cli("instances", "start", "greet").out.strip()
    UUID(cli("signals", "send", instance, "go", "--payload", '{"a": 1}', "-o", "json").json["signal_id"])
    assert cli("tasks", "list", "-o", "json").code == 0
    assert cli("workers", "list", "-o", "json").json == []
