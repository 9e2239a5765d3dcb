"""The index of namespaces tells of which sequence an instance is, so that the others need not be looked at."""

from orchestrator.store.migrations.online import create_index, drop_index

revision = "0039"
down_revision = "0038"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Build the index while others work, and drop the one whose place it takes."""
    columns = ("tenant_id", "namespace", "state", "listed_at", "sequence_id")
    create_index("instances_of_namespace_and_sequence_idx", "instances", columns)
    drop_index("instances_of_namespace_idx")


def downgrade() -> None:
    """Put the former index in its place again."""
    create_index("instances_of_namespace_idx", "instances", ("tenant_id", "namespace", "state", "listed_at"))
    drop_index("instances_of_namespace_and_sequence_idx")
