"""Runs the background loops of one service process."""

import signal
import threading
import time
from types import FrameType

import structlog

from orchestrator.courier import Courier
from orchestrator.cron import Cron
from orchestrator.dispatcher import Dispatcher
from orchestrator.doorbell import Doorbell
from orchestrator.egress import Egress
from orchestrator.engine import Engine
from orchestrator.loops import Durations, Loop, LoopRunner
from orchestrator.meter import Meter
from orchestrator.outbox import Outbox
from orchestrator.postman import Postman
from orchestrator.pusher import Pusher
from orchestrator.pushing import Pushes
from orchestrator.reconciler import Reconciler
from orchestrator.renewal import Renewer
from orchestrator.retention import Retention
from orchestrator.settings import Settings
from orchestrator.store.postgres import PostgresStore
from orchestrator.timers import Timers
from queues.broker import Broker, client_app
from queues.connection import mark_of

log = structlog.get_logger()

SCHEDULING = (Dispatcher.name, Timers.name)
"""Loops whose rounds are shown as those of the scheduling."""
STUCK_AFTER_SECONDS = 120.0
"""A loop sleeps for a minute and a half at the most; one that has not ended a round for longer hangs."""


class Service:
    """The loops over one database and one broker. Any number of processes may run them.

    Raises:
        ConfigurationError: PostgreSQL is reached through a pooler that is not set.
        StoreUnavailable: PostgreSQL does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self._store = PostgresStore(
            settings.database_url,
            pool_size=4,
            overflow=4,
            apart=settings.apart,
            pooler=settings.database_pooler,
            vault=settings.vault,
        )
        self._store.try_out()
        name = self._store.installation(settings.installation)
        self._doorbell = Doorbell(Broker(client_app(settings.celery_broker_url, name)))
        engine = Engine(self._store, self._doorbell, settings)
        outbox = Outbox(self._store, engine.new_id, settings)
        mark = mark_of(settings.celery_broker_url, name)
        durations = Durations()
        loops: tuple[Loop, ...] = (
            Meter(self._store, durations),
            Dispatcher(self._store, self._doorbell, mark, settings),
            Timers(engine),
            Postman(engine),
            Pusher(Pushes(self._store, engine)),
            Cron(engine, settings),
            *(Courier(outbox, url, number) for number, url in enumerate(settings.webhook_urls, 1)),
            Reconciler(engine, settings, are_well=self._are_well),
            *([Retention(self._store, settings.instance_retention)] if settings.instance_retention else []),
            Renewer(self._store, Egress(allow_internal=settings.allow_internal_urls)),
        )
        self._runners = [LoopRunner(loop, durations if loop.name in SCHEDULING else None) for loop in loops]

    def start(self) -> None:
        """Start all loops."""
        for runner in self._runners:
            runner.start()
        log.info("service_started", loops=[runner.loop.name for runner in self._runners])

    def _are_well(self) -> bool:
        """Tell whether every loop has ended a round lately; the longest statement and wait are far shorter."""
        return all(time.monotonic() - runner.ticked_at < STUCK_AFTER_SECONDS for runner in self._runners)

    def stop(self) -> None:
        """End all loops after their ticks."""
        for runner in self._runners:
            runner.stop()
        self._doorbell.close()
        self._store.close()
        log.info("service_stopped")


def run(settings: Settings) -> int:
    """Run the loops until SIGTERM or SIGINT; returns the exit code."""
    stopping = threading.Event()

    def stop(_signal: int, _frame: FrameType | None) -> None:
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    service = Service(settings)
    service.start()
    stopping.wait()
    service.stop()
    return 0
