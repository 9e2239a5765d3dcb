"""Hints on their way to Redis."""

import socket
from collections.abc import Iterator
from uuid import UUID, uuid4

import orjson
import pytest
from redis import Redis
from redis.client import Connection

from orchestrator import embedded
from queues.broker import Broker, Hint, client_app, key_prefix
from queues.wire import MOST_TOGETHER, MOST_UNANSWERED
from tests.support.waiting import wait_until

INSTALLATION = "broker-test"


@pytest.fixture
def broker(servers: embedded.Servers) -> Iterator[Broker]:
    made = Broker(client_app(servers.broker_url, INSTALLATION))
    yield made
    made.close()


def _hints(*queues: str) -> tuple[Hint, ...]:
    return tuple(Hint(step_id=uuid4(), attempt=0, queue=queue, hint_id=uuid4()) for queue in queues)


def _waiting(servers: embedded.Servers, queue: str) -> list[UUID]:
    """Take the ids of the hints in a queue, the oldest first."""
    with Redis.from_url(servers.broker_url) as redis:
        key = f"{key_prefix(INSTALLATION)}{queue}"
        found = [UUID(orjson.loads(each)["headers"]["id"]) for each in reversed(redis.lrange(key, 0, -1))]
        redis.delete(key)
    return found


def test_many_hints_reach_their_queues_in_order(broker: Broker, servers: embedded.Servers) -> None:
    hints = _hints(*["one", "two", "one"] * 5)
    broker.publish(hints)
    for queue in ("one", "two"):
        assert _waiting(servers, queue) == [hint.hint_id for hint in hints if hint.queue == queue]


def test_many_hints_are_one_message_to_redis(
    broker: Broker, servers: embedded.Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):  # the first connection is kept for what leaves at once
        broker.publish(_hints("one"))
    sent: list[object] = []
    send = Connection.send_packed_command

    def noted(self: Connection, command: object, **options: object) -> None:
        sent.append(command)
        send(self, command, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("redis.connection.AbstractConnection.send_packed_command", noted)
    broker.publish(_hints(*["one"] * 50))
    assert len(sent) == 1
    assert len(_waiting(servers, "one")) == 52


def test_a_lone_hint_arrives(broker: Broker, servers: embedded.Servers) -> None:
    [hint] = _hints("one")
    broker.publish((hint,))
    assert _waiting(servers, "one") == [hint.hint_id]


def test_nothing_leaves_at_once_before_there_is_a_connection(broker: Broker, servers: embedded.Servers) -> None:
    assert not broker.publish_at_once(_hints("one"))
    assert _waiting(servers, "one") == []


def test_hints_leave_at_once_over_a_connection_that_is_open(broker: Broker, servers: embedded.Servers) -> None:
    first, *following = _hints(*["one"] * 5)
    broker.publish((first,))
    assert broker.publish_at_once(tuple(following[:2]))
    assert broker.publish_at_once(tuple(following[2:]))
    wait_until(lambda: _has(servers, "one", following[-1]), "the last hint arrives")
    assert _waiting(servers, "one") == [first.hint_id, *(hint.hint_id for hint in following)]


def test_a_connection_that_was_cut_is_not_trusted(broker: Broker, servers: embedded.Servers) -> None:
    first, lost, left, late = _hints(*["one"] * 4)
    broker.publish((first,))
    host, port = broker._wire._socket.getsockname()
    with Redis.from_url(servers.broker_url) as redis:
        redis.client_kill(f"{host}:{port}")
    wait_until(lambda: not broker.publish_at_once((lost,)), "the end of the connection is seen")
    broker.publish((left,))
    assert broker.publish_at_once((late,))
    wait_until(lambda: _has(servers, "one", late), "the last hint arrives")
    arrived = _waiting(servers, "one")
    assert [arrived[0], *arrived[-2:]] == [first.hint_id, left.hint_id, late.hint_id]


def test_what_redis_refuses_closes_the_connection(broker: Broker, servers: embedded.Servers) -> None:
    broker.publish(_hints("one"))
    with Redis.from_url(servers.broker_url) as redis:
        redis.set(f"{key_prefix(INSTALLATION)}text", "no list")
        broker.publish_at_once(_hints("text"))
        wait_until(lambda: not broker.publish_at_once(_hints("one")), "the refusal is read")
        redis.delete(f"{key_prefix(INSTALLATION)}text", f"{key_prefix(INSTALLATION)}one")


def test_a_redis_that_stands_still_makes_nobody_wait(broker: Broker, servers: embedded.Servers) -> None:
    broker.publish(_hints("one"))
    _waiting(servers, "one")
    broker._wire._socket, silent = socket.socketpair()
    broker._wire._socket.settimeout(0)
    with silent:
        sent = 0
        while broker.publish_at_once(_hints(*["one"] * 10)):
            sent += 10
        assert 0 < sent <= MOST_UNANSWERED


def test_a_connection_that_is_lost_again_and_again_is_opened_again(broker: Broker, servers: embedded.Servers) -> None:
    hints = _hints(*["one"] * 20)
    for hint in hints:
        broker.publish((hint,))
        assert broker.publish_at_once((hint,))
        broker._wire._socket.shutdown(socket.SHUT_RDWR)
        assert not broker.publish_at_once((hint,))
    assert {*_waiting(servers, "one")} == {hint.hint_id for hint in hints}


def test_many_hints_are_left_to_who_can_wait(broker: Broker) -> None:
    broker.publish(())
    assert not broker.publish_at_once(_hints(*["one"] * (MOST_TOGETHER + 1)))


def _has(servers: embedded.Servers, queue: str, hint: Hint) -> bool:
    with Redis.from_url(servers.broker_url) as redis:
        newest = redis.lindex(f"{key_prefix(INSTALLATION)}{queue}", 0)
    return newest is not None and UUID(orjson.loads(newest)["headers"]["id"]) == hint.hint_id
