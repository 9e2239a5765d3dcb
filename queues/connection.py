"""Redis beside the broker, and the mark that shows when it was emptied."""

from typing import Protocol, cast
from uuid import uuid4

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

EPOCH_KEY = "orchestrator:epoch"


def connect(url: str) -> Redis:
    """Make a client whose every wait is bounded; it connects on first use."""
    return Redis.from_url(
        url,
        socket_timeout=2,
        socket_connect_timeout=2,
        socket_keepalive=True,
        health_check_interval=15,
        retry=Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), 2),
    )


class Mark(Protocol):
    """A value that is lost when the broker is emptied."""

    def read(self) -> str | None:
        """Read the mark; None if there is none."""

    def renew(self) -> str:
        """Set the mark unless another process has just done so; returns the value that stands."""


class EpochMark:
    """A random value kept in Redis: when it is missing or another, Redis was emptied or replaced.

    Redis: STRING `orchestrator:epoch`, without expiry: the one key that must not go by itself.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    def read(self) -> str | None:
        """Read the mark; None if Redis has none."""
        value = cast("bytes | None", self._redis.get(EPOCH_KEY))
        return value.decode() if value is not None else None

    def renew(self) -> str:
        """Set the mark unless another process has just done so; returns the value that stands."""
        fresh = uuid4().hex
        self._redis.set(EPOCH_KEY, fresh, nx=True)
        return self.read() or fresh
