"""Real servers for all tests: one PostgreSQL and one Redis for the session, one database for each test."""

import gc
import itertools
import os
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as search

from orchestrator import embedded
from orchestrator.api.app import POOL_OVERFLOW, POOL_SIZE
from orchestrator.engine import Engine
from orchestrator.logs import configure_logging
from orchestrator.settings import Settings
from orchestrator.store import migrate, upkeep
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Store
from orchestrator.store.tables import metadata
from tests.support import databases
from tests.support.scheduling import Scheduling
from tests.support.serving import Reception

configure_logging()

search.register_profile(
    "same", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
search.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
search.load_profile("same")
"""Every run tries the same examples, for as long as they take: the same code passes or fails everywhere.

`--hypothesis-profile=search` looks for new ones, and so does `make model`.
"""

_TEMPLATE = "template_migrated"
_numbers = itertools.count(1)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while everything is imported, nor later among what stays: that takes a third of the time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Say how tests are shared out when several processes run them."""
    return Scheduling(config, log)


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[embedded.Servers]:
    """PostgreSQL and Redis, started from the wheels for this session; they wait for the disk if a test measures speed.

    The folder can be entered by every account, because as root the servers run as another.
    """
    directory = Path(tempfile.mkdtemp(prefix="orchestrator-tests-"))
    directory.chmod(0o711)
    try:
        with embedded.running(directory, environment={}) as running:
            if not any(item.get_closest_marker("bench") for item in request.session.items):
                databases.spare_the_disk(running)
            yield running
    finally:
        embedded.remove(directory)


@pytest.fixture(scope="session")
def migrated_template(servers: embedded.Servers) -> str:
    """The name of a migrated database that tests copy."""
    url = embedded.fresh_database(servers, _TEMPLATE)
    migrate.upgrade(url)
    store = PostgresStore(url)
    with store.transaction() as tx:
        upkeep.make_partitions(tx)
    store.close()
    return _TEMPLATE


@pytest.fixture
def database_url(request: pytest.FixtureRequest, servers: embedded.Servers, migrated_template: str) -> Iterator[str]:
    """A migrated database of this test's own, or the one that is emptied for each of those marked `shares_database`."""
    if request.node.get_closest_marker("shares_database"):
        yield request.getfixturevalue("emptied_database")
        return
    with databases.copied(servers, f"test_{os.getpid()}_{next(_numbers)}", migrated_template) as url:
        yield url


@pytest.fixture(scope="session")
def kept_database(servers: embedded.Servers, migrated_template: str) -> str:
    """One database for all tests that take it emptied, and do not change its schema."""
    return embedded.fresh_database(servers, f"kept_{os.getpid()}", template=migrated_template)


@pytest.fixture(scope="session")
def emptying(kept_database: str) -> Iterator[Store]:
    """Who empties that database: a new connection takes ten times as long for it as one that has done so before."""
    opened = PostgresStore(kept_database)
    yield opened
    opened.close()


@pytest.fixture
def emptied_database(kept_database: str, emptying: Store) -> str:
    """That database, emptied: to copy a template and to remove the copy takes much longer."""
    with emptying.transaction() as tx:
        tx.execute("".join(f"DELETE FROM {table.name};" for table in metadata.sorted_tables))
    return kept_database


@pytest.fixture
def settings(servers: embedded.Servers, database_url: str) -> Settings:
    """Settings that point at this test's database."""
    return Settings(database_url=database_url, redis_url=servers.redis_url)


@pytest.fixture
def store(database_url: str) -> Iterator[Store]:
    """The store over this test's database, with a connection for each thread of an API, as in production."""
    opened = PostgresStore(database_url, pool_size=POOL_SIZE, overflow=POOL_OVERFLOW)
    yield opened
    opened.close()


@pytest.fixture
def engine(store: Store, settings: Settings) -> Engine:
    """An engine that rings nobody: tests claim and report by hand."""
    return Engine(store, lambda _hints: None, settings)


@pytest.fixture(scope="session")
def reception() -> Iterator[Reception]:
    """The servers of all tests of the API."""
    made = Reception()
    yield made
    made.close()
