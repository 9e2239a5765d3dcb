"""Every command of the command line: it has help, and with `--output json` it prints JSON."""

import ast
import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import typer

import orchestrator.cli
from orchestrator.cli import main
from orchestrator.cli.app import app
from orchestrator.client import Client
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from tests.support.serving import Reception

PROCESSES: Final = frozenset(
    {"dev", "server", "api", "service", "worker", "flower", "migrate", "restored", "rotate-encryption", "doctor"}
)
"""Commands that run processes or work on the servers themselves; they have tests of their own."""
WITHOUT_VERB: Final = {
    "every": "pages of `list`, for programs",
    "every_sequence": "pages of `sequences list`, for programs",
    "every_change": "pages of `changes`, for programs",
    "get_session": "sessions are found by their keys",
    "claim_tasks": "for workers",
    "checkpoint_task": "for workers",
    "complete_task": "for workers",
    "fail_task": "for workers",
    "heartbeat": "for workers",
}
"""Methods of the client that no command needs, and why."""


def commands(command: Any, *path: str) -> Iterator[tuple[str, Any]]:
    if within := getattr(command, "commands", None):
        for name, each in within.items():
            yield from commands(each, *path, name)
    else:
        yield " ".join(path), command


COMMANDS: Final = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", COMMANDS)
def test_command_and_its_parts_have_help(name: str) -> None:
    command = COMMANDS[name]
    assert command.help
    for parameter in command.params:
        assert getattr(parameter, "help", None), parameter.name


def test_every_method_of_the_client_has_a_command() -> None:
    sources = [ast.parse(path.read_text()) for path in Path(orchestrator.cli.__file__).parent.glob("*.py")]
    called = {node.attr for source in sources for node in ast.walk(source) if isinstance(node, ast.Attribute)}
    methods = {name for name, _ in inspect.getmembers(Client, inspect.isfunction) if not name.startswith("_")}
    assert methods - called == set(WITHOUT_VERB)


Run = Callable[..., str]


@pytest.fixture
def run(
    reception: Reception,
    engine: Engine,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Run a command in this process; gives what it prints."""
    for name in ("ORCHESTRATOR_API_KEY", "ORCH8_API_KEY", "ORCHESTRATOR_OUTPUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ORCHESTRATOR_URL", reception.address(engine, settings))
    monkeypatch.setenv("ORCHESTRATOR_TENANT", "shop")

    def command(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["orchestrator", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        assert not ended.value.code or "wait" in arguments, (arguments, said)
        return said.out

    return command


def script(known: dict[str, str]) -> Iterator[tuple[str, ...]]:
    """Give arguments for every command, in an order in which each finds what it needs; `known` grows meanwhile."""
    yield ("sequences create", known["file"])
    for verb in ("get", "versions", "promote"):
        yield (f"sequences {verb}", "poster")
    yield ("sequences list",)
    yield ("instances start", "poster")
    instance = known["id"]
    for verb in (
        "get",
        "outputs",
        "tree",
        "audit",
        "attempts",
        "diagnose",
        "remedies",
        "logs",
        "children",
        "checkpoints",
        "timeline",
        "effects",
        "workbench",
    ):
        yield (f"instances {verb}", instance)
    yield ("instances compare", instance, known["failed"])
    yield ("instances save-checkpoint", instance, '{"page": 1}')
    yield ("instances checkpoints", instance, "--latest")
    yield ("instances prune-checkpoints", instance, "0")
    yield ("instances update-data", instance, '{"a": 1}')
    yield ("instances replace-context", instance, '{"a": 2}', "--config", "{}")
    yield ("instances migrate", instance, known["sequence"])
    yield ("instances start-many", "poster", known["lines"], "--key", "again")
    for verb in ("do", "set-state"):
        yield (f"instances bulk {verb}", "pause" if verb == "do" else "paused", "--metadata", "nobody=has it")
    yield ("instances bulk reschedule", "60", "--namespace", "nowhere")
    yield ("instances bulk migrate", known["sequence"], "--namespace", "nowhere", "--dry-run")
    for verb in ("preflight", "dataflow"):
        yield (f"sequences {verb}", known["sequence"])
        yield (f"sequences {verb}", known["file"])
    yield ("sequences schema",)
    for verb in ("inspect-template", "try-template"):
        yield (f"sequences {verb}", "{{ data.name }}")
    yield ("instances list",)
    yield ("approvals list",)
    yield ("approvals answer", instance, "yes")
    yield ("signals send", instance, "hurry")
    yield ("instances inject", instance, known["blocks"])
    for verb in ("pause", "resume"):
        yield (f"instances {verb}", instance)
    yield ("instances fork", instance, "ask")
    for verb in ("cancel", "watch"):
        yield (f"instances {verb}", instance)
    yield ("instances wait", instance)
    yield ("instances resume-from", instance, "ask")
    for name in (
        "queues",
        "workers",
        "tasks",
        "triggers",
        "cron",
        "pools",
        "limits",
        "breakers",
        "webhooks",
        "dispatch",
    ):
        yield (f"{name} list",)
    for name in ("pins", "routes", "keys", "credentials", "dlq"):
        yield (f"{name} list",)
    yield ("triggers create", "t", "poster")
    yield ("triggers update", "t", "--enable")
    for verb in ("get", "fire", "delete"):
        yield (f"triggers {verb}", "t")
    yield ("cron create", "poster", "@yearly")
    schedule = known["id"]
    for verb in ("get", "next-fires"):
        yield (f"cron {verb}", schedule)
    yield ("cron update", schedule, "--disable")
    yield ("cron delete", schedule)
    yield ("pools create", "p")
    pool = known["id"]
    yield ("pools add", pool, "a")
    resource = known["id"]
    yield ("pools resources", pool)
    yield ("pools get", pool)
    yield ("pools change", pool, resource, "--disable")
    yield ("pools remove", pool, resource)
    yield ("pools delete", pool)
    yield ("limits set", "mail", "1", "60")
    yield ("limits get", "mail")
    yield ("limits delete", "mail")
    yield ("breakers configure", "charge")
    yield ("breakers get", "charge")
    yield ("breakers reset", "charge")
    yield ("webhooks deliveries",)
    yield ("dispatch push", "mail", "https://example.com/")
    yield ("dispatch poll", "mail")
    yield ("commands send", "w1", "ping")
    yield ("commands delete", known["id"])
    yield ("commands list", "w1")
    yield ("pins set", "draw", "1.0")
    yield ("pins delete", "draw")
    yield ("routes add", "draw", "gpu")
    rule = known["id"]
    for verb in ("get", "delete"):
        yield (f"routes {verb}", rule)
    yield ("keys create", "ci")
    yield ("keys revoke", known["id"])
    yield ("credentials create", "c", "--value", f"@{known['secret']}")
    yield ("credentials show", "c")
    yield ("credentials change", "c", "--disable")
    yield ("credentials delete", "c")
    yield ("tasks stats",)
    yield ("tasks events", known["task"])
    yield ("events publish", "paid", "order-17", "e-1", "--payload", '{"amount": 12}')
    yield ("events publish-many", known["events"])
    yield ("events list",)
    yield ("events get", known["event"])
    yield ("plugins register", "maps", "grpc", "maps.example.com:443")
    yield ("plugins change", "maps", "--disable")
    for verb in ("get", "remove"):
        yield (f"plugins {verb}", "maps")
    yield ("plugins list",)
    yield ("changes",)
    yield ("sessions create", "s")
    for verb in ("get", "instances", "cancel"):
        yield (f"sessions {verb}", "s")
    yield ("sessions set-data", "s", "{}")
    yield ("sessions set-state", "s", "completed")
    yield ("usage",)
    yield ("admin nodes",)
    yield ("dlq groups",)
    yield ("instances retry", known["failed"])
    yield ("instances set-state", known["failed"], "cancelled")
    yield ("sequences unpublish", "poster")
    yield ("sequences deprecate", known["sequence"])
    yield ("sequences create", known["other file"])
    yield ("sequences set-status", known["sequence"], "unpublished")
    yield ("sequences delete", known["sequence"])


UNTRIED: Final = frozenset(
    {"instances remedy", "dlq retry", "admin drain", "webhooks preview", "webhooks redeliver", "webhooks delete"}
    | {"webhooks attempts"}
)
"""Commands that need what only a failure or a worker leaves behind; their own tests see their answers."""


def test_every_command_prints_json(run: Run, tmp_path: Path) -> None:
    ask = {"id": "ask", "handler": "noop", "wait_for_input": {"prompt": "?"}}
    (tmp_path / "poster.json").write_text(json.dumps({"id": "poster", "blocks": [ask]}))
    (tmp_path / "blocks.json").write_text(json.dumps({"blocks": [{"type": "step", "id": "b", "handler": "noop"}]}))
    (tmp_path / "secret").write_text("s3cret")
    (tmp_path / "other.json").write_text(json.dumps({"id": "other", "blocks": [ask]}))
    (tmp_path / "lines").write_text('{"name": "Ada"}\n\n{"name": "Bo"}\n')
    told = {"tenant_id": "shop", "event_name": "paid", "producer_event_id": "e-2", "correlation_key": "order-18"}
    (tmp_path / "events").write_text(json.dumps(told))
    known = {"lines": str(tmp_path / "lines"), "events": str(tmp_path / "events")}
    known |= {"other file": str(tmp_path / "other.json")}
    known |= {"file": str(tmp_path / "poster.json"), "blocks": str(tmp_path / "blocks.json"), "id": ""}
    known |= {"secret": str(tmp_path / "secret")}
    known["failed"], known["task"] = failed_instance()
    tried = set()
    for name, *arguments in script(known):
        out = run(*name.split(), *arguments, "--output", "json")
        tried.add(name)
        said = _decoded(out.splitlines() if name == "instances watch" else [out], name)
        if isinstance(said, dict) and "id" in said:
            known["id"] = said["id"]
        if isinstance(said, dict) and "event_id" in said:
            known["event"] = said["event_id"]
        if name == "sequences create":
            known["sequence"] = said["id"]
    assert set(COMMANDS) - tried == PROCESSES | UNTRIED


def _decoded(texts: list[str], name: str) -> Any:
    try:
        said = [json.loads(text) for text in texts]
    except json.JSONDecodeError:
        pytest.fail(f"`orchestrator {name} --output json` prints {texts!r}")
    return said[0] if len(said) == 1 else said


def failed_instance() -> tuple[str, str]:
    """Let a flow fail, in the tenant of the commands; gives its id and that of the task that failed."""
    with Client(os.environ["ORCHESTRATOR_URL"], tenant="shop") as client:
        client.create_sequence({"id": "bill", "blocks": [{"handler": "card", "queue_name": "cards"}]})
        started = client.start("bill").id
        (task,) = client.claim_tasks("w1", "card", queue="cards")
        client.fail_task(task, "declined")
        return str(started), str(task.id)


def test_failed_flows_are_done_again_by_their_cause(run: Run) -> None:
    failed, _ = failed_instance()
    (group,) = json.loads(run("dlq", "groups", "-o", "json"))
    assert failed in run("dlq", "list")
    assert run("dlq", "retry", group["fingerprint"]) == "1 open again, 0 left out\n"
    assert json.loads(run("dlq", "list", "-o", "json")) == []


def test_what_is_watched_is_shown_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise SystemExit(0)

    monkeypatch.setattr(time, "sleep", pause)
    out = run("limits", "list", "-o", "json")
    assert out == "[]\n"
    assert run("dlq", "list", "--watch", "0.5", "-o", "json") == "[]\n" * 3
    assert pauses == [0.5] * 3


def test_shells_complete_commands() -> None:
    environment = {**os.environ, "_ORCHESTRATOR_COMPLETE": "complete_bash", "COMP_CWORD": "1"}
    environment["COMP_WORDS"] = "orchestrator sess"
    said = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert said.stdout.split() == ["sessions"], said.stderr
