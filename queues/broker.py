"""The broker: transport settings, and the hint that tells a worker to look at the store.

A hint is a doorbell. It names a step that may be ready; the right to run it is won in the store. So a hint may be
lost, repeated, forged or late, and it carries nothing that could be wrong.
"""

import socket
from typing import Any

from celery import Celery
from kombu import Producer

from queues import rabbitmq, transport
from queues.addresses import is_rabbitmq, is_redis
from queues.messages import HINT_TASK, Hint
from queues.sentinel import Sentinels, is_sentinel
from queues.wire import Wire

__all__ = ["HINT_TASK", "Broker", "Hint", "celery_settings", "client_app", "key_prefix"]


def key_prefix(installation: str) -> str:
    """Give what all keys of an installation begin with in Redis; nothing without a name for it."""
    return f"orchestrator:{installation}:" if installation else ""


def transport_options(installation: str = "") -> dict[str, Any]:
    """Give the options of the Redis transport: every wait is bounded (RELIABILITY F).

    Queues keep the names that people give them (`-Q gpu`); their keys in Redis begin with the installation, so that
    several can share one Redis. With RabbitMQ, each installation has a virtual host.
    """
    return {
        **({"global_keyprefix": key_prefix(installation)} if installation else {}),
        "visibility_timeout": 3600,
        "socket_timeout": 10,
        "socket_connect_timeout": 4,
        "socket_keepalive": True,
        "socket_keepalive_options": {socket.TCP_KEEPIDLE: 15, socket.TCP_KEEPINTVL: 5, socket.TCP_KEEPCNT: 3},
        "health_check_interval": 10,
    }


def celery_settings(broker_url: str, installation: str = "") -> dict[str, Any]:
    """Give the Celery settings of every process of ours; the reasons are in RELIABILITY B and F.

    Args:
        installation: Whose queues are meant, where several share a Redis; empty for a Redis of its own.
    """
    transport.use()
    rabbitmq.use()
    settings = {
        "broker_url": broker_url,
        "task_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        "event_serializer": "json",
        "result_backend": None,
        "task_ignore_result": True,
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "task_publish_retry": False,
        "worker_prefetch_multiplier": 1,
        # A child that listens by itself is busy for its parent, which must not hold hints back for it meanwhile.
        "worker_disable_prefetch": transport.serves(broker_url),
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": 20.0,
        "worker_max_tasks_per_child": 2000,
        "worker_max_memory_per_child": 400_000,
        "worker_consumer": "queues.consumer:Consumer",
        "worker_enable_remote_control": True,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "task_send_sent_event": False,
        "task_default_queue": "default",
        "broker_connection_retry_on_startup": True,
        # A Redis that refuses a command, being full, must not end a worker: it begins anew until it is taken again.
        "broker_channel_error_retry": is_redis(broker_url),
        "broker_connection_max_retries": None,
        "broker_connection_timeout": 4,
        # Connections are opened as they are needed; Flower asks every worker ten things at once, each on two of them.
        "broker_pool_limit": 64,
        "enable_utc": True,
        "timezone": "UTC",
        "broker_transport_options": {
            **transport_options(installation if is_redis(broker_url) else ""),
            **(Sentinels.of(broker_url).transport_options if is_sentinel(broker_url) else {}),
        },
    }
    return settings | rabbitmq.settings() if is_rabbitmq(broker_url) else settings


class Broker:
    """Publishes hints. One object for each process; not shared across forks.

    Args:
        app: The Celery app whose workers are rung.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._confirms = is_rabbitmq(app.conf.broker_url or "")
        self._wire = Wire()

    def publish_at_once(self, hints: tuple[Hint, ...]) -> bool:
        """Send hints without waiting for anything; False if that cannot be done, and `publish` has to send them."""
        return self._wire.send(hints)

    def publish(self, hints: tuple[Hint, ...]) -> None:
        """Send hints, each to its queue, by the anonymous direct exchange; to Redis several in one message.

        RabbitMQ confirms them, all at once.

        Raises:
            Exception: Whatever the transport raises; nothing depends on a hint, so the caller may drop it.
        """
        try:
            self._publish(hints)
        except rabbitmq.QueueGoneError:
            # A new connection declares each queue again. Hints that had a queue are there twice, which does no harm.
            self._publish(hints)

    def _publish(self, hints: tuple[Hint, ...]) -> None:
        with self._app.producer_pool.acquire(block=True, timeout=5) as producer:
            if self._confirms:
                self._publish_confirmed(producer, hints)
            elif isinstance(producer.channel, transport.Channel):
                producer.channel.put_hints(hints)
                self._wire.open(producer.channel)
            else:
                with producer.batch():  # type: ignore[attr-defined]  # newer than its types
                    for hint in hints:
                        self._send(producer, hint)

    def _publish_confirmed(self, producer: Producer, hints: tuple[Hint, ...]) -> None:
        try:
            with rabbitmq.confirmed(producer.channel):
                for hint in hints:
                    self._send(producer, hint, declare=[rabbitmq.quorum_queue(hint.queue)])
        except BaseException:
            # Half a frame may be on its way, and answers that nobody waits for any more.
            if producer.connection is not None:
                producer.connection.collect()
            raise

    def _send(self, producer: Producer, hint: Hint, **options: Any) -> None:
        self._app.send_task(
            HINT_TASK,
            args=hint.arguments,
            task_id=str(hint.hint_id),
            queue=hint.queue,
            producer=producer,
            retry=False,
            ignore_result=True,
            **options,
        )

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()
        self._app.close()


def client_app(broker_url: str, installation: str = "") -> Celery:
    """Make a Celery app that can publish; it knows no tasks and opens no connection before the first hint."""
    app = Celery("orchestrator", set_as_current=False)
    app.conf.update(celery_settings(broker_url, installation))
    return app
