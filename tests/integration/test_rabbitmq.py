"""RabbitMQ as the broker: real quorum queues, a worker on them, and what is told about a RabbitMQ that is not well."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import pytest
from amqp import Channel as AmqpChannel
from amqp.exceptions import ConsumerCancelled, PreconditionFailed, RecoverableConnectionError
from celery.worker.loops import _quick_drain
from kombu import Connection, Consumer, Exchange, Message, Queue

from orchestrator import embedded
from orchestrator.doctor import examine
from orchestrator.settings import Settings
from queues import rabbitmq
from queues.broker import Broker, Hint, client_app
from queues.connection import NoMark, Presence, mark_of
from queues.starvation import Watch
from tests.support.proxy import Proxy, Trouble
from tests.support.rabbitmq import RabbitMQ, broking
from tests.support.stack import Stack, WorkerSpec
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(300)

CONSUMER_TIMEOUT_SECONDS = 2
LONGEST_PUBLISH = 10.0


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    """One RabbitMQ, which bears no message that its consumer leaves unanswered for two seconds."""
    settings = {"consumer_timeout": str(CONSUMER_TIMEOUT_SECONDS * 1000), "channel_tick_interval": "500"}
    with broking(tmp_path_factory.mktemp("rabbitmq") / "node", settings) as running:
        yield running


@pytest.fixture(scope="module")
def stack(
    broker: RabbitMQ, servers: embedded.Servers, migrated_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """A worker and a service over it, which are given no Redis at all."""
    directory = tmp_path_factory.mktemp("stack")
    with Stack.running(
        directory,
        workers={"worker": WorkerSpec()},
        servers=servers,
        template=migrated_template,
        broker=broker.url,
        env={"REDIS_URL": ""},
    ) as running:
        yield running


def _hints(*queues: str) -> tuple[Hint, ...]:
    return tuple(Hint(step_id=uuid4(), attempt=0, queue=queue, hint_id=uuid4()) for queue in queues)


def _consumers(broker: RabbitMQ, queue: str) -> int:
    with Connection(broker.url) as connection, connection.channel() as channel:
        return int(channel.queue_declare(queue, passive=True).consumer_count)


def _count(broker: RabbitMQ, queue: str) -> int:
    with Connection(broker.url) as connection, connection.channel() as channel:
        return int(channel.queue_declare(queue, passive=True).message_count)


def test_hints_arrive_in_quorum_queues(broker: RabbitMQ) -> None:
    bell = Broker(client_app(broker.url))
    bell.publish(_hints(*["one", "two", "one"] * 40))
    bell.publish(_hints("one"))
    bell.close()
    wait_until(lambda: (_count(broker, "one"), _count(broker, "two")) == (81, 40), "121 hints to be counted")
    with Connection(broker.url) as connection, pytest.raises(PreconditionFailed, match="x-queue-type"):
        Queue("one", Exchange(""), channel=connection.channel()).queue_declare()


def test_a_hint_whose_queue_was_deleted_finds_a_new_one(broker: RabbitMQ) -> None:
    bell = Broker(client_app(broker.url))
    bell.publish(_hints("lost", "kept"))
    with Connection(broker.url) as connection, connection.channel() as channel:
        channel.queue_delete("lost")
    bell.publish(_hints("lost"))
    bell.close()
    assert (_count(broker, "lost"), _count(broker, "kept")) == (1, 1)


def test_a_consumer_whose_queue_is_deleted_as_it_begins_is_told(broker: RabbitMQ) -> None:
    """By an error that Celery does not take for one of no account."""
    with client_app(broker.url).connection_for_read() as connection:
        consumer = connection.Consumer([rabbitmq.quorum_queue("deleted")], callbacks=[lambda *_: None])
        consumer.consume()
        with Connection(broker.url) as other, other.channel() as channel:
            channel.queue_delete("deleted")
        with pytest.raises(ConsumerCancelled):
            _quick_drain(connection, timeout=LONGEST_PUBLISH)


def test_steps_run_without_any_redis(stack: Stack) -> None:
    ids = stack.start_instances(stack.define([{"type": "step", "id": "a", "handler": "effect"}]), 20)
    assert set(stack.wait_for_end(ids).values()) == {"completed"}


def test_what_cannot_be_read_stops_no_worker(stack: Stack, broker: RabbitMQ) -> None:
    pid = stack.pid("worker")
    with Connection(broker.url) as connection:
        producer = connection.Producer()
        for body, options in (
            (b"\xff\x00", {"content_type": "application/json", "content_encoding": "utf-8"}),
            (b"{}", {"content_type": "application/x-python-serialize", "content_encoding": "binary"}),
            (b"[1]", {"content_type": "application/json", "content_encoding": "utf-8"}),
            (b"[[], {}, {}]", {"content_type": "application/json", "headers": {"task": "no.such.task", "id": "x"}}),
            (b'[["x"], {}, {}]', {"content_type": "application/json", "headers": {"task": "orchestrator.hint"}}),
        ):
            producer.publish(body, routing_key="default", exchange="", **options)
    ids = stack.start_instances(stack.define([{"type": "step", "id": "a", "handler": "effect"}]), 5)
    assert set(stack.wait_for_end(ids).values()) == {"completed"}
    wait_until(lambda: _count(broker, "default") == 0, "the queue to be empty")
    assert stack.pid("worker") == pid


def test_a_hint_that_waits_longer_than_rabbitmq_bears_stops_no_worker(stack: Stack, tmp_path: Path) -> None:
    """All children are busy: RabbitMQ closes the channel of the worker, which connects again."""
    pid = stack.pid("worker")
    gate = tmp_path / "gate"
    blocks = [{"type": "step", "id": "a", "handler": "until_released", "params": {"path": str(gate)}}]
    ids = stack.start_instances(stack.define(blocks), 4)
    wait_until(lambda: "delivery acknowledgement on channel" in stack.log_tail(2000), "RabbitMQ to close the channel")
    gate.touch()
    assert set(stack.wait_for_end(ids).values()) == {"completed"}
    assert stack.pid("worker") == pid


def test_its_queues_are_deleted(stack: Stack, broker: RabbitMQ) -> None:
    wait_until(lambda: _consumers(broker, "default"), "the worker to consume its queue")
    with Connection(broker.url) as connection, connection.channel() as channel:
        channel.queue_delete("default")
    ids = stack.start_instances(stack.define([{"type": "step", "id": "a", "handler": "effect"}]), 5)
    assert set(stack.wait_for_end(ids).values()) == {"completed"}


@contextmanager
def _given_one_at_a_time(broker: RabbitMQ, name: str) -> Iterator[tuple[Connection, Queue]]:
    """Open a channel, bound to a new queue, whose consumers hold one message at most."""
    with Connection(broker.url) as connection, connection.channel() as channel:
        queue = rabbitmq.quorum_queue(name)(channel)
        queue.declare()
        channel.basic_qos(0, 1, False)
        yield connection, queue


def test_a_worker_that_is_given_nothing_although_messages_wait_connects_anew(broker: RabbitMQ) -> None:
    with _given_one_at_a_time(broker, "starved") as (connection, queue):
        channel = queue.channel
        unseen: list[object] = []
        # As if RabbitMQ had lost the delivery: it takes the message for given, and our channel knows of none.
        AmqpChannel.basic_consume(channel, "starved", callback=unseen.append)
        watch = Watch(channel, lambda: ["starved"])
        watch.look()
        watch.look()
        for text in ("given", "waits"):
            connection.Producer(channel).publish({}, routing_key="starved", correlation_id=text)
        wait_until(lambda: _taken(connection, unseen), "one of them to be given")
        wait_until(lambda: _count(broker, "starved") == 1, "the other one to wait")
        watch.look()
        with pytest.raises(RecoverableConnectionError, match="gives nothing from starved"):
            watch.look()


def _taken(connection: Connection, unseen: list[object]) -> bool:
    with suppress(TimeoutError):
        connection.drain_events(timeout=0.1)
    return len(unseen) == 1


def test_a_worker_that_is_busy_is_not_starved(broker: RabbitMQ) -> None:
    with _given_one_at_a_time(broker, "busy") as (connection, queue):
        channel = queue.channel
        taken: list[Message] = []
        consumer = Consumer(channel, [queue], on_message=taken.append)
        consumer.consume()
        watch = Watch(channel, lambda: ["busy"])
        for _ in range(3):
            connection.Producer(channel).publish({}, routing_key="busy")
        wait_until(lambda: _taken(connection, taken), "one of them to be given")
        watch.look()
        watch.look()
        taken.pop().ack()
        assert not channel.held
        wait_until(lambda: _taken(connection, taken), "the next to be given")
        watch.look()
        taken.pop().ack()


def test_a_worker_whose_queue_is_gone_connects_anew(broker: RabbitMQ) -> None:
    with Connection(broker.url) as connection:
        watch = Watch(connection.channel(), lambda: ["gone"])
        with pytest.raises(RecoverableConnectionError, match="queue gone cannot be looked at"):
            watch.look()


def test_an_api_that_needs_the_broker_is_ready_while_it_answers(broker: RabbitMQ) -> None:
    assert Presence(broker.url).answers()
    link = Proxy(broker.port)
    link.begin(Trouble.RESET)
    assert not Presence(broker.url_through(link.port)).answers()
    link.close()
    assert isinstance(mark_of(broker.url, "any"), NoMark)


def _found(settings: Settings) -> dict[str, str]:
    return {each.name: each.what for each in examine(settings) if each.name.startswith("rabbitmq")}


def test_the_doctor_is_content_with_it(stack: Stack, broker: RabbitMQ) -> None:
    assert not _found(stack.settings)


def test_the_doctor_names_a_queue_of_another_type(stack: Stack, broker: RabbitMQ, tmp_path: Path) -> None:
    queue = Queue("old", Exchange(""), "old")
    with Connection(broker.url) as connection, connection.channel() as channel:
        queue(channel).declare()
    found = dict(rabbitmq.troubles_of(broker.url, ["default", "old"]))
    assert set(found) == {rabbitmq.Trouble.QUEUE_TYPE}
    assert "'old'" in found[rabbitmq.Trouble.QUEUE_TYPE]


def test_the_doctor_names_a_rabbitmq_that_is_not_there(stack: Stack) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"amqp://guest:guest@127.0.0.1:{nobody.getsockname()[1]}//"
        assert set(_found(stack.settings.model_copy(update={"broker_url": url}))) == {"rabbitmq_unreachable"}
