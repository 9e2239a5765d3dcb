"""What the endpoints work with, made once for each app and found through the request."""

from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from starlette.responses import Response

from orchestrator.api.gathering import Gatherer, Gatherers
from orchestrator.api.heads import Heads
from orchestrator.api.instance_shapes import CreateInstance
from orchestrator.api.keyring import Keyring
from orchestrator.api.metrics import Metrics
from orchestrator.api.pollers import Poller, Pollers, Wanted
from orchestrator.api.streams import Streams
from orchestrator.api.task_shapes import TaskReport
from orchestrator.api.throttle import SharedThrottle, Throttle
from orchestrator.catalogue import Catalogue
from orchestrator.credential_use import CredentialUse
from orchestrator.credentials import Credentials
from orchestrator.egress import Egress
from orchestrator.engine import Engine
from orchestrator.exchange import Started
from orchestrator.outbox import Outbox
from orchestrator.renewal import Renewer
from orchestrator.schedules import Schedules
from orchestrator.settings import Settings
from orchestrator.slices import Plans
from orchestrator.store.postgres import PostgresStore, postgres_of
from orchestrator.triggers import Triggers
from queues.broker import key_prefix
from queues.connection import Presence, connect
from queues.request_limit import RequestLimit

REDIS_PATIENCE_SECONDS = 0.25
"""So long may counting a request take."""


@dataclass(slots=True, eq=False)
class Services:
    """The doors of one process.

    Args:
        plans: Compiled definitions for reading; they are immutable, so sharing them with the engine is not needed.
        polls: By what is asked for.
        reports: By the tenant of the caller.
    """

    engine: Engine
    settings: Settings
    store: PostgresStore
    catalogue: Catalogue
    metrics: Metrics
    triggers: Triggers
    outbox: Outbox
    keyring: Keyring
    redis: Presence
    broker: Presence
    streams: Streams
    schedules: Schedules
    credentials: Credentials
    credential_use: CredentialUse
    plans: Plans = field(default_factory=Plans)
    heads: Heads = field(default_factory=Heads)
    pollers: Pollers = field(default_factory=Pollers)
    key_throttle: SharedThrottle | None = None
    throttle: Throttle = field(default_factory=Throttle)
    creations: Gatherer[CreateInstance, Started] = field(default_factory=Gatherer)
    polls: Gatherers[Wanted, Poller, Response] = field(default_factory=Gatherers)
    reports: Gatherers[str | None, TaskReport, None] = field(default_factory=Gatherers)

    @classmethod
    def over(cls, engine: Engine, settings: Settings) -> "Services":
        """Make the services of an app over an engine."""
        store = postgres_of(engine.store)
        return cls(
            engine=engine,
            settings=settings,
            store=store,
            catalogue=Catalogue(store),
            metrics=Metrics(store),
            triggers=Triggers(store, engine),
            outbox=Outbox(store, engine.new_id, settings),
            keyring=Keyring(store, settings.api_key_peppers),
            redis=Presence(settings.redis_in_use),
            broker=Presence(settings.celery_broker_url),
            streams=Streams(store, settings.max_streams),
            schedules=Schedules(store, engine),
            credentials=Credentials(store, allow_internal=settings.allow_internal_urls),
            credential_use=CredentialUse(store, Renewer(store, Egress(allow_internal=settings.allow_internal_urls))),
            key_throttle=_key_throttle(store, settings),
        )


def _key_throttle(store: PostgresStore, settings: Settings) -> SharedThrottle | None:
    """Make what counts the requests of each key; None without a limit."""
    limit, url = settings.key_requests_per_second, settings.redis_in_use
    if not limit:
        return None
    if not url:
        return SharedThrottle(limit, None)
    redis = connect(url, patience=REDIS_PATIENCE_SECONDS, retries=0)
    return SharedThrottle(
        limit, RequestLimit(redis, lambda: key_prefix(store.installation(settings.installation)), limit)
    )


async def services_of(request: Request) -> Services:
    """Give the services of the app that serves a request."""
    services: Services = request.app.state.services
    return services


Serving = Annotated[Services, Depends(services_of)]
