"""The API as clients meet it: uvicorn on a free port over a real database, httpx outside."""

from collections.abc import Iterator

import httpx
import pytest

from tests.contract.client import CALL, TENANT, Api
from tests.contract.remote import OWN_SERVER, Remote
from tests.support.receiver import Receiver, receiving
from tests.support.serving import Reception


@pytest.fixture
def database_url(emptied_database: str) -> str:
    """An empty database."""
    return emptied_database


@pytest.fixture
def remote() -> Remote | None:
    """The installation that is tested, if one is named, with tenants of this test's own."""
    return Remote.named()


@pytest.fixture
def address(remote: Remote | None, request: pytest.FixtureRequest) -> str:
    """The address of a server over this test's database, in insecure mode, or of the one that is named."""
    if remote is not None:
        return remote.url
    reception: Reception = request.getfixturevalue("reception")
    return reception.address(request.getfixturevalue("engine"), request.getfixturevalue("settings"))


@pytest.fixture
def http(address: str, remote: Remote | None) -> Iterator[httpx.Client]:
    """A client of the tenant `acme`."""
    with (
        httpx.Client(base_url=f"{address}/api/v1", headers={"X-Tenant-Id": TENANT}, **CALL)
        if remote is None
        else remote.administrator()
    ) as client:
        yield client


@pytest.fixture
def api(http: httpx.Client, remote: Remote | None, request: pytest.FixtureRequest) -> Api:
    """The same client with the words of the tests."""
    return Api(http, request.getfixturevalue("engine") if remote is None else None)


@pytest.fixture(scope="module")
def listener() -> Iterator[Receiver]:
    """A server of somebody else, for all tests of a file."""
    with receiving() as opened:
        yield opened


@pytest.fixture
def receiver(listener: Receiver) -> Receiver:
    """A server of somebody else that was told and asked nothing yet."""
    listener.reset()
    return listener


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Pass over what looks behind the API when the API is somebody else's."""
    if Remote.named() is None:
        return
    for item in items:
        mark = item.get_closest_marker("needs_own_server")
        looks_behind = OWN_SERVER & set(getattr(item, "fixturenames", ()))
        reason = mark.args[0] if mark is not None else "it looks behind the API" if looks_behind else None
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=f"needs a server of its own: {reason}"))
