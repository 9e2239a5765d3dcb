"""The examination of Redis: whether it answers and takes writes, and whether it is the one that the loops use."""

import time
from collections.abc import Iterator
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from orchestrator.findings import Finding, error, note, warning
from queues.connection import EpochMark, connect

CLOCK_SECONDS = 2.0
FULL = 0.9


class Hints:
    """One look at the Redis of hints.

    Args:
        url: Where it is.
    """

    def __init__(self, url: str) -> None:
        self._redis: Redis = connect(url)

    def examine(self, installation: str | None, mark: str | None) -> Iterator[Finding]:
        """Look at everything.

        Args:
            installation: The name that keys carry; None if that is not known.
            mark: What the loops have left there, as the database tells; None if nothing.
        """
        try:
            about: dict[str, Any] = self._redis.info()
            yield from _writes(about)
            yield from _memory(about)
            yield from self._clock()
            if installation is not None and mark is not None and EpochMark(self._redis, installation).read() != mark:
                yield _other_mark(installation)
        except (RedisError, OSError) as problem:
            yield error("redis_unreachable", f"Redis does not answer: {problem}", "start Redis, or correct REDIS_URL")
        finally:
            self._redis.close()

    def _clock(self) -> Iterator[Finding]:
        asked = time.time()
        seconds, micros = self._redis.time()
        told = seconds + micros / 1e6
        ahead = max(told - time.time(), asked - told)
        if ahead > CLOCK_SECONDS:
            what = f"the clocks of this machine and of Redis differ by {ahead:.1f} s"
            yield warning("redis_clock", what, "let both follow one time server (NTP)")


def _writes(about: dict[str, Any]) -> Iterator[Finding]:
    if about.get("role") not in {None, "master"}:
        yield error("redis_read_only", "this Redis is a replica and takes no hints", "name the primary in REDIS_URL")
    if "err" in {about.get("aof_last_write_status"), about.get("rdb_last_bgsave_status")}:
        what = "Redis could not write to its disk when it last tried, and may refuse hints"
        yield error("redis_disk", what, "read its log; free space where its data lies")
    if not about.get("aof_enabled"):
        what = "Redis does not append to a file: after a restart all hints are sent anew"
        yield note("no_aof", what, "CONFIG SET appendonly yes, if restarts should cost no time")


def _memory(about: dict[str, Any]) -> Iterator[Finding]:
    if not about.get("maxmemory"):
        return
    if about.get("maxmemory_policy") != "noeviction":
        what = f"Redis evicts keys when it is full ({about['maxmemory_policy']}): hints would disappear"
        yield warning("eviction", what, "CONFIG SET maxmemory-policy noeviction")
    if about["used_memory"] > FULL * about["maxmemory"]:
        what = f"Redis uses {about['used_memory']} of {about['maxmemory']} bytes"
        yield error("redis_full", what, "raise maxmemory; look for what else is kept there")


def _other_mark(installation: str) -> Finding:
    return error(
        "broker_mark",
        f"Redis does not hold the mark that the loops of installation {installation!r} have left: it was emptied and "
        "no loops have noticed, or this REDIS_URL, or ORCHESTRATOR_INSTALLATION, is not that of the loops",
        "see that service loops run, and that all processes have the same REDIS_URL and ORCHESTRATOR_INSTALLATION",
    )
