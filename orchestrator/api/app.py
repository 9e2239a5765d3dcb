"""The HTTP app: endpoints, and what surrounds them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread
from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from orchestrator.api import (
    api_keys,
    breakers,
    bulk,
    changes,
    checkpoints,
    cluster,
    correlation_events,
    credentials,
    dashboards,
    dead_letters,
    debugging,
    diagnosis,
    dispatch,
    documentation,
    health,
    inbound,
    instances,
    migrations,
    plans,
    plugins,
    publishing,
    queues,
    rate_limits,
    reading,
    resource_pools,
    schedules,
    sequences,
    sessions,
    signals,
    step_logs,
    stream,
    tasks,
    tooling,
    triggers,
    usage,
    webhooks,
    worker_orders,
)
from orchestrator.api.answers import add_error_answers
from orchestrator.api.edge import PREFIX, Door, Edge
from orchestrator.api.following import STREAM_THREADS
from orchestrator.api.methods import Methods
from orchestrator.api.routes import Routes
from orchestrator.api.services import Services
from orchestrator.engine import Engine
from orchestrator.errors import ConfigurationError
from orchestrator.settings import Settings

THREADS = 20
POOL_SIZE, POOL_OVERFLOW = 10, THREADS + STREAM_THREADS - 10
"""Connections of the store an API process should open: together as many as it has threads."""

_PRODUCT = (
    tooling.router,
    migrations.router,
    publishing.router,
    sequences.router,
    dead_letters.router,
    debugging.router,
    diagnosis.router,
    reading.router,
    stream.router,
    step_logs.router,
    changes.router,
    bulk.router,
    instances.router,
    checkpoints.router,
    sessions.router,
    resource_pools.router,
    rate_limits.router,
    breakers.router,
    plugins.router,
    correlation_events.router,
    cluster.router,
    triggers.router,
    schedules.router,
    credentials.router,
    plans.router,
    signals.router,
    tasks.router,
    dashboards.router,
    queues.router,
    dispatch.router,
    webhooks.router,
    worker_orders.router,
    api_keys.router,
    usage.router,
)
_ROOT = (health.router, documentation.router, inbound.router)
PREFIXED = (*((PREFIX, router) for router in _PRODUCT), *(("", router) for router in _ROOT))
"""All routers, and what stands before their paths, in the order in which they are asked."""


def create_app(engine: Engine, settings: Settings) -> FastAPI:
    """Build the app over an engine; the caller has checked the settings and closes the store.

    Endpoints are ordinary functions run in threads, because the store is synchronous.

    Raises:
        ConfigurationError: The settings contradict each other.
    """
    if "*" in settings.cors_origins and settings.api_key:
        raise ConfigurationError("ORCH8_CORS_ORIGINS=* with an API key lets any page use it: name the origins")
    app = FastAPI(
        title="Orchestrator",
        version=health.package_version(),
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
    )
    app.state.services = Services.over(engine, settings)
    app.router.routes.append(Routes(PREFIXED))
    for prefix, router in PREFIXED:
        app.include_router(router, prefix=prefix)
    app.openapi = lambda: _described(app)  # type: ignore[method-assign]  # FastAPI's own way to replace it
    methods = Methods(PREFIXED)
    add_error_answers(app, methods)
    app.add_middleware(Door, settings=settings, methods=methods)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.cors_origins), allow_methods=["*"], allow_headers=["*"]
        )
    app.add_middleware(Edge, settings=settings)
    return app


def _described(app: FastAPI) -> dict[str, object]:
    if app.openapi_schema is None:
        app.openapi_schema = documentation.describe(app, PREFIX)
    return app.openapi_schema


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
    await anyio.to_thread.run_sync(app.state.services.metrics.begin)
    yield
