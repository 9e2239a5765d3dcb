"""Whose the instance of a context or a timer is, is looked up by its key, whoever asks.

The plan of what shows a page of a list is kept for all tenants. For one who seems to have next to nothing, a planner
that is free to choose asks an index for all instances of the tenant instead of the one that is meant: then each look of
another tenant would read all of his. An order is asked for that only the key has, and sorting is off where it is kept.
"""

from alembic import op

revision = "0041"
down_revision = "0040"
branch_labels = None
depends_on = None

_READ_BY_PAGES = ("contexts", "timers")
_TENANT = "current_setting('orchestrator.tenant', true)"


def upgrade() -> None:
    """Ask for the one key in its order."""
    for table in _READ_BY_PAGES:
        by_key = f"o.id BETWEEN {table}.instance_id AND {table}.instance_id ORDER BY o.id LIMIT 1"
        op.execute(f"ALTER POLICY of_tenant ON {table} USING ({_owner(by_key)} = {_TENANT})")


def downgrade() -> None:
    """Ask for the key alone."""
    for table in _READ_BY_PAGES:
        op.execute(f"ALTER POLICY of_tenant ON {table} USING ({_owner(f'o.id = {table}.instance_id')} = {_TENANT})")


def _owner(condition: str) -> str:
    return f"(SELECT o.tenant_id FROM instances o WHERE {condition})"
