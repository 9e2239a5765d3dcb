"""What is logged while steps are run (contract, api §10.4, §13.4)."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import psycopg2
import structlog
from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import Response

from orchestrator.api.addresses import InstanceId
from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.instances import check_owned
from orchestrator.api.services import Services, Serving
from orchestrator.core.sections import rfc3339
from orchestrator.errors import StoreUnavailable
from orchestrator.log_lines import MAX_LEVEL_CHARACTERS, MAX_LINES, MAX_MESSAGE_CHARACTERS
from orchestrator.store import step_logs
from orchestrator.store.step_logs import Line
from sequences.json_values import json_bytes

log = structlog.get_logger()

router = APIRouter(tags=["instances"])


class LogLine(BaseModel):
    """A line that a worker or a handler has logged; `ts` as it wrote it."""

    block_id: str
    ts: Any
    level: str
    message: str


@router.get("/instances/{id}/logs", responses={200: {"model": list[LogLine]}})
def read_logs(serving: Serving, caller: CallerDependency, instance_id: InstanceId) -> Response:
    """Read what workers and handlers have logged, in the order of their reports; the newest 10,000 lines."""
    check_owned(serving, caller, instance_id)
    with serving.store.reading(caller.tenant) as tx:
        rows = step_logs.find(tx, instance_id)
    return Json([dict(zip(("block_id", "ts", "level", "message"), row, strict=True)) for row in rows])


def store_logs(serving: Services, instance_id: UUID, block_id: str, written: list[Any] | None) -> None:
    """Keep the lines that came with a report; it counts all the same if they cannot be stored."""
    lines = [_line(each) for each in (written or ())[-MAX_LINES:]]
    if not lines:
        return
    try:
        with serving.store.transaction() as tx:
            step_logs.insert(tx, instance_id, block_id, lines, serving.engine.new_id)
    except (StoreUnavailable, psycopg2.Error) as error:
        log.warning("logs_not_stored", instance_id=str(instance_id), lines=len(lines), error=type(error).__name__)


def _line(written: Any) -> Line:
    """Read a line as liberally as any worker may have written it.

    >>> _line({"ts": 5, "level": "warn", "message": "slow"})
    Line(ts=5, level='warn', message='slow')
    >>> _line("slow").message, _line({"ts": 5, "n": 1}).message
    ('slow', '{"ts":5,"n":1}')
    """
    members = written if isinstance(written, dict) else {"message": written}
    message = members.get("message", written)
    ts = members.get("ts")
    return Line(
        ts=rfc3339(datetime.now(UTC)) if ts is None else ts,
        level=_text(members.get("level", "info"))[:MAX_LEVEL_CHARACTERS],
        message=_text(message)[:MAX_MESSAGE_CHARACTERS],
    )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json_bytes(value).decode()
