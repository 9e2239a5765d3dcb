"""Serves the HTTP interface of one process.

In production any number of these run behind a load balancer; each has its own connections and keeps no state.
"""

import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI

from orchestrator.api.app import POOL_OVERFLOW, POOL_SIZE, create_app
from orchestrator.api.auth import check_configuration
from orchestrator.collector import calm_collector
from orchestrator.doorbell import Doorbell
from orchestrator.engine import Engine
from orchestrator.errors import ConfigurationError, ServerFault
from orchestrator.settings import Settings
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.row_security import RowSecurity
from queues.broker import Broker, client_app

log = structlog.get_logger()

GRACE_SECONDS = 3
"""How long requests that are being answered may take once the process is told to end."""
SWITCH_SECONDS = 0.0005
"""How long a thread that decides or writes keeps the interpreter from the event loop, which asks for it anew at each
event; by default it is 5 ms, which is longer than most requests take."""


def serve(
    settings: Settings,
    *,
    host: str,
    port: int,
    shares_port: bool = False,
    is_insecure: bool = False,
    stores_openly: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: Of this process; with `is_insecure` their key is not asked for.
        stores_openly: Need no key for what is stored.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.
        shares_port: Let other processes that say so listen there, too; the system spreads connections over them.

    Raises:
        ConfigurationError: The settings would leave the API open by accident or name no servers, the address is
            in use, or PostgreSQL is reached through a pooler that is not set.
    """
    check_configuration(settings, is_insecure=is_insecure)
    if not stores_openly and not settings.encryption_key.get_secret_value():
        raise ConfigurationError("ORCH8_ENCRYPTION_KEY is not set: set it, or start with --insecure-storage")
    if not settings.database_url:
        raise ConfigurationError("DATABASE_URL is not set: name a PostgreSQL server, or use `orchestrator dev`")
    if not settings.celery_broker_url:
        raise ConfigurationError("REDIS_URL (or BROKER_URL) is not set: name one, or use `orchestrator dev`")
    if is_insecure:
        settings = settings.model_copy(update={"api_key": ""})
        log.warning("api_is_open", reason="--insecure: whoever reaches this address may do everything", host=host)
    with _listening(host, port, shares_port=shares_port) as listener, _ending_on_signals():
        store = PostgresStore(
            settings.database_url,
            pool_size=POOL_SIZE,
            overflow=POOL_OVERFLOW,
            apart=settings.apart,
            pooler=settings.database_pooler,
            vault=settings.vault,
            row_security=RowSecurity(settings.row_security, settings.tenant_role),
        )
        store.try_out()
        store.try_out_row_security()
        name = store.installation(settings.installation)
        doorbell = Doorbell(Broker(client_app(settings.celery_broker_url, name)))
        try:
            _run(create_app(Engine(store, doorbell, settings), settings), listener)
        finally:
            doorbell.close()
            store.close()
            log.info("api_stopped")


def _run(app: FastAPI, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    log.info("api_starts", host=host, port=port)
    calm_collector()
    sys.setswitchinterval(SWITCH_SECONDS)
    server = Server(
        uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    )
    server.run(sockets=[listener])
    if not server.started:
        raise ServerFault("the API could not start; its log says why")


class Server(uvicorn.Server):
    """Ends the event streams first: they would go on until the grace of a shutdown is over."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End in an orderly way."""
        app = self.config.app
        if isinstance(app, FastAPI):
            app.state.services.streams.end()
        await super().shutdown(sockets)


@contextmanager
def _listening(host: str, port: int, *, shares_port: bool) -> Iterator[socket.socket]:
    """Take the address first: an address that is in use is the operator's to change, and nothing has begun yet."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shares_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind((host, port))
        except OSError as error:
            raise ConfigurationError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
        yield listener


@contextmanager
def _ending_on_signals() -> Iterator[None]:
    """End with status 0 when told to: uvicorn raises the signal again once it has closed, by default a death."""

    def end(_number: int, _frame: FrameType | None) -> None:
        raise SystemExit(0)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
