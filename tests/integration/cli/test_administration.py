"""What surrounds flows on the command line: secrets, limits, keys, usage, workers, the server itself."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.api.app import create_app
from orchestrator.cli.exits import ExitCode
from orchestrator.cli.session import hoisted
from orchestrator.core.outcomes import Completed
from orchestrator.embedded.home import free_port
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from tests.integration.cli.hands import GREET, Cli, work
from tests.support.serving import serving


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
