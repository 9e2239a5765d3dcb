"""One installation for all fault tests: what a test killed, the next one finds running again."""

from collections.abc import Iterator

import pytest

from tests.support.stack import Stack, WorkerSpec


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Two workers, one service, one API, and servers of their own."""
    directory = tmp_path_factory.mktemp("faults")
    workers = {"worker-1": WorkerSpec(), "worker-2": WorkerSpec()}
    with Stack.running(directory, workers=workers, with_api=True) as stack:
        yield stack


@pytest.fixture
def stack(installation: Stack) -> Stack:
    """The installation, with everything up."""
    installation.start_all()
    return installation
