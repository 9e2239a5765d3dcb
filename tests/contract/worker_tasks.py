"""Tasks of polling workers, as several files of tests need them."""

from datetime import timedelta

from orchestrator.store import leases
from tests.contract.client import Api

TASK = [
    "id",
    "instance_id",
    "block_id",
    "handler_name",
    "queue_name",
    "params",
    "context",
    "attempt",
    "timeout_ms",
    "state",
    "worker_id",
    "claimed_at",
    "heartbeat_at",
    "claim_epoch",
    "resume_checkpoint",
    "checkpoint_seq",
    "completed_at",
    "output",
    "error_message",
    "error_retryable",
    "created_at",
]


def release_all(api: Api) -> None:
    """End all leases, as the reaper does after a minute of silence."""
    with api.engine.store.transaction() as tx:
        tx.execute("UPDATE steps SET heartbeat_at = heartbeat_at - interval '10 minutes'")
        leases.release_stale_tasks(tx, timedelta(seconds=60), 100)
