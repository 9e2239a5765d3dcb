"""The watch in the parent of a worker: it says that the worker lives, and notices children that do not.

The heartbeat is one row for the process. A child that dies takes its claims with it: they are given to others at once.
A child that is stuck past its time-out, where no signal reaches it, is killed (`overtime.py` says which one that is).
"""

import os
import signal
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import billiard
import psycopg2
import structlog

from orchestrator.clock import MACHINE_TIME, MachineTime
from orchestrator.core.model import Claim
from orchestrator.core.outcomes import Failed, FailureKind
from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.exchange import Report
from orchestrator.settings import Settings
from workers.runtime import Identity

log = structlog.get_logger()

WATCH_SECONDS = 0.5
STUCK_GRACE_SECONDS = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Children:
    """How a parent sees its children's processes, by number, and ends them."""

    is_alive: Callable[[int], bool]
    kill: Callable[[int], None]


class Supervisor:
    """Watches over one worker process. Its thread runs in the parent and opens its own connection.

    Args:
        engine: An engine of the parent's own.
        slots: How many steps the worker runs at once, not counting coroutines.
        machine: Tells when the next heartbeat is due.
        children: How it sees and ends the processes of its children; None for those of this machine.
        served: Names the queues of which the worker takes messages now; None for those of its identity.
        leave: Ends the worker in order, as Celery does when it is told to terminate; called once, when it is drained.
    """

    def __init__(
        self,
        engine: Engine,
        identity: Identity,
        handlers: Sequence[str],
        slots: int,
        settings: Settings,
        *,
        machine: MachineTime = MACHINE_TIME,
        children: "Children | None" = None,
        served: Callable[[], Collection[str]] | None = None,
        leave: Callable[[], None] | None = None,
    ) -> None:
        self._engine = engine
        self._identity = identity
        self._handlers = tuple(handlers)
        self._slots = slots
        self._heartbeat = settings.heartbeat.total_seconds()
        self._dead_after = settings.dead_after
        self._monotonic = machine.monotonic
        self._children = children or Children(is_alive=is_alive, kill=partial(_signal, signal.SIGKILL))
        self._served = served or (lambda: identity.queues)
        self._leave = leave or partial(_signal, signal.SIGTERM, os.getpid())
        self._is_leaving = False
        self._beat_at = machine.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="supervisor", daemon=True)

    def start(self) -> None:
        """Register the worker and begin to watch."""
        self.register()
        self._thread.start()

    def stop(self) -> None:
        """Take the worker off the list; claims it still holds are given to others."""
        self._stopping.set()
        self._thread.join(timeout=5)
        try:
            with self._engine.store.transaction() as tx:
                held = tx.claims_of(self._identity.id)
                tx.remove_worker(self._identity.id)
            self._engine.lose(held, "the worker has stopped")
        except StoreUnavailable as error:
            log.warning("worker_not_removed", worker=self._identity.name, error=str(error))

    def end_after(self, grace: timedelta) -> None:
        """End this worker at once when that time is over: its steps are stopped and given back, which is no loss."""
        timer = threading.Timer(grace.total_seconds(), self._end_now)
        timer.daemon = True
        timer.start()

    def _end_now(self) -> None:
        log.warning("steps_stopped", worker=self._identity.name, reason="the worker has to end")
        self._stopping.set()
        self._thread.join(timeout=1)  # it would take the children that are killed here for lost
        for pid in [child.pid for child in billiard.active_children()]:
            if pid is not None:
                self._children.kill(pid)
        try:
            with self._engine.store.transaction() as tx:
                held = tx.claims_of(self._identity.id)
                tx.remove_worker(self._identity.id)
            self._engine.give_back(held)
        except (StoreUnavailable, psycopg2.Error) as error:
            log.warning("worker_not_removed", worker=self._identity.name, error=str(error))
        os._exit(0)

    def register(self) -> None:
        """Put the worker on the list, or renew its row."""
        self._beat_at = asked_at = self._monotonic()
        with self._engine.store.transaction() as tx:
            tx.register_worker(
                self._identity.id,
                name=self._identity.name,
                kind="celery",
                queues=self._identity.queues,
                handlers=self._handlers,
                slots=self._slots,
            )
        self._identity.lease.renew(asked_at, self._dead_after, is_new=True)

    def _watch(self) -> None:
        while not self._stopping.wait(WATCH_SECONDS):
            self.tick()

    def tick(self) -> None:
        """Say that the worker lives, when that is due, and look after its children. Never raises."""
        try:
            if self._monotonic() - self._beat_at >= self._heartbeat:
                self._beat()
                self._beat_at = self._monotonic()
            self._look_at_queues()
            self._look_after_children()
        except (StoreUnavailable, psycopg2.Error) as error:
            log.warning("supervisor_cannot_reach_store", worker=self._identity.name, error=str(error))
        except Exception:
            log.exception("supervisor_failed", worker=self._identity.name)

    def _beat(self) -> None:
        asked_at = self._monotonic()
        with self._engine.store.transaction(is_losable=True, is_single=True) as tx:
            beat = tx.beat_worker(self._identity.id)
        if beat is None:
            log.warning("worker_was_declared_dead", worker=self._identity.name)
            self.register()
        else:
            self._identity.lease.renew(asked_at, self._dead_after)
        if beat is not None and beat.is_draining and not self._is_leaving:
            self._is_leaving = True
            log.info("worker_drained", worker=self._identity.name)
            self._leave()

    def _look_at_queues(self) -> None:
        """Have children leave all hints to the parent after somebody has given it other queues (remote control)."""
        if set(self._served()) == set(self._identity.queues):
            self._identity.quiet.take_down()
        else:
            self._identity.quiet.put_up()

    def _look_after_children(self) -> None:
        with self._engine.store.transaction(is_single=True) as tx:
            held = tx.claims_of_slots(self._identity.id)
            now = tx.now() if any(claim.expires_at is not None for _, claim in held) else None
        dead: dict[int, list[Claim]] = {}
        stuck = {
            pid: "" for pid in self._identity.deadlines.overdue(STUCK_GRACE_SECONDS) if self._children.is_alive(pid)
        }
        for pid, claim in held:
            if not self._children.is_alive(pid):
                dead.setdefault(pid, []).append(claim)
            elif (
                now is not None
                and claim.expires_at is not None
                and (now - claim.expires_at).total_seconds() > STUCK_GRACE_SECONDS
            ):
                stuck[pid] = claim.key.block_id
                self._fail_stuck(claim)
        for pid, step in stuck.items():
            self._kill_stuck(pid, step)
        for pid, claims in dead.items():
            log.warning("child_lost", worker=self._identity.name, pid=pid, claims=len(claims))
            self._engine.lose(claims, f"worker process {pid} has died")

    def _fail_stuck(self, claim: Claim) -> None:
        """Fail an attempt that outlived its time-out, if the store's timer has not done so already."""
        failure = Failed(
            message="step timed out; its worker process was stuck and had to be killed",
            retryable=True,
            kind=FailureKind.TIMEOUT,
        )
        self._engine.finish([Report(claim=claim, outcome=failure)])

    def _kill_stuck(self, pid: int, step: str) -> None:
        """Kill a child that does not come back from a handler; what else it holds is given to others."""
        if pid != os.getpid():
            log.warning("child_stuck", worker=self._identity.name, pid=pid, step=step)
            self._children.kill(pid)


def _signal(number: signal.Signals, pid: int) -> None:
    os.kill(pid, number)


def is_alive(pid: int) -> bool:
    """Tell whether a process of this machine lives (a zombie does not)."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:  # noqa: PTH123 - a pseudo file
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, IndexError):
        return os.path.exists("/proc/self") is False  # noqa: PTH110 - no /proc on this system: trust the signal
