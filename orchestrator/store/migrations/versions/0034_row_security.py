"""Row-level security behind the queries: rows of a tenant, and of its instances, are shown to who names that tenant.

The policies bind every account but the owner of the tables and those with BYPASSRLS. Of tables without a policy nothing
is shown to them. None may write: there are policies for reading alone.
"""

import sqlalchemy as sa
from alembic import context, op

revision = "0034"
down_revision = "0033"
branch_labels = None
depends_on = None

_TENANT = "current_setting('orchestrator.tenant', true)"
_OF_A_TENANT = (
    "sequences",
    "instances",
    "idempotency_keys",
    "steps",
    "transitions",
    "sessions",
    "triggers",
    "api_keys",
    "schedules",
    "credentials",
    "usage_events",
    "effects",
    "emission_keys",
    "resource_pools",
    "plugins",
    "correlation_events",
    "circuit_breakers",
    "rate_limits",
    "dispatch_configs",
    "version_pins",
    "routing_rules",
)
_OF_AN_INSTANCE = (
    "contexts",
    "nodes",
    "timers",
    "outputs",
    "payloads",
    "attempts",
    "task_events",
    "step_logs",
    "state_values",
    "items",
    "signals",
    "checkpoints",
    "injections",
    "schedule_runs",
    "webhook_outbox",
    "webhook_attempts",
)
_OF_ANOTHER_ROW = {
    "letters": "(SELECT o.tenant_id FROM instances o WHERE o.id = letters.recipient_id)",
    "pool_resources": "(SELECT o.tenant_id FROM resource_pools o WHERE o.id = pool_resources.pool_id)",
    "task_pushes": "(SELECT o.tenant_id FROM steps o WHERE o.id = task_pushes.step_id)",
}
_OF_NOBODY = ("deleted_sequences", "nonces", "counters", "worker_commands", "installation")


def _conditions() -> dict[str, str]:
    """Give the condition of each policy, by table.

    Whose instance it is, is asked by its key, as a value: of EXISTS the planner may make a list of all instances of the
    tenant first.
    """
    own = dict.fromkeys(_OF_A_TENANT, f"tenant_id = {_TENANT}")
    of_instances = {
        table: f"(SELECT o.tenant_id FROM instances o WHERE o.id = {table}.instance_id) = {_TENANT}"
        for table in _OF_AN_INSTANCE
    }
    of_others = {table: f"{owner} = {_TENANT}" for table, owner in _OF_ANOTHER_ROW.items()}
    # Processes of our own, and pollers that named no tenant, serve all.
    return own | of_instances | of_others | {"workers": f"tenant_id IS NULL OR tenant_id = {_TENANT}"}


def upgrade() -> None:
    """Say whose each polling worker is, and make the policies."""
    op.add_column("workers", sa.Column("tenant_id", sa.Text(), nullable=True))
    conditions = _conditions()
    for table in (*conditions, *_OF_NOBODY):
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    for table, condition in conditions.items():
        op.execute(f"CREATE POLICY of_tenant ON {table} FOR SELECT USING ({condition})")


def downgrade() -> None:
    """Drop the policies, and first what the role was allowed to read under them."""
    conditions = _conditions()
    role = context.config.attributes["tenant_role"]
    if op.get_bind().scalar(sa.text("SELECT count(*) FROM pg_roles WHERE rolname = :role"), {"role": role}):
        op.execute(f"REVOKE ALL ON {', '.join(conditions)} FROM {role}")
    for table in conditions:
        op.execute(f"DROP POLICY of_tenant ON {table}")
    for table in (*conditions, *_OF_NOBODY):
        op.execute(f"ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")
    op.drop_column("workers", "tenant_id")
