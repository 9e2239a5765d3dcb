"""The Celery app: `celery -A workers worker -Q gpu` and `orchestrator worker -Q gpu` both start it.

One task, the doorbell. What it makes a worker do is up to the store: see `executor.py`.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import structlog
from celery import Celery, signals
from celery.app.task import Task

from orchestrator.errors import ConfigurationError
from orchestrator.logs import configure_logging
from orchestrator.settings import Settings
from orchestrator.store.migrate import wait_for_upgrade
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Store
from orchestrator.whose import check_packages
from queues.addresses import is_redis
from queues.broker import HINT_TASK, celery_settings
from workers.registry import load
from workers.runtime import Identity, Runtime, handlers_of
from workers.supervisor import Supervisor

log = structlog.get_logger()

HINT_LOGGERS = ("celery.worker.strategy", "celery.app.trace")
"""They tell of every hint that comes and ends: two lines for each, of interest to nobody but a debugger."""
FORBIDDEN_POOLS = ("gevent", "eventlet")

P = ParamSpec("P")
T = TypeVar("T")

celery = Celery("workers")


def _or_exit(act: Callable[P, T]) -> Callable[P, T]:
    """End the process when something fails that a worker cannot do without.

    Celery only logs what its receivers raise: the worker would go on, take hints out of the queue and run nothing.
    """

    @functools.wraps(act)
    def call(*positional: P.args, **named: P.kwargs) -> T:
        try:
            return act(*positional, **named)
        except Exception as error:
            log.critical("worker_cannot_start", error=f"{type(error).__name__}: {error}")
            raise SystemExit(1) from error

    return call


def _defaults() -> dict[str, Any]:
    """Give the settings of Celery; called by the command that starts, so it opens a connection of its own."""
    settings = Settings()
    name = settings.installation
    if not name and settings.database_url and is_redis(settings.celery_broker_url):
        name = _or_exit(_installation_of)(settings)
    return celery_settings(settings.celery_broker_url, name)


def _installation_of(settings: Settings) -> str:
    if settings.await_migrations:
        wait_for_upgrade(settings.database_url)
    store = PostgresStore(settings.database_url, pooler=settings.database_pooler, vault=settings.vault)
    try:
        return store.installation()
    finally:
        store.close()


celery.add_defaults(_defaults)


class _Process:
    """What this process has made of itself; filled by Celery's signals."""

    settings: Settings | None = None
    identity: Identity | None = None
    runtime: Runtime | None = None
    supervisor: Supervisor | None = None
    parent_store: Store | None = None


@celery.task(name=HINT_TASK, bind=True, ignore_result=True, send_events=False)
def answer_hint(self: Task[Any, Any], step_id: str, attempt: int, hint_id: str) -> None:
    """Look at the store: a step may be ready on the queue this message came through. Then listen for more."""
    del attempt, hint_id
    queue = (self.request.delivery_info or {}).get("routing_key") or "default"
    runtime = _runtime()
    runtime.executor.answer_for_sure(queue, _uuid_or_none(step_id))
    runtime.listen()


def _uuid_or_none(text: str) -> UUID | None:
    try:
        return UUID(text)
    except (ValueError, AttributeError, TypeError):
        return None


def _runtime() -> Runtime:
    """Give this process's runtime, made on first use and again after a fork."""
    runtime = _Process.runtime
    if runtime is None or runtime.pid != os.getpid():
        if _Process.identity is None or _Process.settings is None:
            raise ConfigurationError("hints are answered by a Celery worker; start one with `orchestrator worker`")
        runtime = Runtime(celery, _Process.identity, _Process.settings)
        _Process.runtime = runtime
    return runtime


@signals.setup_logging.connect
def _configure_logging(**_arguments: Any) -> None:
    level = Settings().log_level
    configure_logging(level)
    logging.getLogger("celery").setLevel(level)
    for name in HINT_LOGGERS:
        logging.getLogger(name).setLevel(logging.DEBUG if level == "DEBUG" else logging.WARNING)
    logging.getLogger("kombu").setLevel(logging.WARNING)


@signals.celeryd_init.connect
@_or_exit
def _prepare(sender: str, instance: Any, conf: Any, **_arguments: Any) -> None:
    """Read the settings and import the handlers, before any child is forked."""
    del conf
    check_packages()
    settings = Settings()
    if not settings.database_url or not settings.celery_broker_url:
        raise ConfigurationError("set DATABASE_URL and REDIS_URL (or BROKER_URL), or use `orchestrator dev`")
    load(settings.imports)
    if settings.await_migrations:
        wait_for_upgrade(settings.database_url)
    _Process.settings = settings
    _Process.identity = None
    del instance, sender


@signals.worker_init.connect
@_or_exit
def _choose_identity(sender: Any, **_arguments: Any) -> None:
    pool = getattr(sender.pool_cls, "__module__", str(sender.pool_cls))
    if any(name in pool for name in FORBIDDEN_POOLS):
        raise ConfigurationError("the pools gevent and eventlet cannot be used: psycopg2 blocks them; use prefork")
    queues = tuple(celery.amqp.queues.consume_from)
    minds_long_tasks = sender.time_limit or sender.soft_time_limit or getattr(sender, "autoscale", None)
    _Process.identity = Identity.new(sender.hostname, queues, listens=not minds_long_tasks)


@signals.worker_process_init.connect
def _after_fork(**_arguments: Any) -> None:
    """Open the connections of a child; those of the parent are not touched."""
    if _Process.parent_store is not None:
        _Process.parent_store.forget_inherited()
    _Process.runtime = None
    _runtime()


@signals.worker_process_shutdown.connect
def _child_ends(**_arguments: Any) -> None:
    if _Process.runtime is not None and _Process.runtime.pid == os.getpid():
        _Process.runtime.close()


@signals.worker_ready.connect
@_or_exit
def _watch(sender: Any, **_arguments: Any) -> None:
    """Begin to watch over the children, and tell the engine what this worker serves."""
    if _Process.settings is None or _Process.identity is None:
        raise ConfigurationError("the worker was not prepared")
    from orchestrator.engine import Engine  # noqa: PLC0415 - the parent's own, made once

    settings = _Process.settings
    _Process.parent_store = PostgresStore(
        settings.database_url,
        pool_size=1,
        overflow=1,
        apart=settings.apart,
        pooler=settings.database_pooler,
        vault=settings.vault,
    )
    _Process.parent_store.try_out()
    engine = Engine(_Process.parent_store, None, _Process.settings)
    names = handlers_of(celery, _Process.settings).names()
    slots = getattr(sender.controller, "concurrency", None) or 1
    _Process.supervisor = Supervisor(
        engine,
        _Process.identity,
        names,
        slots,
        _Process.settings,
        served=lambda: tuple(celery.amqp.queues.consume_from),
    )
    _Process.supervisor.start()


@signals.worker_shutting_down.connect
def _stop_taking(**_arguments: Any) -> None:
    if _Process.identity is not None:
        _Process.identity.stop.put_up()
    if _Process.supervisor is not None and _Process.settings is not None and _Process.settings.shutdown_grace:
        _Process.supervisor.end_after(_Process.settings.shutdown_grace)
    if _Process.runtime is not None and _Process.runtime.pid == os.getpid():
        _Process.runtime.executor.is_stopping = True


@signals.worker_shutdown.connect
def _stop(**_arguments: Any) -> None:
    if _Process.runtime is not None and _Process.runtime.pid == os.getpid():
        _Process.runtime.close()
    if _Process.supervisor is not None:
        _Process.supervisor.stop()
