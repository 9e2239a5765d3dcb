"""What one worker process needs in order to run steps, made after the fork and only there.

A parent imports the handlers and chooses the worker's id; each child opens its own connections (RELIABILITY B24). A
worker without children (solo, threads) is its own child.
"""

import gc
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

import structlog
from celery import Celery

from orchestrator.credential_use import CredentialUse
from orchestrator.doorbell import Doorbell
from orchestrator.egress import Egress
from orchestrator.engine import Engine
from orchestrator.renewal import Renewer
from orchestrator.settings import Settings
from orchestrator.store.claiming import Worker
from orchestrator.store.postgres import PostgresStore
from queues.broker import Broker
from queues.listener import Listener
from workers.celery_tasks import CeleryTasks
from workers.executor import Executor
from workers.handlers.builtin import builtin_registry
from workers.lease import Lease
from workers.overtime import Deadlines, Flag, Overtime
from workers.registry import DEFAULT_REGISTRY, HandlerSources
from workers.step_events import StepEvents

log = structlog.get_logger()

HINTS_TOGETHER = 200
"""Hints that a child answers by itself before it goes back to Celery, which looks at its memory then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who a worker is: decided in the parent, the same in all its children.

    Args:
        pid: Of the parent.
        listens: Whether its children may take hints by themselves, and so be in one task for long.
        deadlines: What the children tell the parent; memory that all of them share.
        lease: Tells them, in the same way, until when what they claim is theirs.
        stop: Tells the children, in the same way, that they take no more steps.
        quiet: Tells them to leave hints to the parent, because the queues it serves are no longer `queues`.
    """

    id: UUID
    name: str
    queues: tuple[str, ...]
    pid: int = field(default_factory=os.getpid)
    listens: bool = True
    deadlines: Deadlines = field(default_factory=Deadlines)
    lease: Lease = field(default_factory=Lease)
    stop: Flag = field(default_factory=Flag)
    quiet: Flag = field(default_factory=Flag)

    @classmethod
    def new(cls, name: str, queues: Sequence[str], *, listens: bool = True) -> "Identity":
        """Make the identity of a worker that starts now."""
        return cls(id=uuid4(), name=name, queues=tuple(queues), listens=listens)


class Runtime:
    """Store, engine and executor of one process."""

    def __init__(self, app: Celery, identity: Identity, settings: Settings) -> None:
        self.pid = os.getpid()
        _make_quick()
        self.store = PostgresStore(
            settings.database_url,
            pool_size=1,
            overflow=2,
            apart=settings.apart,
            pooler=settings.database_pooler,
            vault=settings.vault,
        )
        self.doorbell = Doorbell(Broker(app))
        self.engine = Engine(self.store, self.doorbell, settings)
        self.executor = Executor(
            self.engine,
            Worker(id=identity.id, name=identity.name, slot=self.pid),
            handlers_of(app, settings),
            identity.queues,
            settings,
            StepEvents(app, identity.name, is_enabled=settings.step_events),
            Overtime(identity.deadlines),
            must_stop=lambda: identity.stop.is_up,
            term=identity.lease.term,
            use=CredentialUse(self.store, Renewer(self.store, Egress(allow_internal=settings.allow_internal_urls))),
        )

        self._queue = identity.queues[0]
        self._listener: Listener | None = None
        if may_listen(app, identity):
            self._listener = Listener(
                app,
                identity.queues,
                must_stop=lambda: identity.quiet.is_up or self.executor.has_to_stop() or self.executor.has_to_ask(),
            )

    def listen(self) -> None:
        """Answer the hints that come, for as long as nothing else is to be done by this process."""
        if self._listener is None:
            return
        for _ in range(HINTS_TOGETHER):
            if (hint := self._listener.next()) is not None:
                self.executor.answer_for_sure(*hint)
            elif self.executor.has_to_ask():
                self.executor.answer_for_sure(self._queue, None)
            else:
                return

    def close(self, timeout: float = 20.0) -> None:
        """Finish what is running, then close the connections."""
        self.executor.close(timeout)
        self.doorbell.close()
        if self._listener is not None:
            self._listener.close()
        self.store.close()


def may_listen(app: Celery, identity: Identity) -> bool:
    """Tell whether this process takes hints by itself.

    Not where that would hold up what is fetched already: a parent without children runs it itself, one that fetches
    ahead keeps it for a child.
    """
    is_child = os.getpid() != identity.pid
    return bool(is_child and app.conf.worker_disable_prefetch and identity.listens)


def _make_quick() -> None:
    """Tune the interpreter for a thread that waits for the store and runs on at once.

    It comes back from a wait while another thread (events, doorbell) may be running Python; that one gives way after
    the switch interval, 5 ms by default: as long as several steps. And what was imported lives as long as the process,
    so that the collector need not look at it again and again (a twentieth of the processor time of a batch).
    """
    sys.setswitchinterval(0.0005)
    gc.freeze()


def handlers_of(app: Celery, settings: Settings) -> HandlerSources:
    """Give all handlers this worker knows: built-in ones first, so that their names cannot be taken over."""
    built_in = builtin_registry(egress=Egress(allow_internal=settings.allow_internal_urls))
    return HandlerSources(built_in, DEFAULT_REGISTRY, CeleryTasks(app))
