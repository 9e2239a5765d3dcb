"""How far an instance has come, and what waits for it: its nodes, steps, timers, outputs and messages."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    Interval,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON

from orchestrator.store.tables.columns import metadata, moment, node_key

nodes = Table(
    "nodes",
    metadata,
    *node_key(),
    Column("state", Text, nullable=False),
    moment("started_at"),
    moment("completed_at"),
    Column("memory", JSON(none_as_null=True)),
    PrimaryKeyConstraint("instance_id", "block_id", "iteration"),
    # What a cancel, a pause or a retry must look at, however many nodes have ended well.
    Index(
        "nodes_unfinished_idx",
        "instance_id",
        postgresql_where=text("state IN ('running', 'waiting', 'failed', 'cancelled')"),
    ),
)

steps = Table(
    "steps",
    metadata,
    *node_key(),
    Column("id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("activity", Text, nullable=False),
    Column("handler", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("is_queue_named", Boolean, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("losses", Integer, nullable=False),
    moment("entered_at", nullable=False),
    moment("started_at"),
    moment("ready_at"),
    moment("wake_at"),
    moment("deadline_at"),
    Column("timeout", Interval),
    moment("expires_at"),
    Column("token", Uuid),
    Column("worker_id", Uuid),
    Column("worker_name", Text),
    Column("slot", Integer),
    moment("claimed_at"),
    moment("heartbeat_at"),
    Column("claim_epoch", Integer, nullable=False),
    Column("output", JSON(none_as_null=True)),
    Column("memory", JSON(none_as_null=True)),
    Column("cache_key", Text),
    Column("checkpoint", JSON(none_as_null=True)),
    Column("checkpoint_seq", Integer, nullable=False, server_default=text("0")),
    moment("hinted_at"),
    Column("hints", Integer, nullable=False, server_default=text("0")),
    Column("former", JSON(none_as_null=True)),
    PrimaryKeyConstraint("instance_id", "block_id", "iteration"),
    UniqueConstraint("id"),
    # The next ready step of a queue, in claiming order; also the backlog the dispatcher hints.
    Index("steps_ready_idx", "queue", text("priority DESC"), "ready_at", postgresql_where=text("state = 'ready'")),
    # The claims of a worker that died.
    Index("steps_claimed_idx", "worker_id", postgresql_where=text("state = 'claimed'")),
    # Open human gates, for the approvals list.
    Index("steps_gate_idx", "tenant_id", "ready_at", postgresql_where=text("state = 'gate'")),
    postgresql_with={"fillfactor": "70", "autovacuum_vacuum_scale_factor": "0", "autovacuum_vacuum_threshold": "1000"},
)

timers = Table(
    "timers",
    metadata,
    *node_key(),
    moment("due_at", nullable=False),
    PrimaryKeyConstraint("instance_id", "block_id", "iteration"),
    # The timers that are due.
    Index("timers_due_at_idx", "due_at"),
)

items = Table(
    "items",
    metadata,
    *node_key(),
    Column("index", Integer, nullable=False),
    Column("item", JSON(none_as_null=False)),
    PrimaryKeyConstraint("instance_id", "block_id", "iteration", "index"),
)

outputs = Table(
    "outputs",
    metadata,
    Column("instance_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("block_id", Text, nullable=False),
    Column("iteration", ARRAY(Integer), nullable=False),
    Column("lane", ARRAY(Integer), nullable=False),
    Column("output", JSON(none_as_null=False)),
    Column("output_ref", Text),
    Column("output_size", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    moment("created_at", nullable=False),
    # Of the instance, after the commit that has written the row: ids are made before, by several processes.
    Column("version", BigInteger, nullable=False, server_default=text("0")),
    PrimaryKeyConstraint("instance_id", "id"),
    # The newest output of a block, in one lane.
    Index("outputs_newest_idx", "instance_id", "block_id", "lane", "id"),
)

payloads = Table(
    "payloads",
    metadata,
    Column("instance_id", Uuid, nullable=False),
    Column("key", Text, nullable=False),
    Column("value", JSON(none_as_null=False)),
    PrimaryKeyConstraint("instance_id", "key"),
)

state_values = Table(
    "state_values",
    metadata,
    Column("instance_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("value", JSON(none_as_null=False)),
    PrimaryKeyConstraint("instance_id", "name"),
)

signals = Table(
    "signals",
    metadata,
    Column("instance_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("name", Text),
    Column("payload", JSON(none_as_null=False)),
    moment("created_at", nullable=False),
    moment("consumed_at"),
    PrimaryKeyConstraint("instance_id", "id"),
    # Answers that wait for their gate.
    Index("signals_kept_idx", "instance_id", postgresql_where=text("consumed_at IS NULL")),
)

letters = Table(
    "letters",
    metadata,
    Column("recipient_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("sender_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", JSON, nullable=False),
    # When somebody else than its sender looks after the letter.
    moment("due_at", nullable=False),
    # The oldest letter to an instance.
    PrimaryKeyConstraint("recipient_id", "id"),
    # Letters that nobody has delivered.
    Index("letters_due_at_idx", "due_at"),
)

injections = Table(
    "injections",
    metadata,
    Column("instance_id", Uuid, nullable=False),
    Column("number", Integer, nullable=False),
    Column("before", Text),
    Column("blocks", JSON, nullable=False),
    PrimaryKeyConstraint("instance_id", "number"),
)
