"""Who may call, and what steps need to call others: API keys, credentials."""

from sqlalchemy import Boolean, Column, Index, Table, Text, UniqueConstraint, Uuid, text
from sqlalchemy.dialects.postgresql import ARRAY

from orchestrator.store.tables.columns import metadata, moment

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", Text, nullable=False),
    Column("tenant_id", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("capabilities", ARRAY(Text), nullable=False),
    moment("created_at", nullable=False),
    moment("last_used_at"),
    moment("expires_at"),
    moment("revoked_at"),
    # The key of a request.
    UniqueConstraint("digest"),
    # The keys of a tenant, the newest first.
    Index("api_keys_tenant_id_idx", "tenant_id", text("created_at DESC")),
    postgresql_with={"fillfactor": "70"},
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
    moment("expires_at"),
    Column("refresh_url", Text),
    Column("refresh_token", Text),
    Column("description", Text),
    moment("created_at", nullable=False),
    moment("updated_at", nullable=False),
    # Who renews the value, and until when nobody else does.
    Column("renewal", Uuid),
    moment("renewal_until"),
    # The credentials of a tenant, by id.
    Index("credentials_tenant_id_idx", "tenant_id", "id"),
)
