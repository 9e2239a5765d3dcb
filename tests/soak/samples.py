"""What is measured: the memory of every process, and what PostgreSQL and Redis hold."""

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from redis import Redis

from tests.support.stack import Stack, children_of

MEGABYTE: Final = 1024 * 1024
PAGE: Final = 4096
LASTING: Final = ("epoch", "_kombu.binding")
"""Keys of Redis that may stay for ever: the mark, and the names of Celery's queues."""
POSTGRES: Final = """
SELECT (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'),
       (SELECT coalesce(sum(n_dead_tup), 0) FROM pg_stat_user_tables),
       (SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()),
       pg_database_size(current_database())
"""

Sample = dict[str, float]


def take(stack: Stack, accepted: int, began: float) -> Sample:
    """Measure everything once.

    Args:
        accepted: Flows that were accepted so far.
        began: The monotonic time at which the run began.
    """
    [[connections, dead, deadlocks, size]] = stack.query(POSTGRES)
    return {
        "hours": (time.monotonic() - began) / 3600,
        "accepted": accepted,
        "PostgreSQL connections": connections,
        "PostgreSQL dead rows": float(dead),
        "PostgreSQL deadlocks": deadlocks,
        "PostgreSQL MB": size / MEGABYTE,
        **_of_redis(stack.servers.broker_url),
        **{f"MB of {name}": megabytes(stack.pid(name)) for name in stack.processes.names},
    }


def _of_redis(url: str) -> Sample:
    with closing(Redis.from_url(url)) as redis:
        memory: Any = redis.info("memory")
        keys = [key.decode() for key in redis.scan_iter(count=1000)]
        return {
            "Redis MB": memory["used_memory"] / MEGABYTE,
            "Redis keys": len(keys),
            "Redis keys for ever": sum(1 for _ in _for_ever(redis, keys)),
        }


def _for_ever(redis: Redis, keys: list[str]) -> Iterator[str]:
    """Give the keys that nothing will ever remove, but for those that may stay; a queue goes when it is empty."""
    for key in keys:
        if not any(part in key for part in LASTING) and redis.type(key) != b"list" and redis.ttl(key) == -1:
            yield key


def megabytes(pid: int) -> float:
    """Measure the resident memory of a process with its children."""
    return sum(_resident(each) for each in (pid, *children_of(pid)))


def _resident(pid: int) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return pages * PAGE / MEGABYTE
