"""The processes that the command line starts."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator import embedded
from orchestrator.cli import processes
from orchestrator.cli.exits import ExitCode
from orchestrator.dev import answers
from orchestrator.embedded.home import free_port
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from orchestrator.store import migrate
from tests.integration.cli.hands import Cli, Said


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
