"""A worker process that is drained ends what it runs, takes nothing more, and stops."""

from pathlib import Path

from orchestrator import embedded
from orchestrator.store import instances
from orchestrator.store import workers as worker_rows
from tests.support.stack import Stack, WorkerSpec
from tests.support.waiting import wait_until


def test_a_drained_worker_ends_its_step_and_stops(
    servers: embedded.Servers, migrated_template: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    held = {"type": "step", "id": "held", "handler": "until_released", "params": {"path": str(gate)}}
    after = {"type": "step", "id": "after", "handler": "effect"}
    workers = {"worker": WorkerSpec()}
    with Stack.running(tmp_path / "stack", servers=servers, template=migrated_template, workers=workers) as stack:
        [instance_id] = stack.start_instances(stack.define([held, after]))
        wait_until(lambda: stack.query("SELECT 1 FROM steps WHERE state = 'claimed'"), stack.log_tail)
        with stack.store.transaction() as tx:
            [node] = worker_rows.nodes(tx, stack.settings.dead_after)
            assert worker_rows.drain(tx, node.id, stack.settings.dead_after)
        wait_until(lambda: "worker_drained" in stack.log_tail(1000), stack.log_tail)
        gate.touch()
        wait_until(lambda: not stack.query("SELECT 1 FROM workers"), stack.log_tail)
        wait_until(lambda: stack.processes.pid("worker") is None, stack.log_tail)
        with stack.store.transaction() as tx:
            ended = [(row[0], row[5]) for row in instances.attempts(tx, instance_id)]
        assert ended[0] == ("held", "completed")
        assert {outcome for _, outcome in ended} == {"completed"}
        assert not stack.query("SELECT 1 FROM steps WHERE state = 'claimed'")
