"""Hints on their way to Redis."""

from collections.abc import Iterator
from uuid import UUID, uuid4

import orjson
import pytest
from redis import Redis
from redis.client import Connection

from orchestrator import embedded
from queues.broker import Broker, Hint, client_app, key_prefix

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
    broker.publish(_hints("one"))
    sent: list[object] = []
    send = Connection.send_packed_command

    def noted(self: Connection, command: object, **options: object) -> None:
        sent.append(command)
        send(self, command, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("redis.connection.AbstractConnection.send_packed_command", noted)
    broker.publish(_hints(*["one"] * 50))
    assert len(sent) == 1
    assert len(_waiting(servers, "one")) == 51


def test_a_lone_hint_arrives(broker: Broker, servers: embedded.Servers) -> None:
    [hint] = _hints("one")
    broker.publish((hint,))
    assert _waiting(servers, "one") == [hint.hint_id]
