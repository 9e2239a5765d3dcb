"""One server for all pages, and one for the workers: webhooks wait in one outbox, in the order of their flows."""

from collections.abc import Iterator

import pytest

from orchestrator import embedded
from tests.guide.server import Guided, guided


@pytest.fixture(scope="module")
def server(servers: embedded.Servers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guided]:
    with guided(servers, tmp_path_factory.mktemp("guide")) as running:
        yield running
