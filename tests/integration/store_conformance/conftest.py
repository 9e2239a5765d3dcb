"""One set of cases for both stores: memory, where time is moved, and PostgreSQL, where what is due is moved back."""

from collections.abc import Iterator

import pytest

from orchestrator import embedded
from orchestrator.store.memory import MemoryStore
from orchestrator.store.postgres import PostgresStore
from tests.integration.store_conformance.house import House, InMemory, InPostgres


@pytest.fixture(scope="session")
def conformance_store(servers: embedded.Servers, migrated_template: str) -> Iterator[PostgresStore]:
    """A PostgreSQL store that all cases use; their instances, queues and workers do not meet."""
    opened = PostgresStore(embedded.fresh_database(servers, "conformance", template=migrated_template), pool_size=3)
    yield opened
    opened.close()


@pytest.fixture(params=["memory", "postgres"])
def house(request: pytest.FixtureRequest) -> House:
    """A store of each kind."""
    if request.param == "memory":
        return InMemory(MemoryStore())
    return InPostgres(request.getfixturevalue("conformance_store"))
