"""What begins instances: triggers, schedules, events from outside, emissions of steps."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSON

from orchestrator.store.tables.columns import metadata, moment

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
    moment("created_at", nullable=False),
    moment("updated_at", nullable=False),
    # The one before, and how long it is good beside the other.
    Column("previous_secret", Text),
    moment("previous_secret_until"),
)

nonces = Table(
    "nonces",
    metadata,
    Column("slug", Text, nullable=False),
    Column("nonce", Text, nullable=False),
    moment("used_at", nullable=False),
    PrimaryKeyConstraint("slug", "nonce"),
    # Nonces that may be forgotten.
    Index("nonces_used_at_idx", "used_at"),
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
    moment("created_at", nullable=False),
    # The newest events of a tenant.
    PrimaryKeyConstraint("tenant_id", "id"),
    UniqueConstraint("id"),
    UniqueConstraint("tenant_id", "producer_event_id"),
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
    moment("last_skipped_at"),
    moment("last_triggered_at"),
    moment("next_fire_at"),
    # When the loop looks at it next; null for never. Differs from next_fire_at while it is disabled, or waits.
    moment("due_at"),
    moment("created_at", nullable=False),
    moment("updated_at", nullable=False),
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
    moment("fire_time", nullable=False),
    PrimaryKeyConstraint("schedule_id", "instance_id"),
    # The run of an instance that is removed.
    Index("schedule_runs_instance_id_idx", "instance_id"),
)
