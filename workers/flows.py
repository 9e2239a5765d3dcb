"""Other instances, as the handlers of one step reach them through the engine."""

from typing import Any
from uuid import UUID

from orchestrator.emitting import Emission, Emitted
from orchestrator.engine import Engine
from orchestrator.exchange import OtherFlow, Work


class FlowsOfStep:
    """The instances of the tenant whose step is being run: `workers.context.Flows`."""

    def __init__(self, work: Work, engine: Engine) -> None:
        self._work = work
        self._engine = engine

    def look_at(self, instance_id: UUID) -> OtherFlow | None:
        """Read an instance; None if the tenant has none of that id."""
        return self._engine.look_at(instance_id, tenant_id=self._work.instance.tenant_id)

    def emit(
        self, slug: str, data: Any, meta: dict[str, Any], *, dedupe_key: str | None, is_tenant_wide: bool
    ) -> Emitted:
        """Start the flow of a trigger; the same answer whenever the same step asks again. Raises `RequestError`."""
        return self._engine.emit(
            Emission(
                sender=self._work.instance,
                key=self._work.claim.key,
                attempt=self._work.claim.attempt,
                slug=slug,
                data=data,
                meta=meta,
                dedupe_key=dedupe_key,
                is_tenant_wide=is_tenant_wide,
            )
        )

    def new_id(self) -> UUID:
        """Make an id that sorts by time."""
        return self._engine.new_id()
