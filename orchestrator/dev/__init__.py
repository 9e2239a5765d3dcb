"""Everything on one machine under one supervisor: `orchestrator dev`.

`run` starts PostgreSQL and Redis (unless DATABASE_URL and REDIS_URL name others), brings the database up to date, then
starts API, loops, workers and perhaps Flower, shows their logs as one, starts again what dies, and ends all of it on
one Ctrl-C, within seconds: steps that still run are given back. A second Ctrl-C kills what has not ended yet; the
servers still stop cleanly, as data is at stake.

If the supervisor itself is killed, the children end by its guard and the servers by their keeper; nothing has to be
cleaned up before the next start.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from orchestrator import embedded
from orchestrator.embedded import Servers, home
from orchestrator.errors import OrchestratorError
from orchestrator.supervision import (
    STOP_SECONDS,
    Backoff,
    ChildSpec,
    Interrupts,
    LinePrinter,
    Supervisor,
    answers,
    worker_grace,
)

__all__ = ["Backoff", "ChildSpec", "DevOptions", "LinePrinter", "Supervisor", "answers", "child_specs", "run"]

HOST = "127.0.0.1"
LOOK_SECONDS = 0.05
"""How soon a Ctrl-C is noticed."""
SUPERVISOR = "dev"
"""The supervisor's own name in the log."""
MIGRATED = {"ORCH8_RUN_MIGRATIONS": "false"}
"""For children: the database is up to date, as `run` has seen to it."""
ROOT_IS_FINE = "ignore:You're running the worker with superuser privileges"
"""For workers: a container for trying things out has no other user."""
KEY_VARIABLES = ("ORCHESTRATOR_API_KEY", "ORCH8_API_KEY", "API_KEY")
"""Names by which the settings know the root key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """What `orchestrator dev` was asked for.

    Attributes:
        data_dir: Folder of data, settings and logs; None for `$ORCHESTRATOR_HOME` or the user's data folder.
        api_port: Port of the API on 127.0.0.1.
        workers: How many worker processes.
        queues: Queues each of them serves.
        concurrency: Steps each of them runs at once.
        imports: Modules with handlers, imported by the workers.
        flower: Start Flower as well, without a login, on 127.0.0.1.
        flower_port: Its port.
        ready_seconds: How long the children may take before what is missing is named; they go on starting.
        migrate: Brings the database of a URL up to date; None for `orchestrator.store.migrate.upgrade`.
        color: Coloured log; None asks the terminal.
    """

    data_dir: Path | None = None
    api_port: int = 8080
    workers: int = 1
    queues: tuple[str, ...] = ("default",)
    concurrency: int = 4
    imports: tuple[str, ...] = ()
    flower: bool = False
    flower_port: int = 5555
    ready_seconds: float = 30.0
    migrate: Callable[[str], None] | None = None
    color: bool | None = None


def run(options: DevOptions, *, specs: Callable[[DevOptions], tuple[ChildSpec, ...]] | None = None) -> int:
    """Run everything until Ctrl-C, SIGTERM or a closed terminal, from the main thread.

    Args:
        options: What to run.
        specs: The children to run; None for `child_specs`.

    Returns:
        The exit status: 0 after an orderly end, 1 when it could not start.
    """
    began = time.monotonic()
    interrupts = Interrupts()
    with interrupts.handled():
        try:
            _check_ports(options)
            preloading = _preload(options)
            with embedded.running(options.data_dir) as servers:
                preloading.join()
                _migration(options)(servers.database_url)
                _supervise(options, servers, (specs or child_specs)(options), interrupts, began)
        except KeyboardInterrupt:
            return 0
        except OrchestratorError as problem:
            sys.stderr.write(f"orchestrator dev: {problem}\n")
            return 1
    return 0


def child_specs(options: DevOptions) -> tuple[ChildSpec, ...]:
    """Return the processes that `options` ask for; where the servers are, they learn from the environment."""
    command = (sys.executable, "-m", "orchestrator.cli")
    service = ChildSpec(name="service", argv=(*command, "service"), env=MIGRATED, ready_text="service_started")
    specs = (_api_spec(options, command), service, *_worker_specs(options, command), *_flower_specs(options))
    return tuple(replace(spec, stop_seconds=STOP_SECONDS) for spec in specs)


def _api_spec(options: DevOptions, command: tuple[str, ...]) -> ChildSpec:
    """Let the API be open, as it can be reached from this machine only; with a key of the user's it is as elsewhere."""
    argv = (*command, "api", "--host", HOST, "--port", str(options.api_port))
    env = dict(MIGRATED)
    if not any(os.environ.get(name) for name in KEY_VARIABLES):
        argv = (*argv, "--insecure")
        env["ORCH8_REQUIRE_TENANT_HEADER"] = os.environ.get("ORCH8_REQUIRE_TENANT_HEADER") or "false"
    else:
        argv = (*argv, "--insecure-storage")
    live = f"http://{HOST}:{options.api_port}/health/live"
    return ChildSpec(name="api", argv=argv, env=env, ready=lambda: answers(live))


def _worker_specs(options: DevOptions, command: tuple[str, ...]) -> Iterator[ChildSpec]:
    imports = tuple(part for module in options.imports for part in ("--import", module))
    served = ("--queues", ",".join(options.queues), "--concurrency", str(options.concurrency))
    for number in range(1, options.workers + 1):
        node = f"worker-{number}-{os.getpid()}"
        yield ChildSpec(
            name="worker" if options.workers == 1 else f"worker-{number}",
            argv=(*command, "worker", "--quiet", "--name", node, *served, *imports),
            env={"PYTHONWARNINGS": ROOT_IS_FINE} | worker_grace(),
            ready_text=f"{node}@{socket.gethostname()} ready.",
        )


def _flower_specs(options: DevOptions) -> Iterator[ChildSpec]:
    if options.flower:
        address = f"http://{HOST}:{options.flower_port}/healthcheck"
        argv = (sys.executable, "-m", "orchestrator.cli", "flower")
        yield ChildSpec(
            name="flower",
            argv=(*argv, "--host", HOST, "--port", str(options.flower_port)),
            env={"FLOWER_UNAUTHENTICATED_API": "true"},
            ready=lambda: answers(address),
        )


def _supervise(
    options: DevOptions, servers: Servers, specs: tuple[ChildSpec, ...], interrupts: Interrupts, began: float
) -> None:
    names = (SUPERVISOR, *(spec.name for spec in specs))
    servers.log_directory.mkdir(parents=True, exist_ok=True)
    printer = LinePrinter(names, sys.stdout, directory=servers.log_directory, color=options.color)
    children = Supervisor(specs, env=os.environ | servers.environment, printer=printer, name=SUPERVISOR)
    interrupts.defer_to(children)
    try:
        with children:
            missing = children.wait_ready(options.ready_seconds, give_up=interrupts.are_requested)
            if not interrupts.are_requested():
                printer.block(_summary(options, servers, missing, time.monotonic() - began))
            while not interrupts.are_requested():
                time.sleep(LOOK_SECONDS)
            printer.line(SUPERVISOR, "stopping; Ctrl-C again kills what has not ended")
    finally:
        printer.close()


def _check_ports(options: DevOptions) -> None:
    wanted = [("--port", options.api_port)]
    if options.flower:
        wanted.append(("--flower-port", options.flower_port))
    for option, port in wanted:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as problem:
                raise embedded.ServersError(f"port {port} is in use; choose another one with {option}") from problem


def _preload(options: DevOptions) -> threading.Thread:
    """Import what the migration needs while PostgreSQL starts; a failure shows when it is imported again."""
    is_first = not ((options.data_dir or home.default_directory()).expanduser() / "settings.json").exists()

    def load() -> None:
        with contextlib.suppress(ImportError):
            _migration(options)
            if is_first:
                importlib.import_module("alembic.command")

    thread = threading.Thread(target=load, name="preload", daemon=True)
    thread.start()
    return thread


def _migration(options: DevOptions) -> Callable[[str], None]:
    if options.migrate is not None:
        return options.migrate
    upgrade: Callable[[str], None] = importlib.import_module("orchestrator.store.migrate").upgrade
    return upgrade


def _summary(options: DevOptions, servers: Servers, missing: tuple[str, ...], seconds: float) -> str:
    state = f"ready after {seconds:.1f} s" if not missing else f"not ready yet: {', '.join(missing)} (see the log)"
    rows = [("API", f"http://{HOST}:{options.api_port}"), ("API docs", f"http://{HOST}:{options.api_port}/swagger-ui")]
    if options.flower:
        rows.append(("Flower", f"http://{HOST}:{options.flower_port}"))
    rows += [
        ("database", _without_password(embedded.without_driver(servers.database_url))),
        ("Redis", _without_password(servers.redis_url)),
        ("broker", _without_password(servers.broker_url)),
        ("data", str(servers.data_directory or servers.directory)),
        ("logs", str(servers.log_directory)),
    ]
    if servers.redis_pid is not None or servers.postgres_pid is not None:
        rows.append(("passwords", str(servers.directory / "settings.json")))
    lines = "\n".join(f"  {name:<10} {value}" for name, value in rows)
    return f"\norchestrator is {state}\n\n{lines}\n\nCtrl-C ends everything; data is kept.\n"


def _without_password(url: str) -> str:
    """Hide the password of a URL.

    >>> _without_password("redis://:secret@127.0.0.1:6379/1")
    'redis://:***@127.0.0.1:6379/1'
    """
    parts = urlsplit(url)
    if not parts.password:
        return url
    login, _, address = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{login.partition(':')[0]}:***@{address}").geturl()
