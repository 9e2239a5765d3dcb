"""Whether this process lives and can serve, and what it is (contract, api §4)."""

from datetime import datetime, timedelta
from importlib.metadata import PackageNotFoundError, version

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from orchestrator.api.answers import Json
from orchestrator.api.services import Services, Serving
from orchestrator.api.shapes import Info
from orchestrator.errors import StoreUnavailable
from orchestrator.settings import ReadyNeed
from orchestrator.store import installation, workers
from orchestrator.store.row_security import RowSecurityMode

router = APIRouter(tags=["health"])

HEARTBEAT = "service_heartbeat"
"""Fact of the installation in which the service loops leave the time of their last round."""
HEARTBEAT_FRESH_FOR = timedelta(seconds=15)
"""As long as a statement may take: a loop that is later than that is stuck, not slow."""
CONTRACT_VERSION = "1"


@router.get("/health/live", response_class=Response)
async def live() -> Response:
    """Answer as long as the process serves HTTP."""
    return Response()


@router.get("/health/ready", response_class=Response)
def ready(serving: Serving) -> Response:
    """Answer 200 when everything this API needs is there, else 503; the header `x-not-ready` names what is missing.

    Needed are `postgresql` and `loops`, which leave a heartbeat; the setting `ready_without_service` is for an API that
    is to be ready without loops, and `ready_needs` for one that needs `redis`, `broker` (RabbitMQ) or `workers`. The
    header `x-ready-without` names what is wanted and can be done without: `row_security`.
    """
    missing = _missing(serving)
    if missing:
        return Response(status_code=503, headers={"x-not-ready": ", ".join(missing)})
    return Response(headers={"x-ready-without": "row_security"} if serving.store.row_security.fault else {})


def _missing(serving: Services) -> list[str]:
    needs = serving.settings.ready_needs
    try:
        with serving.store.transaction() as tx:
            now, heartbeat = tx.now(), installation.read(tx, HEARTBEAT)
            has_workers = ReadyNeed.WORKERS not in needs or bool(workers.alive(tx, serving.settings.dead_after))
    except StoreUnavailable:
        return ["postgresql"]
    has_loops = heartbeat is not None and now - datetime.fromisoformat(heartbeat) <= HEARTBEAT_FRESH_FOR
    there = {
        "loops": has_loops or serving.settings.ready_without_service,
        "workers": has_workers,
        "row_security": serving.store.row_security.fault is None
        or serving.store.row_security.mode is not RowSecurityMode.REQUIRED,
        "redis": ReadyNeed.REDIS not in needs or serving.redis.answers(),
        "broker": ReadyNeed.BROKER not in needs or serving.broker.answers(),
    }
    return [name for name, is_there in there.items() if not is_there]


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(serving: Serving) -> Response:
    """Give all metrics in the Prometheus text format."""
    return Response(serving.metrics.text(), headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"})


@router.get("/info", responses={200: {"model": Info}})
def info(serving: Serving) -> Response:
    """Say what runs here."""
    with serving.store.transaction() as tx:
        schema_version = installation.schema_version(tx)
    return Json(
        {
            "version": package_version(),
            "storage_schema_version": schema_version,
            "contract_schema_version": CONTRACT_VERSION,
            "env_label": serving.settings.env_label,
            "env_color": serving.settings.env_color,
        }
    )


def package_version() -> str:
    """Give the version of the installed package; `0` in a checkout that is not installed."""
    try:
        return version("orchestrator")
    except PackageNotFoundError:
        return "0"
