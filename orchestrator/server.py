"""Serves the HTTP interface of one process.

In production any number of these run behind a load balancer; each has its own connections and keeps no state.
"""

import structlog
import uvicorn

from orchestrator.api.app import create_app
from orchestrator.api.auth import check_configuration
from orchestrator.doorbell import Doorbell
from orchestrator.engine import Engine
from orchestrator.errors import ConfigurationError
from orchestrator.settings import Settings
from orchestrator.store.session import Store
from queues.broker import Broker, client_app

log = structlog.get_logger()

CONNECTIONS = 10
"""Of one process to PostgreSQL, and as many again for bursts."""
GRACE_SECONDS = 5
"""How long requests that are being answered may take once the process is told to end."""


def serve(settings: Settings, *, host: str, port: int, is_insecure: bool = False) -> None:
    """Serve until SIGTERM or SIGINT.

    Args:
        settings: Of this process; with `is_insecure` their key is not asked for.
        host: Address to listen on.
        port: Port to listen on; 0 takes a free one.

    Raises:
        ConfigurationError: The settings would leave the API open by accident, or name no servers.
    """
    check_configuration(settings, is_insecure=is_insecure)
    if not settings.database_url:
        raise ConfigurationError("DATABASE_URL is not set: name a PostgreSQL server, or use `orchestrator dev`")
    if not settings.celery_broker_url:
        raise ConfigurationError("REDIS_URL (or BROKER_URL) is not set: name one, or use `orchestrator dev`")
    if is_insecure:
        settings = settings.model_copy(update={"api_key": ""})
        log.warning("api_is_open", reason="--insecure: whoever reaches this address may do everything", host=host)
    store = Store(settings.database_url, pool_size=CONNECTIONS, overflow=CONNECTIONS)
    doorbell = Doorbell(Broker(client_app(settings.celery_broker_url)).publish)
    try:
        log.info("api_starts", host=host, port=port)
        uvicorn.run(
            create_app(Engine(store, doorbell, settings), settings),
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
    finally:
        doorbell.close()
        store.close()
        log.info("api_stopped")
