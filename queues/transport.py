"""The Redis transport, for queues that anybody may write to.

kombu ends the whole worker when a message is no JSON, or lacks a member that it or Celery reads: one stray `LPUSH` for
each worker stops an installation. A hint may be lost at any time, so what cannot be read is dropped.
"""

from typing import Any, Final

import structlog
from kombu.transport import TRANSPORT_ALIASES, redis

log = structlog.get_logger()

SCHEMES: Final = ("redis", "rediss")


class Channel(redis.Channel):
    """A channel that outlives what it cannot read."""

    def _brpop_read(self, **options: Any) -> Any:
        """Read one message and hand it on; one that cannot be read counts as read."""
        known = set(self.qos._delivered or ())
        try:
            return super()._brpop_read(**options)  # type: ignore[misc]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            log.warning("message_dropped", error=f"{type(error).__name__}: {error}")
            # One that was already noted as delivered would hold a place among those that may be fetched, for ever.
            for tag in set(self.qos._delivered or ()) - known:
                self.basic_reject(tag, requeue=False)
            return True


class Transport(redis.Transport):
    """Redis, with channels that outlive what they cannot read."""

    Channel = Channel


class SentinelChannel(Channel, redis.SentinelChannel):
    """The same at the primary that Sentinels name."""


class SentinelTransport(redis.SentinelTransport):
    """Redis behind Sentinels, with channels that outlive what they cannot read."""

    Channel = SentinelChannel


def use() -> None:
    """Let every connection to Redis that kombu opens in this process be of this kind."""
    for scheme in SCHEMES:
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"
    TRANSPORT_ALIASES["sentinel"] = f"{__name__}:{SentinelTransport.__name__}"
