"""The fair path: decides which ready steps are hinted, and how many hints are out.

The backlog stays in the store. Only a few hints for each worker slot are out at a time, so that priorities and tenants
are weighed late, on what is really waiting. When the broker was emptied, its mark is gone: all hints are sent anew.
"""

from collections import Counter
from collections.abc import Iterable
from uuid import uuid4

import structlog
from redis.exceptions import RedisError

from orchestrator.clock import MACHINE_TIME, MachineTime
from orchestrator.loops import JITTERED, TickResult
from orchestrator.passage import Ring
from orchestrator.settings import Settings
from orchestrator.store.hints import Head
from orchestrator.store.interface import Store
from queues.broker import Hint
from queues.connection import Mark
from queues.routing import fair_order

log = structlog.get_logger()

HEADS_PER_QUEUE = 500
EPOCH_FACT = "broker_epoch"
"""The mark of the broker that hints were last sent to; kept in the store, so that a service that was down learns of a
broker that was emptied meanwhile."""
IDLE_SECONDS = 0.2
BUSY_SECONDS = 0.05
LOOK_SECONDS = 1.0
"""How often it is looked whether the broker was emptied while no step is ready."""


class Dispatcher:
    """Sends hints for steps that wait without one. Several may run: they skip one another's rows."""

    name = "dispatcher"

    def __init__(
        self, store: Store, ring: Ring, mark: Mark, settings: Settings, machine: MachineTime = MACHINE_TIME
    ) -> None:
        self._store = store
        self._ring = ring
        self._mark = mark
        self._settings = settings
        self._machine = machine
        self._epoch: str | None = None
        self._looked_at = float("-inf")
        self._idle = IDLE_SECONDS if settings.tick_interval_ms is None else settings.tick_seconds / JITTERED

    def tick(self) -> TickResult:
        """Hint the heads of each queue, in fair order, as far as its workers have room."""
        with self._store.transaction(is_single=True) as tx:
            is_ready = tx.has_ready_steps()
        # Without a ready step no hint is out that could be lost.
        if is_ready or self._machine.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._notice_emptied_broker()
            self._looked_at = self._machine.monotonic()
        return self._hint_heads() if is_ready else TickResult(done=0, wait=self._idle)

    def _hint_heads(self) -> TickResult:
        with self._store.transaction() as tx:
            alive = tx.workers_alive(self._settings.dead_after)
            handlers = {name for worker in alive for name in worker["handlers"]}
            room = Counter[str]()
            for worker in alive:
                for queue in worker["queues"]:
                    room[queue] += worker["slots"] * self._settings.hints_per_slot
            room.subtract(tx.outstanding_hints(self._settings.hint_lease))
            heads = tx.heads(sorted(handlers), self._settings.hint_lease, HEADS_PER_QUEUE)
            chosen = choose(heads, room, self._settings.loop_batch, self._settings.max_instances_per_tenant)
            if chosen:
                tx.mark_hinted([head.step_id for head in chosen])
        self._ring([_hint(head) for head in chosen])
        self._report_unclaimed(chosen)
        return TickResult(done=len(chosen), wait=BUSY_SECONDS if chosen else self._idle)

    def _report_unclaimed(self, chosen: Iterable[Head]) -> None:
        """Tell of steps that no worker claims although they were hinted again and again."""
        for head in chosen:
            if head.hints and head.hints % self._settings.max_hints == 0:
                log.error("step_unclaimed", step_id=str(head.step_id), queue=head.queue, hints=head.hints)

    def _notice_emptied_broker(self) -> None:
        try:
            current = self._mark.read()
            if current is not None and current == self._epoch:
                return
            renewed = current or self._mark.renew()
        except RedisError as error:
            log.warning("broker_mark_unreadable", error=str(error))
            return
        with self._store.transaction() as tx:
            known = tx.read_fact(EPOCH_FACT)
            if known != renewed:
                forgotten = tx.forget_hints()
                tx.write_fact(EPOCH_FACT, renewed)
        if known is not None and known != renewed:
            log.warning("broker_was_emptied", hints_sent_again=forgotten)
        self._epoch = renewed


def choose(heads: Iterable[Head], room: Counter[str], most: int, most_of_tenant: int) -> list[Head]:
    """Take heads in fair order while their queue has room.

    Args:
        most: Heads of all queues together.
        most_of_tenant: Heads of any one tenant; 0 for no limit.
    """
    left = Counter(room)
    taken = Counter[str]()
    chosen: list[Head] = []
    for head in fair_order(heads):
        if len(chosen) == most:
            break
        if left[head.queue] > 0 and not 0 < most_of_tenant <= taken[head.tenant_id]:
            left[head.queue] -= 1
            taken[head.tenant_id] += 1
            chosen.append(head)
    return chosen


def _hint(head: Head) -> Hint:
    return Hint(step_id=head.step_id, attempt=head.attempt, queue=head.queue, hint_id=uuid4())
