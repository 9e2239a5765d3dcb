"""Sequences: their versions, and what is left of deleted ones."""

from sqlalchemy import Boolean, Column, Index, Integer, Table, Text, UniqueConstraint, Uuid, text
from sqlalchemy.dialects.postgresql import JSON

from orchestrator.store.tables.columns import metadata, moment

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
    moment("created_at", nullable=False),
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
