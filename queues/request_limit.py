"""How often somebody may ask, counted in Redis for all processes together.

Redis: ZSET `<prefix>requests:{<key>}` of admitted requests by the microsecond; it expires after two windows.
"""

from collections.abc import Callable
from typing import Any, Final
from uuid import uuid4

from redis import Redis

WINDOW_MICROSECONDS: Final = 1_000_000
ADMIT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('%.0f', now - ARGV[2]))
if redis.call('ZSCORE', KEYS[1], ARGV[3]) then return 1 end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[1]) then return 0 end
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[3])
redis.call('PEXPIRE', KEYS[1], math.floor(2 * ARGV[2] / 1000))
return 1
"""


class RequestLimit:
    """At most `limit` requests of each key in any second, by the clock of Redis. Safe to use from several threads.

    Args:
        redis: Where they are counted.
        prefix: Gives what our keys begin with; asked once.
    """

    def __init__(self, redis: Redis, prefix: Callable[[], str], limit: int) -> None:
        self._admit: Any = redis.register_script(ADMIT)
        self._find_prefix = prefix
        self._prefix: str | None = None
        self._limit = limit

    def admit(self, key: str) -> bool:
        """Admit one more, or refuse it; what is refused does not count.

        Raises:
            RedisError: It cannot be counted.
        """
        if self._prefix is None:
            self._prefix = self._find_prefix()
        name = f"{self._prefix}requests:{{{key}}}"
        return bool(self._admit(keys=[name], args=[self._limit, WINDOW_MICROSECONDS, uuid4().hex]))
