"""Workers whose Redis is away, silent or odd: they go on taking hints once it is back, and never end for it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kombu import Connection, Queue
from kombu.transport import redis as kombu_redis
from redis import Redis
from redis.exceptions import RedisError

from orchestrator import embedded
from queues import transport
from queues.broker import celery_settings, client_app
from queues.consumer import Consumer
from tests.support import troubled_consumer
from tests.support.proxy import Proxy, Trouble
from tests.support.stack import Stack
from tests.support.waiting import wait_until

INSTALLATION = "redis-trouble-test"


class Fetcher:
    """A connection like that of a worker, through a link that can be troubled, which has fetched one message."""

    def __init__(self, servers: embedded.Servers) -> None:
        port = int(servers.broker_url.rpartition(":")[2].partition("/")[0])
        self.link = Proxy(port)
        url = servers.broker_url.replace(f":{port}/", f":{self.link.port}/")
        options = celery_settings(url, INSTALLATION)["broker_transport_options"]
        self.connection = Connection(url, transport_options={**options, "socket_timeout": 0.3})
        self.channel: Any = self.connection.default_channel
        self.channel.basic_qos(prefetch_count=1)
        self.fetched: list[Any] = []
        queue = Queue("troubled", channel=self.channel)
        self.connection.Producer(self.channel).publish("a hint", routing_key="troubled", declare=[queue])
        self.channel.basic_consume("troubled", no_ack=False, callback=self.fetched.append, consumer_tag="t")

    def fetch(self) -> Any:
        while not self.fetched:
            self.connection.drain_events(timeout=5)
        return self.fetched[0]


@pytest.fixture
def fetcher(servers: embedded.Servers) -> Iterator[Fetcher]:
    made = Fetcher(servers)
    yield made
    made.connection.close()
    made.link.close()
    with Redis.from_url(servers.broker_url) as redis:
        for key in redis.scan_iter(f"*{INSTALLATION}*"):
            redis.delete(key)


@pytest.mark.parametrize("answer", ["ack", "reject", "requeue"])
@pytest.mark.parametrize("trouble", [Trouble.BLACK_HOLE, Trouble.ONE_WAY, Trouble.RESET])
def test_a_message_that_redis_does_not_let_go_takes_no_place(fetcher: Fetcher, trouble: Trouble, answer: str) -> None:
    message = fetcher.fetch()
    assert not fetcher.channel.qos.can_consume()
    with fetcher.link.troubled(trouble):
        getattr(message, answer)()
    assert fetcher.channel.qos.can_consume()


def test_control_kombu_keeps_the_place(fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport.QoS, "ack", kombu_redis.QoS.ack)
    message = fetcher.fetch()
    with fetcher.link.troubled(Trouble.ONE_WAY), pytest.raises(RedisError):
        message.ack()
    assert not fetcher.channel.qos.can_consume()


def _lose(fetcher: Fetcher) -> None:
    """Do what Celery does with a connection that was lost while each of its channels had asked for more."""
    fetcher.fetch()
    another: Any = fetcher.connection.channel()
    another.basic_consume("troubled", no_ack=True, callback=fetcher.fetched.append, consumer_tag="u")
    for channel in (fetcher.channel, another):
        fetcher.connection.transport.cycle._register_BRPOP(channel)
    with fetcher.link.troubled(Trouble.RESET):
        fetcher.connection.collect(socket_timeout=1)
        fetcher.connection.close()


def test_a_connection_that_was_lost_can_be_closed(fetcher: Fetcher) -> None:
    _lose(fetcher)
    assert not fetcher.connection.connected


def test_control_kombu_stumbles_over_a_connection_that_was_lost(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport.Channel, "close", kombu_redis.Channel.close)
    with pytest.raises(AttributeError, match="hostname"):
        _lose(fetcher)


@pytest.mark.parametrize("broker", ["redis://cache", "amqp://broker"])
def test_every_worker_has_the_consumer_that_nothing_ends(broker: str) -> None:
    app: Celery = client_app(broker)
    assert app.conf.worker_consumer == f"{Consumer.__module__}:{Consumer.__name__}"


def test_a_worker_outlives_what_its_consumer_fails_with(
    servers: embedded.Servers, migrated_template: str, tmp_path: Path
) -> None:
    asked = tmp_path / "asked"
    with Stack.running(
        tmp_path / "stack",
        servers=servers,
        template=migrated_template,
        imports=f"tests.support.handlers,{troubled_consumer.__name__}",
        env={troubled_consumer.ASKED_VARIABLE: str(asked)},
    ) as stack:
        pid = stack.pid("worker")
        asked.touch()
        control = client_app(stack.servers.broker_url, stack.store.installation())
        wait_until(lambda: control.control.ping(timeout=0.5) and not asked.exists(), "the consumer to fail, and answer")
        control.close()
        ids = stack.start_instances(stack.define([{"type": "step", "id": "a", "handler": "effect"}]), 3)
        stack.wait_for_end(ids)
        assert stack.pid("worker") == pid
        assert "consumer_failed" in stack.log_tail(400)
