"""What the installation knows of itself, and the plugins registered with it."""

from sqlalchemy import BigInteger, Boolean, Column, PrimaryKeyConstraint, Table, Text
from sqlalchemy.dialects.postgresql import JSON

from orchestrator.store.tables.columns import metadata, moment

installation = Table(
    "installation",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

counters = Table(
    "counters",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", BigInteger, nullable=False),
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
    moment("created_at", nullable=False),
    moment("updated_at", nullable=False),
    PrimaryKeyConstraint("tenant_id", "name"),
)
