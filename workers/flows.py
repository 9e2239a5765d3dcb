"""Other instances, as the handlers of one step reach them through the engine."""

from collections.abc import Callable
from typing import Any, TypeVar
from uuid import UUID

from orchestrator.emitting import Emission, Emitted
from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.exchange import OtherFlow, Work
from workers.patience import Patience

T = TypeVar("T")

PATIENCE_SECONDS = 60.0


class FlowsOfStep:
    """The instances of the tenant whose step is being run: `workers.context.Flows`."""

    def __init__(self, work: Work, engine: Engine) -> None:
        self._work = work
        self._engine = engine

    def look_at(self, instance_id: UUID) -> OtherFlow | None:
        """Read an instance; None if the tenant has none of that id."""
        tenant_id = self._work.instance.tenant_id
        return self._patiently(lambda: self._engine.look_at(instance_id, tenant_id=tenant_id))

    def emit(
        self, slug: str, data: Any, meta: dict[str, Any], *, dedupe_key: str | None, is_tenant_wide: bool
    ) -> Emitted:
        """Start the flow of a trigger; the same answer whenever the same step asks again. Raises `RequestError`."""
        emission = Emission(
            sender=self._work.instance,
            key=self._work.claim.key,
            attempt=self._work.claim.attempt,
            slug=slug,
            data=data,
            meta=meta,
            dedupe_key=dedupe_key,
            is_tenant_wide=is_tenant_wide,
        )
        return self._patiently(lambda: self._engine.emit(emission))

    def new_id(self) -> UUID:
        """Make an id that sorts by time."""
        return self._engine.new_id()

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask until the store answers. Both questions may be asked twice: one reads, the other has one answer."""
        patience = Patience(PATIENCE_SECONDS, self._engine.machine, self._engine.randomness)
        while True:
            try:
                return ask()
            except StoreUnavailable as error:
                patience.wait(error)
