"""The API as clients meet it: uvicorn on a free port over a real database, httpx outside."""

import os
from collections.abc import Iterator

import httpx
import pytest

from orchestrator import embedded
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.tables import metadata
from tests.contract.client import CALL, Api
from tests.support.serving import Reception

TENANT = "acme"


@pytest.fixture(scope="session")
def contract_database(servers: embedded.Servers, migrated_template: str) -> str:
    """One database for all tests of the API."""
    return embedded.fresh_database(servers, f"contract_{os.getpid()}", template=migrated_template)


@pytest.fixture
def database_url(contract_database: str) -> str:
    """The database, emptied: copying a template for each test would take most of their time."""
    store = PostgresStore(contract_database)
    with store.transaction() as tx:
        tx.execute("".join(f"DELETE FROM {table.name};" for table in metadata.sorted_tables))
    store.close()
    return contract_database


@pytest.fixture
def address(reception: Reception, engine: Engine, settings: Settings) -> str:
    """The address of a server over this test's database, in insecure mode."""
    return reception.address(engine, settings)


@pytest.fixture
def http(address: str) -> Iterator[httpx.Client]:
    """A client of the tenant `acme`."""
    with httpx.Client(base_url=f"{address}/api/v1", headers={"X-Tenant-Id": TENANT}, **CALL) as client:
        yield client


@pytest.fixture
def api(http: httpx.Client, engine: Engine) -> Api:
    """The same client with the words of the tests."""
    return Api(http, engine)
