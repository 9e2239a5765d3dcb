"""What is sent over HTTP: tasks of push queues, webhooks."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Identity,
    Index,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import JSON

from orchestrator.store.tables.columns import metadata, moment

dispatch_configs = Table(
    "dispatch_configs",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("queue_name", Text, nullable=False),
    Column("mode", Text, nullable=False),
    Column("push_url", Text),
    Column("secret", Text),
    Column("sync", Boolean, nullable=False),
    moment("created_at", nullable=False),
    moment("updated_at", nullable=False),
    Column("second_secret", Text),
    PrimaryKeyConstraint("tenant_id", "queue_name"),
)

task_pushes = Table(
    "task_pushes",
    metadata,
    Column("step_id", Uuid, primary_key=True),
    Column("tries", Integer, nullable=False),
    # When it is pushed again; of one in flight, when its sender counts as dead; none when that is over.
    moment("due_at"),
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
    moment("due_at", nullable=False),
    Column("token", Uuid),
    moment("claimed_at"),
    moment("created_at", nullable=False),
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
    moment("attempted_at", nullable=False),
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
