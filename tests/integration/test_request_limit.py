"""How often a key may ask, counted in Redis for all processes, or by each for itself while there is no Redis."""

import asyncio
import threading
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from redis import Redis

from orchestrator import embedded
from orchestrator.api.throttle import ABSENCE_SECONDS, SharedThrottle
from queues.connection import connect
from queues.request_limit import RequestLimit
from tests.support.debian import free_port
from tests.support.waiting import wait_until

LIMIT = 5


@pytest.fixture
def redis(servers: embedded.Servers) -> Iterator[Redis]:
    """The Redis of the tests."""
    with connect(servers.redis_url) as client:
        yield client


@pytest.fixture
def prefix() -> str:
    """What the keys of this test begin with."""
    return f"test:{uuid4()}:"


def limits(redis: Redis, prefix: str, count: int, limit: int = LIMIT) -> list[RequestLimit]:
    """Make what several processes have."""
    return [RequestLimit(redis, lambda: prefix, limit) for _ in range(count)]


def test_processes_share_the_limit_of_a_key(redis: Redis, prefix: str) -> None:
    one, two = limits(redis, prefix, 2, limit=1000)
    assert all(each.admit("key") for each in (one, two) for _ in range(20))
    assert redis.zcard(f"{prefix}requests:{{key}}") == 40
    few, others = limits(redis, prefix, 2, limit=41)
    assert few.admit("key")
    assert not others.admit("key")
    assert others.admit("other")


def test_a_second_later_there_is_room_again(redis: Redis, prefix: str) -> None:
    [limit] = limits(redis, prefix, 1, limit=1)
    assert limit.admit("key")
    assert 0 < redis.pttl(f"{prefix}requests:{{key}}") <= 2000
    wait_until(lambda: limit.admit("key"), "room", within=5)


def test_no_second_has_more_than_the_limit(redis: Redis, prefix: str) -> None:
    """Eight threads ask as fast as they can; what was admitted is dated by the answer, so windows only seem longer."""
    until, admitted = time.monotonic() + 2.5, []

    def ask(limit: RequestLimit) -> None:
        while time.monotonic() < until:
            before = time.monotonic()
            if limit.admit("key"):
                admitted.append((before, time.monotonic()))

    threads = [threading.Thread(target=ask, args=(each,)) for each in limits(redis, prefix, 8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) >= 2 * LIMIT
    for begin, _ in admitted:
        inside = [1 for before, after in admitted if before >= begin and after <= begin + 1]
        assert len(inside) <= LIMIT


def test_without_redis_each_process_counts_for_itself(prefix: str) -> None:
    away = connect(f"redis://127.0.0.1:{free_port()}/0", patience=0.25, retries=0)
    throttle = SharedThrottle(LIMIT, *limits(away, prefix, 1))

    async def ask() -> list[bool]:
        return [await throttle.admit("key") for _ in range(LIMIT + 1)]

    began = time.monotonic()
    assert asyncio.run(ask()) == [*[True] * LIMIT, False]
    assert time.monotonic() - began < ABSENCE_SECONDS, "an absent Redis must not hold up every request"


def test_redis_is_asked_again_when_it_is_back(redis: Redis, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    [limit] = limits(redis, prefix, 1, limit=1)
    throttle = SharedThrottle(1, limit)
    monkeypatch.setattr(throttle, "_asks_again_at", time.monotonic() + 0.2)
    assert asyncio.run(throttle.admit("key"))
    assert redis.zcard(f"{prefix}requests:{{key}}") == 0
    wait_until(
        lambda: asyncio.run(throttle.admit("key")) and redis.zcard(f"{prefix}requests:{{key}}"), "Redis to count"
    )
