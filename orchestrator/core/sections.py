"""The sections of a context as clients and handlers see them (sequences contract §8.1)."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Protocol
from uuid import UUID

import orjson


class Progress(Protocol):
    """What the runtime section tells of an instance."""

    @property
    def id(self) -> UUID | str: ...  # noqa: D102
    @property
    def run_id(self) -> UUID | str | None: ...  # noqa: D102
    @property
    def current_step(self) -> str | None: ...  # noqa: D102
    @property
    def current_step_started_at(self) -> datetime | None: ...  # noqa: D102
    @property
    def total_steps(self) -> int: ...  # noqa: D102
    @property
    def dry_run(self) -> bool: ...  # noqa: D102
    @property
    def dry_run_auto_approve(self) -> bool: ...  # noqa: D102
    @property
    def started_at(self) -> datetime | None: ...  # noqa: D102


def runtime_section(instance: Progress, *, attempt: int) -> dict[str, Any]:
    """Give the runtime section of a context, as clients and handlers see it (sequences contract §8.1)."""
    return {
        "current_step": instance.current_step,
        "attempt": attempt,
        "started_at": rfc3339(instance.started_at),
        "current_step_started_at": rfc3339(instance.current_step_started_at),
        "resource_key": None,
        "instance_id": str(instance.id),
        "total_steps_executed": instance.total_steps,
        "run_id": str(instance.run_id) if instance.run_id else None,
        "dry_run": instance.dry_run,
        "dry_run_auto_approve": instance.dry_run_auto_approve,
    }


_HIDDEN_WHEN_NULL = ("instance_id", "run_id")


def context_view(data: Any, config: Any, runtime: dict[str, Any], *, audit: Any = None) -> dict[str, Any]:
    """Show a context as clients see it; ids of the runtime section are left out while they are null."""
    shown = {**runtime}
    for name in _HIDDEN_WHEN_NULL:
        if shown.get(name) is None:
            shown.pop(name, None)
    return {"data": data, "config": config, "audit": audit or [], "runtime": shown}


def rfc3339(moment: datetime | None) -> str | None:
    """Write an aware UTC datetime as the wire does, None as None."""
    return None if moment is None else orjson.dumps(moment, option=orjson.OPT_UTC_Z)[1:-1].decode()


def merged(data: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Give data with top-level keys laid over it; data that is no object gives way to one."""
    return {**data, **values} if isinstance(data, dict) else dict(values)
