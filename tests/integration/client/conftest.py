"""A client of a real server over a real database."""

from collections.abc import Iterator
from uuid import UUID

import pytest

from orchestrator.client import Client
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from tests.integration.client.hands import QUICK
from tests.support.serving import Reception


@pytest.fixture
def url(reception: Reception, engine: Engine, settings: Settings) -> str:
    """A server over this test's database."""
    return reception.address(engine, settings)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, tenant="shop", patience=QUICK) as opened:
        yield opened


@pytest.fixture
def greet(client: Client) -> UUID:
    """A sequence `greet` of two steps."""
    return client.create_sequence({"id": "greet", "blocks": [{"handler": "noop"}, {"handler": "charge"}]}).id
