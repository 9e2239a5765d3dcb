"""W5 and W6: what goes through the HTTP interface, over kept connections, as clients of any language use it.

The client runs in the process of the benchmark, so its time on the cores counts against ours.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

from tests.benchmarks.ours import COARSE_SECONDS, WORK_SECONDS, Orchestrator, flat
from tests.benchmarks.wire import TENANT, Connection, spread
from tests.benchmarks.works import percentile

CONNECTIONS = 16
APIS = 2
"""Processes that serve the API, half of the connections each. One process is bound to one core by its interpreter."""

BATCH = 100
"""Instances of one request of W5 in batches."""

IDLE_SECONDS = 0.01
"""Pause before each signal and each completion of W6."""

EXTERNAL = "bench.external"
"""A handler no worker of ours has: its steps are tasks for HTTP workers."""


@contextlib.contextmanager
def connections(bench: Orchestrator, count: int) -> Iterator[list[Connection]]:
    """Keep connections for a block, the API processes in turn."""
    opened = [Connection(bench.ports[number % len(bench.ports)]) for number in range(count)]
    try:
        yield opened
    finally:
        for connection in opened:
            connection.close()


def creations(bench: Orchestrator, count: int, *, batch: int | None = None) -> float:
    """Do W5: instances of one step, created by single requests or in batches.

    Returns:
        Instances per second, from the first request to the last completion.
    """
    sequence_id = bench.define(f"w5-{time.monotonic_ns()}", flat(1, bench.handler))
    body = {"sequence_id": str(sequence_id), "tenant_id": TENANT, "namespace": TENANT, "context": {"data": {}}}
    with connections(bench, CONNECTIONS) as opened:
        began = time.perf_counter()
        if batch is None:
            spread(opened, range(count), lambda connection, _: connection.post("/instances", body))
        else:
            sizes = [min(batch, count - done) for done in range(0, count, batch)]
            spread(
                opened,
                sizes,
                lambda connection, size: connection.post("/instances/batch", {"instances": [body] * size}),
            )
        took = _completed(bench, sequence_id, count, began)
    return count / took


def _completed(bench: Orchestrator, sequence_id: UUID, count: int, began: float) -> float:
    """Wait until so many instances of a sequence are completed; returns the seconds since `began`."""
    while True:
        with bench.store.transaction() as tx:
            rows = dict(
                tx.query(
                    "SELECT state, count(*) FROM instances WHERE sequence_id = %s GROUP BY state", (str(sequence_id),)
                )
            )
        took = time.perf_counter() - began
        if rows.get("completed") == count:
            return took
        if took > WORK_SECONDS or rows.keys() & {"failed", "cancelled", "paused"}:
            raise RuntimeError(f"after {took:.1f} s the instances of W5 are {rows}, {count} expected")
        time.sleep(COARSE_SECONDS)


def signals(bench: Orchestrator, count: int) -> tuple[float, float]:
    """Do W6 with signals: the milliseconds from sending one to the start of the step it releases, p50 and p99."""
    gate = {"type": "step", "id": "gate", "handler": bench.handler, "wait_for_input": {"prompt": "go on?"}}
    ids = bench.start(bench.define(f"w6-signal-{time.monotonic_ns()}", [gate, *flat(1, bench.handler)]), count)
    _standing(bench, ids, "gate")
    body = {"signal_type": {"custom": "human_input:gate"}, "payload": {"value": "yes"}}
    return _answered(bench, ids, lambda connection, id_: connection.post(f"/instances/{id_}/signals", body), "gate")


def completions(bench: Orchestrator, count: int) -> tuple[float, float]:
    """Do W6 with an HTTP worker: the milliseconds from completing a task to the start of the next step, p50 and p99."""
    name = f"{EXTERNAL}.{time.monotonic_ns()}"
    external = {"type": "step", "id": "task", "handler": name}
    ids = bench.start(bench.define(f"w6-{name}", [external, *flat(1, bench.handler)]), count)
    _standing(bench, ids, "ready")
    with connections(bench, 1) as [connection]:
        poll = {"handler_name": name, "worker_id": TENANT, "limit": count}
        tasks = {UUID(task["instance_id"]): task for task in connection.post("/workers/tasks/poll", poll)}

    def complete(connection: Connection, id_: UUID) -> None:
        task = tasks[id_]
        answer = {"worker_id": TENANT, "claim_epoch": task["claim_epoch"], "output": {}}
        connection.post(f"/workers/tasks/{task['id']}/complete", answer)

    return _answered(bench, ids, complete, "s0")


def _standing(bench: Orchestrator, ids: list[UUID], state: str) -> None:
    """Wait until the first step of all instances is in a state."""
    until = time.monotonic() + WORK_SECONDS
    while True:
        with bench.store.transaction() as tx:
            [(found,)] = tx.query(
                "SELECT count(*) FROM steps WHERE state = %s AND instance_id = ANY(%s::uuid[])", (state, ids)
            )
        if found == len(ids):
            return
        if time.monotonic() > until:
            raise RuntimeError(f"{found} of {len(ids)} instances have a step that is {state!r}")
        time.sleep(COARSE_SECONDS)


def _answered(
    bench: Orchestrator, ids: list[UUID], answer: Callable[[Connection, UUID], Any], block: str
) -> tuple[float, float]:
    """Answer one instance after the other, each on an idle system; the milliseconds from sending to a block's claim."""
    sent: dict[UUID, float] = {}
    with connections(bench, 1) as [connection]:
        for id_ in ids:
            sent[id_] = time.time()
            answer(connection, id_)
            bench.wait([id_], time.perf_counter(), COARSE_SECONDS / 4)
            time.sleep(IDLE_SECONDS)
    with bench.store.transaction() as tx:
        rows = tx.query(
            "SELECT instance_id, claimed_at FROM attempts WHERE block_id = %s AND instance_id = ANY(%s::uuid[])",
            (block, ids),
        )
    if len(rows) != len(ids):
        raise RuntimeError(f"{len(rows)} steps {block!r} have run, {len(ids)} expected")
    took = [(claimed_at.timestamp() - sent[UUID(str(id_))]) * 1000 for id_, claimed_at in rows]
    return percentile(took, 50), percentile(took, 99)
