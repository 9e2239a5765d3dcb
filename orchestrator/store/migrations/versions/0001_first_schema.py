"""The first schema: definitions, instances and their nodes, open steps, outputs, history."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create all tables."""
    op.create_table(
        "attempts",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("block_id", sa.Text(), nullable=False),
        sa.Column("iteration", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("step_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("handler", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("token", sa.Uuid(), nullable=True),
        sa.Column("worker_id", sa.Uuid(), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("error", postgresql.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("instance_id", "ended_at", "id", name=op.f("attempts_pkey")),
        postgresql_partition_by="RANGE (ended_at)",
    )
    op.create_index("attempts_step_id_idx", "attempts", ["step_id"], unique=False)
    op.create_table(
        "contexts",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("data", postgresql.JSON(), nullable=True),
        sa.Column("config", postgresql.JSON(), nullable=True),
        sa.Column("metadata", postgresql.JSONB(), nullable=True),
        sa.Column("budget", postgresql.JSON(none_as_null=True), nullable=True),
        sa.Column("idempotency_key", sa.Text(), nullable=True),
        sa.Column("concurrency_key", sa.Text(), nullable=True),
        sa.Column("max_concurrency", sa.Integer(), nullable=True),
        sa.Column("session_id", sa.Uuid(), nullable=True),
        sa.Column("parent_instance_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("instance_id", name=op.f("contexts_pkey")),
    )
    op.create_index(
        "contexts_metadata_idx",
        "contexts",
        ["metadata"],
        unique=False,
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "dry_run", "key", name=op.f("idempotency_keys_pkey")),
    )
    op.create_table(
        "installation",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("installation_pkey")),
    )
    op.create_table(
        "instances",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("sequence_id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("running", sa.Integer(), nullable=False),
        sa.Column("waiting", sa.Integer(), nullable=False),
        sa.Column("scheduled", sa.Integer(), nullable=False),
        sa.Column("is_held", sa.Boolean(), nullable=False),
        sa.Column("is_cancelling", sa.Boolean(), nullable=False),
        sa.Column("parked_reason", sa.Text(), nullable=True),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Uuid(), nullable=True),
        sa.Column("current_step", sa.Text(), nullable=True),
        sa.Column("current_step_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("total_steps", sa.BigInteger(), nullable=False),
        sa.Column("dry_run", sa.Boolean(), nullable=False),
        sa.Column("dry_run_auto_approve", sa.Boolean(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("instances_pkey")),
        postgresql_with={"fillfactor": "70"},
    )
    op.create_index("instances_sequence_id_idx", "instances", ["sequence_id"], unique=False)
    op.create_table(
        "items",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("block_id", sa.Text(), nullable=False),
        sa.Column("iteration", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("index", sa.Integer(), nullable=False),
        sa.Column("item", postgresql.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("instance_id", "block_id", "iteration", "index", name=op.f("items_pkey")),
    )
    op.create_table(
        "nodes",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("block_id", sa.Text(), nullable=False),
        sa.Column("iteration", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("memory", postgresql.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("instance_id", "block_id", "iteration", name=op.f("nodes_pkey")),
    )
    op.create_index(
        "nodes_unfinished_idx",
        "nodes",
        ["instance_id"],
        unique=False,
        postgresql_where=sa.text("state IN ('running', 'waiting', 'failed', 'cancelled')"),
    )
    op.create_table(
        "outputs",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("block_id", sa.Text(), nullable=False),
        sa.Column("iteration", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("lane", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("output", postgresql.JSON(), nullable=True),
        sa.Column("output_ref", sa.Text(), nullable=True),
        sa.Column("output_size", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", "id", name=op.f("outputs_pkey")),
    )
    op.create_index("outputs_newest_idx", "outputs", ["instance_id", "block_id", "lane", "id"], unique=False)
    op.create_table(
        "sequences",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("namespace", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("deprecated", sa.Boolean(), nullable=False),
        sa.Column("document", postgresql.JSON(), nullable=False),
        sa.Column("content_hash", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("sequences_pkey")),
        sa.UniqueConstraint(
            "tenant_id", "namespace", "name", "version", name=op.f("sequences_tenant_id_namespace_name_version_key")
        ),
    )
    op.create_table(
        "signals",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("payload", postgresql.JSON(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("consumed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("instance_id", "id", name=op.f("signals_pkey")),
    )
    op.create_index(
        "signals_kept_idx", "signals", ["instance_id"], unique=False, postgresql_where=sa.text("consumed_at IS NULL")
    )
    op.create_table(
        "state_values",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", postgresql.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("instance_id", "name", name=op.f("state_values_pkey")),
    )
    op.create_table(
        "steps",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("block_id", sa.Text(), nullable=False),
        sa.Column("iteration", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("activity", sa.Text(), nullable=False),
        sa.Column("handler", sa.Text(), nullable=False),
        sa.Column("queue", sa.Text(), nullable=False),
        sa.Column("is_queue_named", sa.Boolean(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("priority", sa.SmallInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("losses", sa.Integer(), nullable=False),
        sa.Column("entered_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("wake_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("timeout", sa.Interval(), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("token", sa.Uuid(), nullable=True),
        sa.Column("worker_id", sa.Uuid(), nullable=True),
        sa.Column("worker_name", sa.Text(), nullable=True),
        sa.Column("slot", sa.Integer(), nullable=True),
        sa.Column("claimed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claim_epoch", sa.Integer(), nullable=False),
        sa.Column("output", postgresql.JSON(none_as_null=True), nullable=True),
        sa.Column("checkpoint", postgresql.JSON(none_as_null=True), nullable=True),
        sa.Column("checkpoint_seq", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("hinted_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hints", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", "block_id", "iteration", name=op.f("steps_pkey")),
        sa.UniqueConstraint("id", name=op.f("steps_id_key")),
        postgresql_with={
            "fillfactor": "70",
            "autovacuum_vacuum_scale_factor": "0",
            "autovacuum_vacuum_threshold": "1000",
        },
    )
    op.create_index(
        "steps_claimed_idx", "steps", ["worker_id"], unique=False, postgresql_where=sa.text("state = 'claimed'")
    )
    op.create_index(
        "steps_gate_idx", "steps", ["tenant_id", "ready_at"], unique=False, postgresql_where=sa.text("state = 'gate'")
    )
    op.create_index(
        "steps_ready_idx",
        "steps",
        ["queue", sa.literal_column("priority DESC"), "ready_at"],
        unique=False,
        postgresql_where=sa.text("state = 'ready'"),
    )
    op.create_table(
        "timers",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("block_id", sa.Text(), nullable=False),
        sa.Column("iteration", postgresql.ARRAY(sa.Integer()), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", "block_id", "iteration", name=op.f("timers_pkey")),
    )
    op.create_index("timers_due_at_idx", "timers", ["due_at"], unique=False)
    op.create_table(
        "transitions",
        sa.Column("instance_id", sa.Uuid(), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("event_type", sa.Text(), nullable=False),
        sa.Column("from_state", sa.Text(), nullable=True),
        sa.Column("to_state", sa.Text(), nullable=True),
        sa.Column("block_id", sa.Text(), nullable=True),
        sa.Column("details", postgresql.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("instance_id", "id", name=op.f("transitions_pkey")),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("queues", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("handlers", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("slots", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("workers_pkey")),
        postgresql_with={"fillfactor": "50"},
    )
    # Rows whose week has no partition yet; upkeep makes partitions ahead, so it stays empty.
    op.execute("CREATE TABLE attempts_default PARTITION OF attempts DEFAULT")


def downgrade() -> None:
    """Drop all tables."""
    op.drop_table("workers")
    op.drop_table("transitions")
    op.drop_index("timers_due_at_idx", table_name="timers")
    op.drop_table("timers")
    op.drop_index("steps_ready_idx", table_name="steps", postgresql_where=sa.text("state = 'ready'"))
    op.drop_index("steps_gate_idx", table_name="steps", postgresql_where=sa.text("state = 'gate'"))
    op.drop_index("steps_claimed_idx", table_name="steps", postgresql_where=sa.text("state = 'claimed'"))
    op.drop_table("steps")
    op.drop_table("state_values")
    op.drop_index("signals_kept_idx", table_name="signals", postgresql_where=sa.text("consumed_at IS NULL"))
    op.drop_table("signals")
    op.drop_table("sequences")
    op.drop_index("outputs_newest_idx", table_name="outputs")
    op.drop_table("outputs")
    op.drop_index(
        "nodes_unfinished_idx",
        table_name="nodes",
        postgresql_where=sa.text("state IN ('running', 'waiting', 'failed', 'cancelled')"),
    )
    op.drop_table("nodes")
    op.drop_table("items")
    op.drop_index("instances_sequence_id_idx", table_name="instances")
    op.drop_table("instances")
    op.drop_table("installation")
    op.drop_table("idempotency_keys")
    op.drop_index(
        "contexts_metadata_idx",
        table_name="contexts",
        postgresql_using="gin",
        postgresql_ops={"metadata": "jsonb_path_ops"},
    )
    op.drop_table("contexts")
    op.drop_table("attempts")
