"""One server for all pages."""

from collections.abc import Iterator

import pytest

from orchestrator import embedded
from tests.guide.server import Guided, guided


@pytest.fixture(scope="session")
def server(servers: embedded.Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guided]:
    with guided(servers, tmp_path_factory.mktemp("guide")) as running:
        yield running
