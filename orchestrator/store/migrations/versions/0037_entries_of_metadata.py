"""Members of metadata as rows, in the order of lists: a list by metadata reads those of its page.

Triggers write them, so that processes of an older version, which do not know of the table, write them as well.
"""

import sqlalchemy as sa
from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None

# The same text of the same key is the same entry. The length keeps keys apart that are the beginnings of one another.
_ENTRY = """
CREATE FUNCTION metadata_entry(key text, value text) RETURNS uuid LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
SELECT encode(substring(sha256(convert_to(char_length(key) || ':' || key || value, 'UTF8')) FROM 1 FOR 16), 'hex')::uuid
$$
"""
_LIST = """
CREATE FUNCTION list_metadata() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF TG_OP = 'UPDATE' THEN
    DELETE FROM metadata_entries WHERE instance_id = NEW.instance_id;
  END IF;
  IF jsonb_typeof(NEW.metadata) = 'object' THEN
    INSERT INTO metadata_entries (entry, tenant_id, minute, instance_id)
    SELECT metadata_entry(e.key, e.value), i.tenant_id,
      date_bin('1 minute', i.updated_at, '2000-01-01 00:00:00+00'), i.id
    FROM instances i, jsonb_each_text(NEW.metadata) AS e WHERE i.id = NEW.instance_id AND e.value IS NOT NULL;
  END IF;
  RETURN NULL;
END
$$
"""
_TRIGGERS = (
    "CREATE TRIGGER metadata_inserted AFTER INSERT ON contexts FOR EACH ROW "
    "WHEN (jsonb_typeof(NEW.metadata) = 'object') EXECUTE FUNCTION list_metadata()",
    "CREATE TRIGGER metadata_changed AFTER UPDATE OF metadata ON contexts FOR EACH ROW "
    "WHEN (OLD.metadata IS DISTINCT FROM NEW.metadata) EXECUTE FUNCTION list_metadata()",
)


def upgrade() -> None:
    """Make the table, and let it be written from now on; the next migration lists what is there already."""
    op.create_table(
        "metadata_entries",
        sa.Column("entry", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("minute", sa.DateTime(timezone=True), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("entry", "tenant_id", "minute", "instance_id"),
    )
    op.create_index("metadata_entries_instance_id_idx", "metadata_entries", ["instance_id"], unique=False)
    op.execute("ALTER TABLE metadata_entries ENABLE ROW LEVEL SECURITY")
    op.execute(
        "CREATE POLICY of_tenant ON metadata_entries FOR SELECT "
        "USING (tenant_id = current_setting('orchestrator.tenant', true))"
    )
    for statement in (_ENTRY, _LIST, *_TRIGGERS):
        op.execute(statement)


def downgrade() -> None:
    """Drop the table and what writes it."""
    op.execute("DROP TRIGGER metadata_changed ON contexts")
    op.execute("DROP TRIGGER metadata_inserted ON contexts")
    op.drop_table("metadata_entries")
    op.execute("DROP FUNCTION list_metadata()")
    op.execute("DROP FUNCTION metadata_entry(text, text)")
