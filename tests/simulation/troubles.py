"""What the product logs as an error: none of it may happen where only processes, store and broker fail."""

from collections.abc import MutableMapping
from types import TracebackType
from typing import Any

import structlog

EXPECTED = frozenset({"step_unclaimed"})


class Troubles:
    """Listens to the log for a block; warnings pass unheard."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._former: dict[str, Any] = {}

    def __enter__(self) -> "Troubles":
        self._former = structlog.get_config()
        structlog.configure(
            processors=[structlog.processors.format_exc_info, self._hear],
            wrapper_class=structlog.make_filtering_bound_logger(40),
            cache_logger_on_first_use=False,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        structlog.configure(**self._former)

    def _hear(self, _logger: Any, _method: str, event: MutableMapping[str, Any]) -> Any:
        name = str(event.get("event"))
        if name not in EXPECTED:
            error = str(event.get("exception", "")).strip().splitlines()
            self.found.append(f"the product logs {name}: {error[-1] if error else dict(event)}")
        raise structlog.DropEvent
