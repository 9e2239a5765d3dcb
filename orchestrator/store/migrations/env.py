"""Alembic's entry: run the migrations on the connection that `store.migrate` passes in, or write them as SQL."""

from alembic import context

from orchestrator.store.tables import metadata

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=metadata, literal_binds=True)
else:
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=True)
with context.begin_transaction():
    context.run_migrations()
