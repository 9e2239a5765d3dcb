"""What the address of a broker tells about it. Imports nothing, for whoever only wants to know."""

from typing import Final

REDIS: Final = ("redis", "rediss", "redis+socket", "unix", "sentinel")
RABBITMQ: Final = ("amqp", "amqps", "pyamqp")


def is_redis(url: str) -> bool:
    """Tell whether a broker is Redis.

    >>> is_redis("rediss://cache:6379/0"), is_redis("amqp://broker"), is_redis("")
    (True, False, False)
    """
    return _scheme(url) in REDIS


def is_rabbitmq(url: str) -> bool:
    """Tell whether a broker is RabbitMQ.

    >>> is_rabbitmq("amqps://one;amqps://two"), is_rabbitmq("redis://cache")
    (True, False)
    """
    return _scheme(url) in RABBITMQ


def _scheme(url: str) -> str:
    return url.partition("://")[0] if "://" in url else ""
