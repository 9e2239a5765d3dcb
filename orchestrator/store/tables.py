"""The tables, as the migrations leave them.

Hot tables are narrow and lead with `instance_id`, so that they can be partitioned or distributed by it. There are no
foreign keys between hot tables: every write goes through one door under the instance's lock, and a check per inserted
row would cost more than it could ever find. JSON that must come back exactly as it was sent is `json`; only what is
searched is `jsonb`.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    Date,
    DateTime,
    Identity,
    Index,
    Integer,
    Interval,
    MetaData,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)


def _moment(name: str, *, nullable: bool = True) -> Column[Any]:
    return Column(name, DateTime(timezone=True), nullable=nullable)


def _key() -> tuple[Column[Any], ...]:
    """The name of a node: its block and the iterations of the loops around it, outermost first."""
    return (
        Column("instance_id", Uuid, nullable=False),
        Column("block_id", Text, nullable=False),
        Column("iteration", ARRAY(Integer), nullable=False),
    )


sequences = Table(
    "sequences",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("deprecated", Boolean, nullable=False),
    Column("document", JSON, nullable=False),
    Column("content_hash", Text, nullable=False),
    _moment("created_at", nullable=False),
    UniqueConstraint("tenant_id", "namespace", "name", "version"),
)

deleted_sequences = Table(
    "deleted_sequences",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("content_hash", Text, nullable=False),
    Column("has_instances", Boolean, nullable=False, server_default=text("false")),
    # Deleted sequences whose instances are still being removed.
    Index("deleted_sequences_has_instances_idx", "id", postgresql_where=text("has_instances")),
)

instances = Table(
    "instances",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("sequence_id", Uuid, nullable=False),
    Column("state", Text, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("priority", SmallInteger, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("running", Integer, nullable=False),
    Column("waiting", Integer, nullable=False),
    Column("scheduled", Integer, nullable=False),
    Column("is_held", Boolean, nullable=False),
    Column("is_cancelling", Boolean, nullable=False),
    Column("parked_reason", Text),
    Column("round", Integer, nullable=False),
    Column("run_id", Uuid),
    Column("current_step", Text),
    _moment("current_step_started_at"),
    Column("total_steps", BigInteger, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("dry_run_auto_approve", Boolean, nullable=False),
    _moment("started_at"),
    _moment("created_at", nullable=False),
    _moment("updated_at", nullable=False),
    Column("session_id", Uuid),
    Column("budget", JSON(none_as_null=True)),
    Column("input_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("output_tokens", BigInteger, nullable=False, server_default=text("0")),
    Column("iterations", BigInteger, nullable=False, server_default=text("0")),
    Column("injected", Integer, nullable=False, server_default=text("0")),
    # The block whose child it is, and how many parents are above it.
    Column("parent_id", Uuid),
    Column("parent_block_id", Text),
    Column("parent_iteration", ARRAY(Integer)),
    Column("depth", SmallInteger, nullable=False, server_default=text("0")),
    Column("leaving", Integer, nullable=False, server_default=text("0")),
    # `updated_at` of an instance that has ended, for an index. An index over `updated_at` itself would make each step's
    # update of this row write to every index.
    Column(
        "settled_at",
        DateTime(timezone=True),
        Computed("CASE WHEN state IN ('completed', 'failed', 'cancelled') THEN updated_at END", persisted=True),
    ),
    # `updated_at` for the indexes of lists. In steps, as long as the instance is open: they change once in a step, and
    # all other updates of the row write to no index.
    Column(
        "listed_at",
        DateTime(timezone=True),
        Computed(
            "CASE WHEN state IN ('completed', 'failed', 'cancelled') THEN updated_at "
            "ELSE date_bin('5 seconds', updated_at, '2000-01-01 00:00:00+00') END",
            persisted=True,
        ),
    ),
    # Lists, state by state: of a tenant, of a namespace of it, of a sequence (also the guard of its deletion), of all.
    Index("instances_of_tenant_idx", "tenant_id", "state", "listed_at"),
    Index("instances_of_namespace_and_sequence_idx", "tenant_id", "namespace", "state", "listed_at", "sequence_id"),
    Index("instances_of_sequence_idx", "sequence_id", "state", "listed_at"),
    Index("instances_listed_idx", "state", "listed_at"),
    # Instances that ended long ago, of all tenants, for the retention.
    Index("instances_retention_idx", "settled_at", "id", postgresql_where=text("settled_at IS NOT NULL")),
    # Instances of one session.
    Index("instances_session_id_idx", "session_id", postgresql_where=text("session_id IS NOT NULL")),
    postgresql_with={"fillfactor": "70"},
)

contexts = Table(
    "contexts",
    metadata,
    Column("instance_id", Uuid, primary_key=True),
    Column("data", JSON(none_as_null=False)),
    Column("config", JSON(none_as_null=False)),
    Column("metadata", JSONB(none_as_null=False)),
    Column("audit", JSON(none_as_null=True)),
    Column("idempotency_key", Text),
    Column("concurrency_key", Text),
    Column("max_concurrency", Integer),
    Column("parent_instance_id", Uuid),
    # The children of an instance.
    Index(
        "contexts_parent_instance_id_idx",
        "parent_instance_id",
        postgresql_where=text("parent_instance_id IS NOT NULL"),
    ),
)

# Members of metadata, written by triggers: `entry` stands for a key and its text, `minute` is `updated_at` without its
# seconds. Its key gives a list by metadata in the order of `updated_at`, but for the order within a minute.
metadata_entries = Table(
    "metadata_entries",
    metadata,
    Column("entry", Uuid, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("minute", DateTime(timezone=True), nullable=False),
    Column("instance_id", Uuid, nullable=False),
    PrimaryKeyConstraint("entry", "tenant_id", "minute", "instance_id"),
    # The entries of an instance that is changed in another minute, or removed.
    Index("metadata_entries_instance_id_idx", "instance_id"),
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("key", Text, nullable=False),
    Column("instance_id", Uuid, nullable=False),
    PrimaryKeyConstraint("tenant_id", "dry_run", "key"),
    # The keys of an instance that is removed.
    Index("idempotency_keys_instance_id_idx", "instance_id"),
)

nodes = Table(
    "nodes",
    metadata,
    *_key(),
    Column("state", Text, nullable=False),
    _moment("started_at"),
    _moment("completed_at"),
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
    *_key(),
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
    _moment("entered_at", nullable=False),
    _moment("started_at"),
    _moment("ready_at"),
    _moment("wake_at"),
    _moment("deadline_at"),
    Column("timeout", Interval),
    _moment("expires_at"),
    Column("token", Uuid),
    Column("worker_id", Uuid),
    Column("worker_name", Text),
    Column("slot", Integer),
    _moment("claimed_at"),
    _moment("heartbeat_at"),
    Column("claim_epoch", Integer, nullable=False),
    Column("output", JSON(none_as_null=True)),
    Column("memory", JSON(none_as_null=True)),
    Column("cache_key", Text),
    Column("checkpoint", JSON(none_as_null=True)),
    Column("checkpoint_seq", Integer, nullable=False, server_default=text("0")),
    _moment("hinted_at"),
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
    *_key(),
    _moment("due_at", nullable=False),
    PrimaryKeyConstraint("instance_id", "block_id", "iteration"),
    # The timers that are due.
    Index("timers_due_at_idx", "due_at"),
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
    _moment("created_at", nullable=False),
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
    _moment("claimed_at"),
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
    _moment("claimed_at"),
    Column("reason", Text),
    _moment("created_at", nullable=False),
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
    _moment("created_at", nullable=False),
    # The transaction that has written the row.
    Column("xid", BigInteger, nullable=False, server_default=text("((pg_current_xact_id())::text)::bigint")),
    PrimaryKeyConstraint("instance_id", "id"),
    # The change feed of a tenant.
    Index("transitions_feed_idx", "tenant_id", "xid", "id"),
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

state_values = Table(
    "state_values",
    metadata,
    Column("instance_id", Uuid, nullable=False),
    Column("name", Text, nullable=False),
    Column("value", JSON(none_as_null=False)),
    PrimaryKeyConstraint("instance_id", "name"),
)

items = Table(
    "items",
    metadata,
    *_key(),
    Column("index", Integer, nullable=False),
    Column("item", JSON(none_as_null=False)),
    PrimaryKeyConstraint("instance_id", "block_id", "iteration", "index"),
)

signals = Table(
    "signals",
    metadata,
    Column("instance_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("name", Text),
    Column("payload", JSON(none_as_null=False)),
    _moment("created_at", nullable=False),
    _moment("consumed_at"),
    PrimaryKeyConstraint("instance_id", "id"),
    # Answers that wait for their gate.
    Index("signals_kept_idx", "instance_id", postgresql_where=text("consumed_at IS NULL")),
)

sessions = Table(
    "sessions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("session_key", Text, nullable=False),
    Column("data", JSON(none_as_null=False)),
    Column("state", Text, nullable=False),
    _moment("created_at", nullable=False),
    _moment("updated_at", nullable=False),
    _moment("expires_at"),
    UniqueConstraint("tenant_id", "session_key"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("instance_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("data", JSON(none_as_null=False)),
    _moment("created_at", nullable=False),
    PrimaryKeyConstraint("instance_id", "id"),
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

letters = Table(
    "letters",
    metadata,
    Column("recipient_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("sender_id", Uuid, nullable=False),
    Column("kind", Text, nullable=False),
    Column("body", JSON, nullable=False),
    # When somebody else than its sender looks after the letter.
    _moment("due_at", nullable=False),
    # The oldest letter to an instance.
    PrimaryKeyConstraint("recipient_id", "id"),
    # Letters that nobody has delivered.
    Index("letters_due_at_idx", "due_at"),
)

triggers = Table(
    "triggers",
    metadata,
    Column("slug", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("sequence_name", Text, nullable=False),
    Column("version", Integer),
    Column("trigger_type", Text, nullable=False),
    Column("config", JSON(none_as_null=False)),
    Column("secret", Text),
    Column("enabled", Boolean, nullable=False),
    _moment("created_at", nullable=False),
    _moment("updated_at", nullable=False),
    # The one before, and how long it is good beside the other.
    Column("previous_secret", Text),
    _moment("previous_secret_until"),
)

nonces = Table(
    "nonces",
    metadata,
    Column("slug", Text, nullable=False),
    Column("nonce", Text, nullable=False),
    _moment("used_at", nullable=False),
    PrimaryKeyConstraint("slug", "nonce"),
    # Nonces that may be forgotten.
    Index("nonces_used_at_idx", "used_at"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("capabilities", ARRAY(Text), nullable=False),
    _moment("created_at", nullable=False),
    _moment("last_used_at"),
    _moment("expires_at"),
    _moment("revoked_at"),
    # The key of a request.
    UniqueConstraint("digest"),
    # The keys of a tenant, the newest first.
    Index("api_keys_tenant_id_idx", "tenant_id", text("created_at DESC")),
    postgresql_with={"fillfactor": "70"},
)

schedules = Table(
    "schedules",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("namespace", Text, nullable=False),
    Column("sequence_id", Uuid, nullable=False),
    Column("cron_expr", Text, nullable=False),
    Column("timezone", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("metadata", JSON(none_as_null=False)),
    Column("overlap_policy", Text, nullable=False),
    Column("skipped_fires", BigInteger, nullable=False, server_default="0"),
    _moment("last_skipped_at"),
    _moment("last_triggered_at"),
    _moment("next_fire_at"),
    # When the loop looks at it next; null for never. Differs from next_fire_at while it is disabled, or waits.
    _moment("due_at"),
    _moment("created_at", nullable=False),
    _moment("updated_at", nullable=False),
    # The schedules of a tenant.
    Index("schedules_tenant_id_idx", "tenant_id", "id"),
    # The schedules of a version that is deleted.
    Index("schedules_sequence_id_idx", "sequence_id"),
    # Schedules that are due.
    Index("schedules_due_at_idx", "due_at", postgresql_where=text("due_at IS NOT NULL")),
)

schedule_runs = Table(
    "schedule_runs",
    metadata,
    Column("schedule_id", Uuid, nullable=False),
    Column("instance_id", Uuid, nullable=False),
    _moment("fire_time", nullable=False),
    PrimaryKeyConstraint("schedule_id", "instance_id"),
    # The run of an instance that is removed.
    Index("schedule_runs_instance_id_idx", "instance_id"),
)

credentials = Table(
    "credentials",
    metadata,
    Column("id", Text, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("value", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    _moment("expires_at"),
    Column("refresh_url", Text),
    Column("refresh_token", Text),
    Column("description", Text),
    _moment("created_at", nullable=False),
    _moment("updated_at", nullable=False),
    # Who renews the value, and until when nobody else does.
    Column("renewal", Uuid),
    _moment("renewal_until"),
    # The credentials of a tenant, by id.
    Index("credentials_tenant_id_idx", "tenant_id", "id"),
)

usage_events = Table(
    "usage_events",
    metadata,
    Column("tenant_id", Text, nullable=False),
    _moment("created_at", nullable=False),
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

effects = Table(
    "effects",
    metadata,
    *_key(),
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
    _moment("created_at", nullable=False),
    Column("run_id", Uuid, nullable=False),
    PrimaryKeyConstraint("instance_id", "block_id", "iteration", "run_id"),
)

emission_keys = Table(
    "emission_keys",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("scope", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("instance_id", Uuid, nullable=False),
    PrimaryKeyConstraint("tenant_id", "scope", "key"),
    # The keys of an instance that is removed.
    Index("emission_keys_instance_id_idx", "instance_id"),
)

resource_pools = Table(
    "resource_pools",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("strategy", Text, nullable=False),
    Column("round_robin_index", BigInteger, nullable=False),
    _moment("created_at", nullable=False),
    _moment("updated_at", nullable=False),
    UniqueConstraint("tenant_id", "name"),
)

pool_resources = Table(
    "pool_resources",
    metadata,
    Column("pool_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("resource_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("weight", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("daily_cap", Integer, nullable=False),
    Column("daily_usage", Integer, nullable=False),
    Column("daily_usage_date", Date),
    Column("warmup_start", Date),
    Column("warmup_days", Integer, nullable=False),
    Column("warmup_start_cap", Integer, nullable=False),
    _moment("created_at", nullable=False),
    PrimaryKeyConstraint("pool_id", "id"),
    # In which pool a resource is.
    UniqueConstraint("id"),
)

plugins = Table(
    "plugins",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("plugin_type", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("config", JSON(none_as_null=False)),
    Column("description", Text),
    _moment("created_at", nullable=False),
    _moment("updated_at", nullable=False),
    PrimaryKeyConstraint("tenant_id", "name"),
)

correlation_events = Table(
    "correlation_events",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("event_name", Text, nullable=False),
    Column("producer_event_id", Text, nullable=False),
    Column("correlation_key", Text, nullable=False),
    Column("payload", JSON(none_as_null=False)),
    Column("status", Text, nullable=False),
    _moment("created_at", nullable=False),
    # The newest events of a tenant.
    PrimaryKeyConstraint("tenant_id", "id"),
    UniqueConstraint("id"),
    UniqueConstraint("tenant_id", "producer_event_id"),
)

circuit_breakers = Table(
    "circuit_breakers",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("handler", Text, nullable=False),
    Column("failure_count", BigInteger, nullable=False),
    # When it opened; none for a closed one. Whether its cool-down is over is computed.
    _moment("opened_at"),
    Column("failure_threshold", Integer, nullable=False),
    Column("cooldown_secs", Integer, nullable=False),
    Column("on_open", Text, nullable=False),
    PrimaryKeyConstraint("tenant_id", "handler"),
    postgresql_with={"fillfactor": "50"},
)

rate_limits = Table(
    "rate_limits",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("resource_key", Text, nullable=False),
    Column("max_count", Integer, nullable=False),
    Column("window_seconds", Integer, nullable=False),
    _moment("created_at", nullable=False),
    _moment("updated_at", nullable=False),
    PrimaryKeyConstraint("tenant_id", "resource_key"),
)

dispatch_configs = Table(
    "dispatch_configs",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("queue_name", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("push_url", Text),
    Column("secret", Text),
    Column("sync", Boolean, nullable=False),
    _moment("created_at", nullable=False),
    _moment("updated_at", nullable=False),
    Column("second_secret", Text),
    PrimaryKeyConstraint("tenant_id", "queue_name"),
)

task_pushes = Table(
    "task_pushes",
    metadata,
    Column("step_id", Uuid, primary_key=True),
    Column("tries", Integer, nullable=False),
    # When it is pushed again; of one in flight, when its sender counts as dead; none when that is over.
    _moment("due_at"),
    Column("token", Uuid),
    # Tasks to be pushed again.
    Index("task_pushes_due_at_idx", "due_at", postgresql_where=text("due_at IS NOT NULL")),
)

webhook_outbox = Table(
    "webhook_outbox",
    metadata,
    Column("id", Uuid, primary_key=True),
    # The order of the events of an instance, as its lock has made it.
    Column("number", BigInteger, Identity(always=True), nullable=False),
    Column("url", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("instance_id", Uuid, nullable=False),
    Column("payload", JSON, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("last_error", Text),
    Column("delivery_id", Uuid),
    # When it may be sent; of one in flight, when its sender counts as dead.
    _moment("due_at", nullable=False),
    Column("token", Uuid),
    _moment("claimed_at"),
    _moment("created_at", nullable=False),
    # What one address is due.
    Index("webhook_outbox_due_idx", "url", "due_at", postgresql_where=text("status <> 'parked'")),
    # Whether an earlier event of an instance is still on its way to an address.
    Index("webhook_outbox_order_idx", "instance_id", "url", "number", postgresql_where=text("status <> 'parked'")),
    # The list.
    Index("webhook_outbox_number_idx", "number"),
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("delivery_id", Uuid, nullable=False),
    Column("url", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("instance_id", Uuid, nullable=False),
    Column("attempt_number", Integer, nullable=False),
    _moment("attempted_at", nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Column("success", Boolean, nullable=False),
    Column("status_code", Integer),
    Column("error_class", Text),
    Column("error_excerpt", Text),
    Column("signed", Boolean, nullable=False),
    # The tries of one delivery.
    Index("webhook_attempts_delivery_id_idx", "delivery_id"),
    # The newest, and those too old to keep.
    Index("webhook_attempts_attempted_at_idx", "attempted_at"),
)

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
)

worker_commands = Table(
    "worker_commands",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("worker_id", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("payload", JSON(none_as_null=False)),
    _moment("created_at", nullable=False),
    # What one worker was told.
    Index("worker_commands_worker_id_idx", "worker_id", "id"),
)

version_pins = Table(
    "version_pins",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("handler_name", Text, nullable=False),
    Column("min_version", Text, nullable=False),
    # The same, as it is compared.
    Column("rank", ARRAY(BigInteger), nullable=False),
    _moment("created_at", nullable=False),
    _moment("updated_at", nullable=False),
    PrimaryKeyConstraint("tenant_id", "handler_name"),
)

routing_rules = Table(
    "routing_rules",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("handler_name", Text, nullable=False),
    Column("match_queue", Text),
    Column("queue_override", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("enabled", Boolean, nullable=False),
    _moment("created_at", nullable=False),
    _moment("updated_at", nullable=False),
)

workers = Table(
    "workers",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("queues", ARRAY(Text), nullable=False),
    Column("handlers", ARRAY(Text), nullable=False),
    Column("slots", Integer, nullable=False),
    Column("started_at", DateTime(timezone=True), nullable=False),
    _moment("heartbeat_at", nullable=False),
    Column("is_draining", Boolean, nullable=False, server_default=text("false")),
    Column("version", Text),
    # Whose a polling worker is; of those that serve all, none.
    Column("tenant_id", Text),
    postgresql_with={"fillfactor": "50"},
)

installation = Table(
    "installation",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
