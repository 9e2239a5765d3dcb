"""API, loops and workers under one supervisor, over servers that run elsewhere: `orchestrator server`.

The parts are the processes that `orchestrator api`, `service` and `worker` start; any number of these may run beside
it, on this machine and on others. One that dies is started again. SIGTERM ends all of them in less than five seconds:
requests are answered, loops end their round, and steps that are still running then are given back, to run again.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from orchestrator.errors import ConfigurationError
from orchestrator.settings import ReadyNeed, Settings
from orchestrator.store.migrate import check, upgrade
from orchestrator.supervision import (
    STOP_SECONDS,
    ChildSpec,
    Interrupts,
    LinePrinter,
    Supervisor,
    answers,
    worker_grace,
)
from orchestrator.supervision.printing import Overflowing
from queues.addresses import is_rabbitmq

SUPERVISOR = "server"
"""The supervisor's own name in the log."""
LOOK_SECONDS = 0.05
READY_SECONDS = 60.0
"""After which what is not ready is named; it goes on starting."""
CANNOT_RUN = 2
"""Exit status of our commands for settings they cannot run with."""


class Part(StrEnum):
    """What runs."""

    API = "api"
    LOOPS = "loops"
    WORKERS = "workers"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What `orchestrator server` was asked for.

    Attributes:
        host: Address the API listens on.
        port: Its port.
        is_insecure: Ask nobody for a key.
        stores_openly: Need no key for what is stored.
        parts: What to run.
        workers: How many worker processes.
        api_processes: How many processes serve the API, all on its one port.
        queues: Queues each of them serves.
        concurrency: Steps each of them runs at once; None for one for each processor.
        imports: Modules with handlers, imported by the workers.
    """

    host: str
    port: int
    is_insecure: bool = False
    stores_openly: bool = False
    parts: frozenset[Part] = frozenset(Part)
    workers: int = 1
    api_processes: int = 1
    queues: tuple[str, ...] = ("default",)
    concurrency: int | None = None
    imports: tuple[str, ...] = ()


def run(options: ServerOptions, settings: Settings) -> int:
    """Run everything until SIGTERM, SIGINT or a closed terminal, from the main thread; returns the exit status.

    The parts start while the database is migrated, and wait for that before they use it.

    Raises:
        ConfigurationError: No part is left, the address is taken, a newer version has migrated the database, or it is
            not to be migrated and has to be.
        StoreUnavailable: The database has to be migrated and cannot be reached.
    """
    began = time.monotonic()
    _check(options)
    if not settings.run_migrations:
        check(settings.database_url)
    interrupts = Interrupts()
    with interrupts.handled(), contextlib.closing(Overflowing(sys.stdout)) as out:
        specs = child_specs(options, settings)
        printer = LinePrinter((SUPERVISOR, *(spec.name for spec in specs)), out)
        children = Supervisor(specs, printer=printer, name=SUPERVISOR)
        try:
            with children:
                if settings.run_migrations:
                    upgrade(settings.database_url, tenant_role=settings.tenant_role)
                interrupts.defer_to(children)
                return _watch(children, printer, interrupts, began)
        except KeyboardInterrupt:
            return 0


def _watch(children: Supervisor, printer: LinePrinter, interrupts: Interrupts, began: float) -> int:
    """Wait until it is time to end; returns the exit status."""

    def must_end() -> bool:
        return interrupts.are_requested() or children.given_up is not None

    missing = children.wait_ready(READY_SECONDS, give_up=must_end)
    if not must_end():
        is_ready = f"ready after {time.monotonic() - began:.1f} s"
        printer.line(SUPERVISOR, f"not ready: {', '.join(missing)}" if missing else is_ready)
    while not must_end():
        time.sleep(LOOK_SECONDS)
    if children.given_up is not None:
        printer.line(SUPERVISOR, f"stopping: {children.given_up} cannot run with these settings", is_bad=True)
        return CANNOT_RUN
    printer.line(SUPERVISOR, "stopping")
    return 0


def child_specs(options: ServerOptions, settings: Settings) -> tuple[ChildSpec, ...]:
    """Return the processes that `options` ask for; where the servers are, they learn from the environment."""
    command = (sys.executable, "-m", "orchestrator.cli")
    specs: list[ChildSpec] = []
    if Part.WORKERS in options.parts:
        specs += _worker_specs(options, command)
    if Part.API in options.parts:
        specs += _api_specs(options, settings, command)
    if Part.LOOPS in options.parts:
        specs.append(ChildSpec(name="loops", argv=(*command, "service"), ready_text="service_started"))
    waiting = {"ORCH8_RUN_MIGRATIONS": "false", "ORCHESTRATOR_AWAIT_MIGRATIONS": str(settings.run_migrations)}
    return tuple(
        replace(spec, env=waiting | dict(spec.env), stop_seconds=STOP_SECONDS, fatal_status=CANNOT_RUN)
        for spec in specs
    )


def _api_specs(options: ServerOptions, settings: Settings, command: tuple[str, ...]) -> Iterator[ChildSpec]:
    """Give the processes that serve the API; several share the port, and whichever answers makes all of them ready."""
    needs = [ReadyNeed.BROKER if is_rabbitmq(settings.celery_broker_url) else ReadyNeed.REDIS]
    if Part.WORKERS in options.parts and options.workers:
        needs.append(ReadyNeed.WORKERS)
    env = {
        "ORCHESTRATOR_READY_NEEDS": os.environ.get("ORCHESTRATOR_READY_NEEDS") or ",".join(needs),
        "ORCHESTRATOR_READY_WITHOUT_SERVICE": os.environ.get("ORCHESTRATOR_READY_WITHOUT_SERVICE")
        or str(Part.LOOPS not in options.parts),
    }
    argv = (*command, "api", "--host", options.host, "--port", str(options.port))
    flags = {
        "--insecure-auth": options.is_insecure,
        "--insecure-storage": options.stores_openly,
        "--share-port": options.api_processes > 1,
    }
    argv = (*argv, *(flag for flag, is_set in flags.items() if is_set))
    for number in range(1, options.api_processes + 1):
        yield ChildSpec(
            name="api" if options.api_processes == 1 else f"api-{number}",
            argv=argv,
            env=env,
            ready=lambda: answers(f"http://{_own_address(options.host)}:{options.port}/health/live"),
        )


def _own_address(host: str) -> str:
    """Give an address by which this machine reaches a listener.

    >>> _own_address("0.0.0.0"), _own_address("::1")
    ('127.0.0.1', '[::1]')
    """
    if host in {"", "0.0.0.0"}:  # noqa: S104 - what is listened on is not decided here
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def _worker_specs(options: ServerOptions, command: tuple[str, ...]) -> Iterator[ChildSpec]:
    imports = tuple(part for module in options.imports for part in ("--import", module))
    served: tuple[str, ...] = ("--queues", ",".join(options.queues))
    if options.concurrency is not None:
        served = (*served, "--concurrency", str(options.concurrency))
    for number in range(1, options.workers + 1):
        node = f"worker-{number}-{os.getpid()}"
        yield ChildSpec(
            name="worker" if options.workers == 1 else f"worker-{number}",
            argv=(*command, "worker", "--quiet", "--name", node, *served, *imports),
            env={"PYTHONWARNINGS": "ignore:You're running the worker with superuser privileges"} | worker_grace(),
            ready_text=f"{node}@{socket.gethostname()} ready.",
        )


def _check(options: ServerOptions) -> None:
    """Refuse what no child could do: it would be started again and again."""
    if not options.parts:
        raise ConfigurationError("--without leaves nothing to run")
    if Part.API not in options.parts:
        return
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((options.host, options.port))
        except OSError as error:
            where = f"{options.host} port {options.port}"
            raise ConfigurationError(f"cannot listen on {where}: {error.strerror or error}") from error
