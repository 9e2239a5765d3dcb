"""Why an instance stands where it stands, asked over a connection of our own."""

from uuid import UUID

from orchestrator import diagnosis
from orchestrator.errors import NotFound
from orchestrator.findings import Finding
from orchestrator.settings import Settings
from orchestrator.slices import Plans
from orchestrator.store import instances, standing
from orchestrator.store.postgres import PostgresStore


def explain(settings: Settings, instance_id: UUID) -> list[Finding]:
    """Say what an instance waits for.

    Raises:
        NotFound: There is no such instance.
        StoreUnavailable: PostgreSQL does not answer.
    """
    store = PostgresStore(settings.database_url, pooler=settings.database_pooler, vault=settings.vault)
    try:
        with store.transaction() as tx:
            instances.freeze(tx)
            found = standing.of_instance(tx, instance_id, settings.dead_after)
            if found is None:
                raise NotFound(f"instance {instance_id}")
            plan = Plans().of_instances(tx, [found.instance]).get(instance_id)
    finally:
        store.close()
    return diagnosis.explain(found, plan)
