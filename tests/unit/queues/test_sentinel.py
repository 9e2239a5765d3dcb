"""Addresses of Sentinels."""

import pytest
from pydantic import ValidationError

from orchestrator.settings import Settings
from queues.broker import celery_settings
from queues.sentinel import Sentinels

WHOLE = "sentinel://me:p%40ss@one:5000/2;sentinel://two;sentinel://[::1]:5001#my%20primary:w%3Aord"


def test_an_address_names_all_that_is_needed() -> None:
    assert Sentinels.of(WHOLE) == Sentinels(
        hosts=(("one", 5000), ("two", 26379), ("::1", 5001)),
        primary="my primary",
        database=2,
        username="me",
        password="p@ss",
        own_password="w:ord",
    )


def test_celery_is_told_the_primary() -> None:
    options = celery_settings(WHOLE, "i")["broker_transport_options"]
    assert options["master_name"] == "my primary"
    assert options["sentinel_kwargs"]["password"] == "w:ord"
    assert options["global_keyprefix"] == "orchestrator:i:"


@pytest.mark.parametrize(
    "url",
    [
        "sentinel://one",
        "sentinel://one#",
        "sentinel://#primary",
        "sentinel://one;redis://two#primary",
        "sentinel://one?primary=a#primary",
        "sentinel://one/x#primary",
        "sentinel://one:port#primary",
        "sentinel://one,two:1#primary",
    ],
)
@pytest.mark.parametrize("name", ["REDIS_URL", "BROKER_URL"])
def test_a_wrong_address_is_refused_by_name(url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, url)
    with pytest.raises(ValidationError, match=name):
        Settings()
