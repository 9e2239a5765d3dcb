"""Lists of a namespace from an index in their order, as those of a tenant and of a sequence."""

from orchestrator.store.migrations import online

revision = "0036"
down_revision = "0035"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the index."""
    online.create_index("instances_of_namespace_idx", "instances", ["tenant_id", "namespace", "state", "listed_at"])


def downgrade() -> None:
    """Take it away."""
    online.drop_index("instances_of_namespace_idx")
