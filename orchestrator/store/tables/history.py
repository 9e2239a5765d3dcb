"""What has happened: attempts, transitions, logs, effects, usage."""

from sqlalchemy import BigInteger, Column, DateTime, Index, Integer, PrimaryKeyConstraint, Table, Text, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY, JSON

from orchestrator.store.tables.columns import metadata, moment, node_key

attempts = Table(
    "attempts",
    metadata,
    Column("instance_id", Uuid, nullable=False),
    Column("ended_at", DateTime(timezone=True), nullable=False),
    Column("id", Uuid, nullable=False),
    Column("block_id", Text, nullable=False),
    Column("iteration", ARRAY(Integer), nullable=False),
    Column("step_id", Uuid, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("handler", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("token", Uuid),
    Column("worker_id", Uuid),
    moment("claimed_at"),
    Column("error", JSON(none_as_null=True)),
    Column("cache_key", Text),
    Column("worker_name", Text),
    Column("claim_epoch", Integer, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("instance_id", "ended_at", "id"),
    # What became of the attempt that a late report names.
    Index("attempts_step_id_idx", "step_id"),
    postgresql_partition_by="RANGE (ended_at)",
)

task_events = Table(
    "task_events",
    metadata,
    Column("instance_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("step_id", Uuid, nullable=False),
    Column("event", Text, nullable=False),
    Column("claim_epoch", Integer, nullable=False),
    Column("worker_name", Text),
    moment("claimed_at"),
    Column("reason", Text),
    moment("created_at", nullable=False),
    PrimaryKeyConstraint("instance_id", "id"),
    # What happened to one task.
    Index("task_events_step_id_idx", "step_id"),
)

transitions = Table(
    "transitions",
    metadata,
    Column("instance_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("from_state", Text),
    Column("to_state", Text),
    Column("block_id", Text),
    Column("details", JSON, nullable=False),
    moment("created_at", nullable=False),
    # The transaction that has written the row.
    Column("xid", BigInteger, nullable=False, server_default=text("((pg_current_xact_id())::text)::bigint")),
    PrimaryKeyConstraint("instance_id", "id"),
    # The change feed of a tenant.
    Index("transitions_feed_idx", "tenant_id", "xid", "id"),
    # What has happened lately, for metrics; the partitions of attempts have the like (`upkeep`).
    Index(
        "transitions_created_at_idx",
        "created_at",
        postgresql_using="brin",
        postgresql_with={"pages_per_range": "32", "autosummarize": "on"},
    ),
)

step_logs = Table(
    "step_logs",
    metadata,
    Column("instance_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("block_id", Text, nullable=False),
    Column("ts", JSON(none_as_null=False)),
    Column("level", Text, nullable=False),
    Column("message", Text, nullable=False),
    PrimaryKeyConstraint("instance_id", "id"),
)

effects = Table(
    "effects",
    metadata,
    *node_key(),
    Column("id", Uuid, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("destination_fingerprint", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("request_sha256", Text, nullable=False),
    Column("provider_receipt_id", Text),
    Column("attempt", Integer, nullable=False),
    Column("answer", JSON, nullable=False),
    moment("created_at", nullable=False),
    Column("run_id", Uuid, nullable=False),
    PrimaryKeyConstraint("instance_id", "block_id", "iteration", "run_id"),
)

usage_events = Table(
    "usage_events",
    metadata,
    Column("tenant_id", Text, nullable=False),
    moment("created_at", nullable=False),
    Column("id", Uuid, nullable=False),
    Column("instance_id", Uuid, nullable=False),
    Column("sequence_id", Uuid, nullable=False),
    Column("block_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("provider", Text),
    Column("model", Text, nullable=False),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    # What a tenant has used between two moments.
    PrimaryKeyConstraint("tenant_id", "created_at", "id"),
)
