"""Workers, what they are told, and which tasks are led to them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON

from orchestrator.store.tables.columns import metadata, moment

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
    moment("heartbeat_at", nullable=False),
    Column("is_draining", Boolean, nullable=False, server_default=text("false")),
    Column("version", Text),
    # Whose a polling worker is; of those that serve all, none.
    Column("tenant_id", Text),
    postgresql_with={"fillfactor": "50"},
)

worker_commands = Table(
    "worker_commands",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("worker_id", Text, nullable=False),
    Column("command", Text, nullable=False),
    Column("payload", JSON(none_as_null=False)),
    moment("created_at", nullable=False),
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
    moment("created_at", nullable=False),
    moment("updated_at", nullable=False),
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
    moment("created_at", nullable=False),
    moment("updated_at", nullable=False),
)
