"""Runs the background loops of one service process."""

import signal
import threading
from types import FrameType

import structlog

from orchestrator.courier import Courier
from orchestrator.dispatcher import Dispatcher
from orchestrator.doorbell import Doorbell
from orchestrator.engine import Engine
from orchestrator.loops import Loop, LoopRunner
from orchestrator.outbox import Outbox
from orchestrator.postman import Postman
from orchestrator.reconciler import Reconciler
from orchestrator.settings import Settings
from orchestrator.store.postgres import PostgresStore
from orchestrator.timers import Timers
from queues.broker import Broker, client_app
from queues.connection import EpochMark, connect

log = structlog.get_logger()


class Service:
    """The loops over one database and one broker. Any number of processes may run them."""

    def __init__(self, settings: Settings) -> None:
        self._store = PostgresStore(
            settings.database_url, pool_size=4, overflow=4, apart=settings.apart, pooler=settings.database_pooler
        )
        self._doorbell = Doorbell(Broker(client_app(settings.celery_broker_url)).publish)
        engine = Engine(self._store, self._doorbell, settings)
        outbox = Outbox(self._store, engine.new_id, settings)
        mark = EpochMark(connect(_home_of_hints(settings)))
        loops: tuple[Loop, ...] = (
            Dispatcher(self._store, self._doorbell, mark, settings),
            Timers(engine),
            Postman(engine),
            Reconciler(engine, settings),
            *(Courier(outbox, url, number) for number, url in enumerate(settings.webhook_urls, 1)),
        )
        self._runners = [LoopRunner(loop) for loop in loops]

    def start(self) -> None:
        """Start all loops.

        Raises:
            ConfigurationError: PostgreSQL is reached through a pooler that is not set.
        """
        self._store.try_out()
        for runner in self._runners:
            runner.start()
        log.info("service_started", loops=[runner.loop.name for runner in self._runners])

    def stop(self) -> None:
        """End all loops after their ticks."""
        for runner in self._runners:
            runner.stop()
        self._doorbell.close()
        self._store.close()
        log.info("service_stopped")


def _home_of_hints(settings: Settings) -> str:
    """Say where the epoch mark lives: with the hints, so that it is lost with them, unless the broker is no Redis."""
    broker = settings.celery_broker_url
    return broker if broker.startswith(("redis://", "rediss://", "unix://")) else settings.redis_url


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
