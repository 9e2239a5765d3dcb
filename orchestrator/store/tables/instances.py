"""Instances: how they stand, what they were given, how lists and clients find them."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    DateTime,
    Index,
    Integer,
    PrimaryKeyConstraint,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

from orchestrator.store.tables.columns import metadata, moment

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
    moment("current_step_started_at"),
    Column("total_steps", BigInteger, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("dry_run_auto_approve", Boolean, nullable=False),
    moment("started_at"),
    moment("created_at", nullable=False),
    moment("updated_at", nullable=False),
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

sessions = Table(
    "sessions",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("session_key", Text, nullable=False),
    Column("data", JSON(none_as_null=False)),
    Column("state", Text, nullable=False),
    moment("created_at", nullable=False),
    moment("updated_at", nullable=False),
    moment("expires_at"),
    UniqueConstraint("tenant_id", "session_key"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("instance_id", Uuid, nullable=False),
    Column("id", Uuid, nullable=False),
    Column("data", JSON(none_as_null=False)),
    moment("created_at", nullable=False),
    PrimaryKeyConstraint("instance_id", "id"),
)
