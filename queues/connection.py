"""Connections beside those of Celery: whether a broker answers, and the mark that shows when it was emptied."""

from threading import Lock
from time import monotonic
from typing import Any, Protocol, cast
from uuid import uuid4

from redis import Redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from queues import rabbitmq
from queues.addresses import is_rabbitmq, is_redis
from queues.broker import key_prefix
from queues.sentinel import Sentinels, is_sentinel


def connect(url: str, *, patience: float = 2.0, retries: int = 2) -> Redis:
    """Make a client whose every wait is bounded; it connects on first use.

    Args:
        patience: Seconds that one wait may take.
        retries: How often a command whose connection has failed is sent again.
    """
    options: dict[str, Any] = {
        "socket_timeout": patience,
        "socket_connect_timeout": patience,
        "socket_keepalive": True,
        "health_check_interval": 15,
        "retry": Retry(ExponentialWithJitterBackoff(base=0.05, cap=0.5), retries),
    }
    return Sentinels.of(url).client(**options) if is_sentinel(url) else Redis.from_url(url, **options)


class Presence:
    """Tells whether a broker answers; asks it at most once a second, however many want to know.

    Args:
        url: Where Redis or RabbitMQ is; empty for none, which never answers.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._redis = connect(url) if is_redis(url) else None
        self._lock = Lock()
        self._asked_at = float("-inf")
        self._answered = False
        self._has_asked = False

    def answers(self) -> bool:
        """Tell whether it has answered a moment ago."""
        if monotonic() - self._asked_at >= 1.0 and self._lock.acquire(blocking=not self._has_asked):
            try:
                self._answered = self._ask()
                self._asked_at = monotonic()
                self._has_asked = True
            finally:
                self._lock.release()
        return self._answered

    def _ask(self) -> bool:
        if self._redis is None:
            return is_rabbitmq(self._url) and rabbitmq.answers(self._url)
        try:
            return bool(self._redis.ping())
        except RedisError:
            return False


class Mark(Protocol):
    """A value that is lost when the broker is emptied."""

    def read(self) -> str | None:
        """Read the mark; None if there is none."""

    def renew(self) -> str:
        """Set the mark unless another process has just done so; returns the value that stands."""


class EpochMark:
    """A random value kept in Redis: when it is missing or another, Redis was emptied or replaced.

    Redis: STRING `orchestrator:<installation>:epoch`, without expiry: the one key that must not go by itself.
    """

    def __init__(self, redis: Redis, installation: str) -> None:
        self._redis = redis
        self.key = f"{key_prefix(installation)}epoch"

    def read(self) -> str | None:
        """Read the mark; None if Redis has none."""
        value = cast("bytes | None", self._redis.get(self.key))
        return value.decode() if value is not None else None

    def renew(self) -> str:
        """Set the mark unless another process has just done so; returns the value that stands."""
        fresh = uuid4().hex
        self._redis.set(self.key, fresh, nx=True)
        return self.read() or fresh


class NoMark:
    """Stands for the mark of a broker that is not Redis: nothing shows that its queues are gone.

    Hints that were in them are sent again when their time is over.
    """

    VALUE = "none"

    def read(self) -> str:
        """Give the same value always."""
        return self.VALUE

    def renew(self) -> str:
        """Give the same value always."""
        return self.VALUE


def mark_of(broker_url: str, installation: str) -> Mark:
    """Make the mark that is lost with the hints of a broker."""
    return EpochMark(connect(broker_url), installation) if is_redis(broker_url) else NoMark()
