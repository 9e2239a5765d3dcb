"""What steps share and how much of it they may use: pools, rates, breakers."""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Date,
    Integer,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
)

from orchestrator.store.tables.columns import metadata, moment

resource_pools = Table(
    "resource_pools",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("tenant_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("strategy", Text, nullable=False),
    Column("round_robin_index", BigInteger, nullable=False),
    moment("created_at", nullable=False),
    moment("updated_at", nullable=False),
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
    moment("created_at", nullable=False),
    PrimaryKeyConstraint("pool_id", "id"),
    # In which pool a resource is.
    UniqueConstraint("id"),
)

rate_limits = Table(
    "rate_limits",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("resource_key", Text, nullable=False),
    Column("max_count", Integer, nullable=False),
    Column("window_seconds", Integer, nullable=False),
    moment("created_at", nullable=False),
    moment("updated_at", nullable=False),
    PrimaryKeyConstraint("tenant_id", "resource_key"),
)

circuit_breakers = Table(
    "circuit_breakers",
    metadata,
    Column("tenant_id", Text, nullable=False),
    Column("handler", Text, nullable=False),
    Column("failure_count", BigInteger, nullable=False),
    # When it opened; none for a closed one. Whether its cool-down is over is computed.
    moment("opened_at"),
    Column("failure_threshold", Integer, nullable=False),
    Column("cooldown_secs", Integer, nullable=False),
    Column("on_open", Text, nullable=False),
    PrimaryKeyConstraint("tenant_id", "handler"),
    postgresql_with={"fillfactor": "50"},
)
