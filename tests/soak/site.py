"""The installation under a steady load: two workers, two services, an API, Flower."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.nightly.load import Load
from tests.support.stack import Stack, WorkerSpec

BLOCKS = (
    {"type": "step", "id": "begin", "handler": "bench.plain"},
    {
        "type": "parallel",
        "id": "fork",
        "branches": [
            [{"type": "step", "id": "left", "handler": "noop"}],
            [{"type": "step", "id": "right", "handler": "bench.plain"}],
        ],
    },
    {
        "type": "for_each",
        "id": "each",
        "collection": "items",
        "body": [{"type": "step", "id": "item", "handler": "bench.plain"}],
    },
    {"type": "step", "id": "asleep", "handler": "sleep", "params": {"duration_ms": 200}},
    {"type": "step", "id": "end", "handler": "bench.plain"},
)
RETENTION = "5m"
"""So long are finished flows kept: their rows must not be what grows."""


@contextmanager
def running(directory: Path, per_second: float) -> Iterator[tuple[Stack, Load]]:
    """Start everything, and the load."""
    with Stack.running(
        directory,
        workers={name: WorkerSpec(concurrency=2) for name in ("worker-1", "worker-2")},
        services=("service-1", "service-2"),
        with_api=True,
        with_flower=True,
        imports="tests.benchmarks.handlers",
        env={"ORCHESTRATOR_INSTANCE_RETENTION": RETENTION},
    ) as stack:
        load = Load([stack.api_url], stack.define(BLOCKS), per_second=per_second, count_open=lambda: count_open(stack))
        load.start()
        try:
            yield stack, load
        finally:
            load.stop()


def count_open(stack: Stack) -> int:
    """Count the instances that have not ended."""
    [[count]] = stack.query("SELECT count(DISTINCT instance_id) FROM steps")
    return int(count)
