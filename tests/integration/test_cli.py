"""The command line against a real server, and the processes it starts."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator import embedded
from orchestrator.api.app import create_app
from orchestrator.cli import main, processes
from orchestrator.cli.exits import ExitCode
from orchestrator.cli.session import hoisted
from orchestrator.core.outcomes import Completed, Failed, Outcome
from orchestrator.dev import answers
from orchestrator.embedded.home import free_port
from orchestrator.engine import Engine
from orchestrator.exchange import Report, Wish
from orchestrator.settings import Settings
from orchestrator.store import migrate
from orchestrator.store.steps import Worker
from tests.support.serving import Reception, serving

WORKER = Worker(id=uuid4(), name="hands", slot=1)
GREET = {"id": "greet", "blocks": [{"handler": "noop"}, {"handler": "charge", "queue_name": "gpu"}]}
ASK = {
    "id": "ask",
    "blocks": [{"id": "review", "handler": "noop", "wait_for_input": {"prompt": "Send it?"}}],
}


@dataclass(frozen=True)
class Said:
    """What a command has said."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Said]


@pytest.fixture
def cli(
    reception: Reception,
    engine: Engine,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Cli:
    """Run a command in this process, against a server over this test's database."""
    for name in ("ORCHESTRATOR_API_KEY", "ORCH8_API_KEY", "ORCHESTRATOR_OUTPUT"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["orchestrator", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return Said(int(ended.value.code or 0), said.out, said.err)

    monkeypatch.setenv("ORCHESTRATOR_URL", reception.address(engine, settings))
    monkeypatch.setenv("ORCHESTRATOR_TENANT", "shop")
    return run


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], str]:
    def write_json(value: Any) -> str:
        path = tmp_path / f"{uuid4()}.json"
        path.write_text(json.dumps(value))
        return str(path)

    return write_json


def work(engine: Engine, queue: str, outcome: Outcome | None = None) -> None:
    claims = engine.claim(WORKER, Wish(queue=queue, handlers=["noop", "charge"]))
    assert claims
    engine.finish([Report(claim=claim, outcome=outcome or Completed(output={"n": 1})) for claim in claims])


# -- diagnosis -------------------------------------------------------------------------------------------------------


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


# -- sequences -------------------------------------------------------------------------------------------------------


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


def test_credentials_are_stored_from_files_and_never_shown(
    cli: Cli, write: Callable[[Any], str], tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("r3fresh\n")
    value = "@" + write({"access_token": "s3cret"})
    renewed = ("--refresh-url", "https://login.example.invalid/", "--refresh-token", f"@{token}")
    refused = cli("credentials", "create", "mail", "--value", value, "--kind", "oauth2", *renewed)
    assert refused.code == ExitCode.USAGE
    until = ("--expires-at", "2099-01-01")
    made = cli("credentials", "create", "mail", "--value", value, "--kind", "oauth2", *renewed, *until)
    assert (made.code, "oauth2" in made.out) == (0, True)
    shown = cli("credentials", "show", "mail", "-o", "json")
    assert (shown.json["has_refresh_token"], shown.json["expires_at"][:4]) == (True, "2099")
    assert cli("credentials", "change", "mail", "--disable", "-o", "json").json["enabled"] is False
    listed = cli("credentials", "list")
    assert listed.out.splitlines()[1].split()[:4] == ["mail", "mail", "oauth2", "no"]
    assert not any(secret in each.out for each in (made, shown, listed) for secret in ("s3cret", "r3fresh"))
    assert cli("credentials", "delete", "mail").code == 0
    assert cli("credentials", "show", "mail").code == ExitCode.NOT_FOUND


# -- instances -------------------------------------------------------------------------------------------------------


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


# -- what starts flows -----------------------------------------------------------------------------------------------


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


# -- keys ------------------------------------------------------------------------------------------------------------


def test_pools_are_filled_shown_and_removed(cli: Cli) -> None:
    pool = cli("pools", "create", "senders").out.strip()
    made = cli("pools", "add", pool, "a@x", "--daily-cap", "7", "--warmup-start", "2026-02-28").out.strip()
    assert cli("pools", "change", pool, made, "--disable", "--weight", "3").code == ExitCode.OK
    (listed,) = cli("pools", "resources", pool, "-o", "json").json
    assert (listed["id"], listed["enabled"], listed["weight"]) == (made, False, 3)
    assert (listed["daily_cap"], listed["warmup_start"]) == (7, "2026-02-28")
    assert all("a@x" in cli("pools", "resources", pool).out for _ in range(2))
    assert "senders" in cli("pools", "list").out
    assert cli("pools", "remove", pool, made).code == ExitCode.OK
    assert cli("pools", "delete", pool, "-o", "json").json == {"id": pool, "deleted": True}
    assert cli("pools", "resources", pool).code == ExitCode.NOT_FOUND


def test_limits_and_breakers_are_set_and_shown(cli: Cli) -> None:
    assert cli("limits", "set", "mail", "5", "60").out == "mail: at most 5 in 60 s\n"
    assert "mail" in cli("limits", "list").out
    assert cli("limits", "delete", "mail").code == ExitCode.OK
    assert cli("limits", "delete", "mail").code == ExitCode.NOT_FOUND
    assert cli("breakers", "configure", "charge", "--failure-threshold", "2").code == ExitCode.OK
    assert [each["failure_threshold"] for each in cli("breakers", "list", "-o", "json").json] == [2]
    assert "charge" in cli("breakers", "list").out
    assert cli("breakers", "reset", "charge").out == "the breaker of charge is closed\n"
    assert cli("breakers", "configure", "noop").code == ExitCode.REFUSED


def test_versions_are_promoted_and_withdrawn(cli: Cli, write: Callable[[Any], str]) -> None:
    cli("sequences", "create", write(GREET))
    assert cli("sequences", "promote", "greet").out == "greet version 1 is in production\n"
    assert cli("sequences", "unpublish", "greet").out == "greet is unpublished\n"
    assert cli("sequences", "promote", "greet").code == ExitCode.REFUSED
    assert cli("sequences", "unpublish", "greet", "--delete", "-o", "json").json["deleted"] is True
    assert cli("sequences", "promote", "greet").code == ExitCode.NOT_FOUND


def test_a_key_is_made_listed_and_revoked(cli: Cli) -> None:
    made = cli("keys", "create", "ci", "--capability", "worker", "--capability", "auditor", "--days", "30")
    assert (made.code, made.out.startswith("sk_"), "worker, auditor, until" in made.err) == (0, True, True)
    (listed,) = cli("keys", "list", "-o", "json").json
    assert (listed["name"], listed["capabilities"], listed["revoked"]) == ("ci", ["worker", "auditor"], False)
    assert made.out.strip() not in cli("keys", "list").out
    assert cli("keys", "create", "-o", "json").json["capabilities"] == ["operator"]
    assert cli("keys", "revoke", listed["id"]).out == f"key {listed['id']} is revoked\n"
    assert cli("keys", "revoke", "ak_0").code == ExitCode.NOT_FOUND
    assert cli("keys", "create", "--capability", "king").code == ExitCode.REFUSED


# -- usage -----------------------------------------------------------------------------------------------------------


def test_usage_is_shown_by_model_and_by_step(cli: Cli, write: Callable[[Any], str], engine: Engine) -> None:
    cli("sequences", "create", write({"id": "ask-model", "blocks": [{"id": "ask", "handler": "charge"}]}))
    cli("instances", "start", "ask-model")
    work(engine, "default", Completed(output={"model": "gpt-4o", "usage": {"input_tokens": 1_000_000}}))
    shown = cli("usage")
    assert shown.out.splitlines()[1].split() == ["gpt-4o", "1", "1000000", "0", "2.5000"]
    assert "2.5000 USD" in shown.err
    assert cli("usage", "--by", "step").out.splitlines()[1].split()[0] == "ask"
    assert cli("usage", "--days", "7", "-o", "json").json["total_cost_usd"] == 2.5
    assert cli("usage", "--by", "colour").code == ExitCode.USAGE


# -- people ----------------------------------------------------------------------------------------------------------


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


# -- the server ------------------------------------------------------------------------------------------------------


def test_a_server_that_is_away_is_said_to_be(cli: Cli) -> None:
    said = cli("instances", "list", "--url", f"http://127.0.0.1:{free_port()}")
    assert (said.code, said.out) == (ExitCode.UNREACHABLE, "")
    assert "orchestrator dev" in said.err
    assert cli("instances", "list", "--url", "localhost").code == ExitCode.USAGE


def test_a_wrong_key_is_refused(cli: Cli, engine: Engine, settings: Settings) -> None:
    with serving(create_app(engine, settings.model_copy(update={"api_key": "secret"}))) as url:
        assert cli("instances", "list", "--url", url).code == ExitCode.REFUSED
        assert cli("instances", "list", "--url", url, "--api-key", "secret").code == 0


def test_shared_options_may_stand_anywhere() -> None:
    assert hoisted(["a", "--tenant=x", "b", "-o", "json"]) == ["--tenant=x", "-o", "json", "a", "b"]
    assert hoisted(["a", "--output"]) == ["--output", "a"]


# -- processes -------------------------------------------------------------------------------------------------------


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "orchestrator.cli", *arguments]


def environment(settings: Settings, **more: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ORCH", "DATABASE", "REDIS"))}
    return {**kept, "DATABASE_URL": settings.database_url, "REDIS_URL": settings.redis_url, **more}


def run_to_end(settings: Settings, *arguments: str, cwd: Path | None = None, **env: str) -> Said:
    ended = subprocess.run(
        command(*arguments),
        env=environment(settings, **env),
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return Said(ended.returncode, ended.stdout, ended.stderr)


def test_migrate_brings_an_empty_database_up_to_date(
    servers: embedded.Servers, settings: Settings, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = embedded.fresh_database(servers, f"cli_migrate_{os.getpid()}")
    for name, value in (("DATABASE_URL", url), ("REDIS_URL", settings.redis_url), ("ORCH8_RUN_MIGRATIONS", "false")):
        monkeypatch.setenv(name, value)
    for command in (("service",), ("api", "--insecure"), ("server", "--insecure")):
        served = cli(*command)
        assert (served.code, "run `orchestrator migrate` first" in served.err) == (ExitCode.USAGE, True), command
    first = run_to_end(settings, "migrate", DATABASE_URL=url)
    assert (first.code, first.out) == (0, f"the database went to {migrate.head()}\n")
    assert "already" in cli("migrate").out


def test_migrate_refuses_a_database_of_a_newer_version(
    engine: Engine, settings: Settings, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    with engine.store.transaction() as tx:
        tx.execute("UPDATE alembic_version SET version_num = '9999'")
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    refused = cli("migrate")
    assert (refused.code, "a newer version has migrated it" in refused.err) == (ExitCode.USAGE, True)


def test_processes_say_what_is_missing(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "BROKER_URL", "ORCH8_DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for arguments in (("migrate",), ("api", "--insecure"), ("service",), ("worker",), ("flower",)):
        said = cli(*arguments)
        assert (said.code, "use `orchestrator dev`" in said.err) == (ExitCode.USAGE, True), arguments
    monkeypatch.setenv("ORCHESTRATOR_HEARTBEAT", "often")
    assert "the setting heartbeat cannot be read" in cli("migrate").err
    monkeypatch.delenv("ORCHESTRATOR_HEARTBEAT")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://nobody@127.0.0.1:{free_port()}/nothing")
    said = cli("migrate")
    assert (said.code, "PostgreSQL does not answer" in said.err) == (ExitCode.UNREACHABLE, True)


def test_the_api_serves_and_ends_on_sigterm(settings: Settings, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    with monkeypatch.context() as given:
        given.setenv("DATABASE_URL", settings.database_url)
        given.setenv("REDIS_URL", settings.redis_url)
        refused = cli("api", "--port", str(port))
    assert (refused.code, "--insecure" in refused.err) == (ExitCode.USAGE, True)
    arguments = command("api", "--port", str(port), "--insecure")
    with subprocess.Popen(arguments, env=environment(settings), stderr=subprocess.PIPE, text=True) as api:
        deadline = time.monotonic() + 60
        while not answers(f"http://127.0.0.1:{port}/health/live"):
            assert api.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        api.send_signal(signal.SIGTERM)
        _, said = api.communicate(timeout=90)
    assert api.returncode == 0
    assert "api_stopped" in said


def test_a_port_that_is_taken_is_an_error(settings: Settings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = run_to_end(settings, "api", "--port", str(port), "--insecure")
    assert said.code == ExitCode.USAGE
    assert f"cannot listen on 127.0.0.1 port {port}" in said.err


def test_a_package_that_shadows_ours_is_named(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "workers.py").write_text("raise SystemExit('theirs')")
    said = run_to_end(settings, "worker", cwd=tmp_path, PYTHONPATH=str(Path(processes.__file__).parents[2]))
    assert said.code == ExitCode.USAGE
    assert "workers.py shadows it" in said.err


def test_a_worker_becomes_celery_with_our_options(
    settings: Settings, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []
    monkeypatch.setenv("DATABASE_URL", settings.database_url)
    monkeypatch.setenv("REDIS_URL", settings.redis_url)
    monkeypatch.setenv("ORCHESTRATOR_IMPORT", "a.b")
    monkeypatch.setattr(processes, "_run_celery", ran.append)
    said = cli("worker", "-Q", "gpu,default", "-c", "3", "--import", "c", "--import", "d", "--pool", "threads")
    assert said.code == 0
    assert ran[0][:3] == ["worker", "--queues=gpu,default", "--pool=threads"]
    assert {"--without-gossip", "--without-mingle", "--task-events", "--concurrency=3"} <= set(ran[0])
    assert f"--hostname=worker-{os.getpid()}@%h" in ran[0]
    assert os.environ["ORCHESTRATOR_IMPORT"] == "a.b,c,d"
    cli("worker", "--name", "left@here")
    assert "--hostname=left@here" in ran[1]
    cli("flower", "--port", "1", "--", "--basic-auth=me:secret")
    assert ran[2] == ["flower", "--address=127.0.0.1", "--port=1", "--basic-auth=me:secret"]
    assert cli("worker", "--pool", "gevent").code == ExitCode.USAGE


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_dev_runs_a_flow_without_keys_or_tenants_and_leaves_nothing_behind(
    cli: Cli, write: Callable[[Any], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parent = Path(tempfile.mkdtemp(prefix="orchestrator-test-"))
    parent.chmod(0o711)
    port, home = free_port(), parent / "home"
    env = {name: value for name, value in os.environ.items() if not name.startswith(("ORCH", "DATABASE", "REDIS"))}
    arguments = command("dev", "--port", str(port), "--data-dir", str(home), "-Q", "default,gpu", "-c", "1")
    try:
        with subprocess.Popen(arguments, env=env, stdout=subprocess.PIPE, text=True) as dev:
            assert dev.stdout is not None
            said = ""
            while "Ctrl-C ends everything" not in said:
                line = dev.stdout.readline()
                assert line, said
                said += line
            assert "orchestrator is ready after" in said
            monkeypatch.delenv("ORCHESTRATOR_TENANT")
            monkeypatch.setenv("ORCHESTRATOR_URL", f"http://127.0.0.1:{port}")
            flow = {"id": "flow", "blocks": [{"handler": "noop"}, {"handler": "noop", "queue_name": "gpu"}]}
            assert cli("sequences", "create", write(flow)).code == 0
            ended = cli("instances", "start", "flow", "--wait", "--timeout", "60", "-o", "json")
            assert (ended.code, ended.json["state"]) == (0, "completed")
            (worker,) = cli("workers", "list", "-o", "json").json
            assert worker["queues"] == ["default", "gpu"]
            dev.send_signal(signal.SIGINT)
            said += dev.communicate(timeout=90)[0]
        assert dev.returncode == 0, said
        marks = (str(home).encode(), f"\0{port}\0".encode(), f"worker-1-{dev.pid}".encode())
        commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        assert [each for each in commands if any(mark in each for mark in marks)] == []
        assert not (home / "running.json").exists()
    finally:
        embedded.remove(home)
        shutil.rmtree(parent)


def test_workers_are_told_pinned_and_routed(cli: Cli) -> None:
    told = cli("commands", "send", "w1", "place", "--payload", '{"zone": "b"}').out.strip()
    assert [each["payload"] for each in cli("commands", "list", "w1", "-o", "json").json] == [{"zone": "b"}]
    assert "place" in cli("commands", "list", "w1").out
    assert cli("commands", "delete", told).code == ExitCode.OK
    assert cli("commands", "delete", told).code == ExitCode.NOT_FOUND
    assert cli("pins", "set", "paint", "1.4").out == "paint: at least 1.4\n"
    assert "1.4" in cli("pins", "list").out
    assert cli("pins", "delete", "paint").out == "paint: any version\n"
    rule = cli("routes", "add", "paint", "gpu", "--priority", "7").out.strip()
    assert [each["priority"] for each in cli("routes", "list", "-o", "json").json] == [7]
    assert "gpu" in cli("routes", "list").out
    assert cli("routes", "delete", rule).code == ExitCode.OK


def test_what_leaves_the_engine_is_shown(cli: Cli) -> None:
    nobody = "0197c0de-0000-7000-8000-000000000000"
    assert cli("webhooks", "list", "-o", "json").json == []
    assert cli("webhooks", "deliveries", "--failed", "-o", "json").json == []
    for verb in ("preview", "redeliver", "delete", "attempts"):
        assert cli("webhooks", verb, nobody).code == ExitCode.NOT_FOUND
    assert cli("dispatch", "list", "-o", "json").json == []
    assert cli("dispatch", "push", "mail", "http://127.0.0.1/").code == ExitCode.REFUSED
    assert cli("dispatch", "poll", "mail").code == ExitCode.NOT_FOUND
