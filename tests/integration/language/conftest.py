"""Both worlds for every test, and one database for all of them: flows do not meet."""

from collections.abc import Iterator

import pytest

from orchestrator import embedded
from orchestrator.settings import Settings
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Store
from tests.support.drive import PureWorld, StoredWorld, World


@pytest.fixture(scope="session")
def shared_store(servers: embedded.Servers, migrated_template: str) -> Iterator[Store]:
    """A store that all tests of this folder use."""
    opened = PostgresStore(embedded.fresh_database(servers, "language", template=migrated_template), pool_size=3)
    yield opened
    opened.close()


@pytest.fixture(params=["pure", "stored"])
def world(request: pytest.FixtureRequest) -> World:
    """A world of this test's own: the core in memory, then the engine over PostgreSQL."""
    if request.param == "pure":
        return PureWorld()
    return StoredWorld(request.getfixturevalue("shared_store"), Settings())
