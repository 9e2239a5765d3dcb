"""The executor of one child of a worker, in the process of the test: no Celery, no doorbell but the test's own."""

from collections.abc import Callable
from uuid import uuid4

from orchestrator.credential_use import CredentialUse
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from orchestrator.store.claiming import Worker
from workers.executor import Executor
from workers.overtime import Overtime
from workers.registry import HandlerSource
from workers.step_events import StepEvents


def hands_of(
    engine: Engine,
    settings: Settings,
    handlers: HandlerSource,
    use: CredentialUse | None = None,
    term: Callable[[], float | None] = lambda: 0.0,
    must_stop: Callable[[], bool] = lambda: False,
) -> Executor:
    """Make an executor that serves the default queue."""
    return Executor(
        engine,
        Worker(id=uuid4(), name="w", slot=1),
        handlers,
        ("default",),
        settings,
        StepEvents(None, "w", is_enabled=False),  # type: ignore[arg-type]
        Overtime(None),
        use=use,
        term=term,
        must_stop=must_stop,
    )
