"""Methods of both clients about webhooks, push queues and the administration of workers."""

from abc import ABC, abstractmethod
from typing import Any, TypeVar
from uuid import UUID

from orchestrator.client import delivery_calls
from orchestrator.client.calls import Id
from orchestrator.client.delivery_calls import (
    Delivery,
    DeliveryAttempt,
    Dispatch,
    Handlers,
    RedeliverPreview,
    RoutingRule,
    VersionPin,
    Webhook,
    WorkerCommand,
)
from orchestrator.client.transport import Call

Result = TypeVar("Result")


class DeliveryMethods(ABC):
    """Webhooks, push queues and the administration of workers; part of `Client`."""

    tenant: str | None

    @abstractmethod
    def _do(self, call: Call[Result]) -> Result: ...

    # -- webhooks: root key ------------------------------------------------------------------------------------------

    def list_webhooks(self, *, limit: int = 100) -> tuple[Webhook, ...]:
        """List events that were not sent yet, the oldest first; at most 1000."""
        return self._do(delivery_calls.webhooks(limit))

    def preview_redelivery(self, webhook_id: Id) -> RedeliverPreview:
        """Say what sending an event again would send. Raises NotFound if it was sent."""
        return self._do(delivery_calls.preview_redelivery(webhook_id))

    def redeliver(self, webhook_id: Id) -> UUID:
        """Send an event now; returns the id of the delivery.

        Raises:
            NotFound: It was sent.
            Conflict: It is being sent.
            ServerUnavailable: It was not taken, and stays.
        """
        return self._do(delivery_calls.redeliver(webhook_id))

    def delete_webhook(self, webhook_id: Id) -> None:
        """Drop an event that was not sent. Raises NotFound."""
        self._do(delivery_calls.delete_webhook(webhook_id))

    def list_deliveries(
        self,
        *,
        url: str | None = None,
        event_type: str | None = None,
        delivered: bool | None = None,
        error_class: str | None = None,
        limit: int = 100,
    ) -> tuple[Delivery, ...]:
        """List deliveries, the one tried last first; at most 1000."""
        call = delivery_calls.deliveries(
            url=url, event_type=event_type, delivered=delivered, error_class=error_class, limit=limit
        )
        return self._do(call)

    def get_delivery(self, delivery_id: Id) -> tuple[DeliveryAttempt, ...]:
        """Read the tries of a delivery, in order. Raises NotFound."""
        return self._do(delivery_calls.delivery(delivery_id))

    # -- push queues -------------------------------------------------------------------------------------------------

    def push_queue(
        self,
        queue: str,
        push_url: str,
        *,
        secret: str | None = None,
        second_secret: str | None = None,
        sync: bool = False,
    ) -> Dispatch:
        """Have the tasks of a queue posted to an address.

        Args:
            secret: Signs what is posted.
            second_secret: Signs it, too, in a header of its own, while the receiver changes from one to the other.
            sync: A refusal of the receiver is the failure of the task.
        """
        call = delivery_calls.configure_dispatch(
            self.tenant, queue, mode="push", push_url=push_url, secret=secret, second_secret=second_secret, sync=sync
        )
        return self._do(call)

    def list_dispatch(self) -> tuple[Dispatch, ...]:
        """List how tasks reach their workers, for queues of which something was said."""
        return self._do(delivery_calls.dispatch())

    def poll_queue(self, queue: str) -> None:
        """Let the tasks of a queue be polled only. Raises NotFound if they were not pushed."""
        self._do(delivery_calls.delete_dispatch(self.tenant, queue))

    # -- workers -----------------------------------------------------------------------------------------------------

    def handlers(self) -> Handlers:
        """List handlers: those of the engine, and those of living workers."""
        return self._do(delivery_calls.handlers())

    def tell_worker(self, worker_id: str, command: str, payload: Any = None) -> WorkerCommand:
        """Tell a worker to `drain`, `reload`, `ping` or `place`. With the root key only."""
        return self._do(delivery_calls.tell_worker(worker_id, command, payload))

    def list_commands(self, worker_id: str) -> tuple[WorkerCommand, ...]:
        """List what a worker was told, the oldest first. With the root key only."""
        return self._do(delivery_calls.commands(worker_id))

    def delete_command(self, command_id: Id) -> None:
        """Take a command back, or note that it was obeyed. With the root key only. Raises NotFound."""
        self._do(delivery_calls.delete_command(command_id))

    def pin_version(self, handler: str, min_version: str) -> VersionPin:
        """Let only workers of a version, or a higher one, have tasks of a handler. With the root key only."""
        return self._do(delivery_calls.pin_version(self.tenant, handler, min_version))

    def list_pins(self) -> tuple[VersionPin, ...]:
        """List the least versions of workers. With the root key only."""
        return self._do(delivery_calls.pins())

    def unpin_version(self, handler: str) -> None:
        """Let workers of any version have tasks of a handler. With the root key only. Raises NotFound."""
        self._do(delivery_calls.unpin_version(self.tenant, handler))

    def route(
        self,
        handler: str,
        queue_override: str,
        *,
        match_queue: str | None = None,
        priority: int = 0,
        enabled: bool = True,
    ) -> RoutingRule:
        """Lead new tasks of a handler to another queue.

        Args:
            match_queue: Only those of this queue; None for all.
            priority: Of several rules that fit a task the one with the highest counts.
        """
        values = {"match_queue": match_queue, "priority": priority, "enabled": enabled}
        return self._do(delivery_calls.create_rule(self.tenant, handler, queue_override, values))

    def list_routes(self, handler: str | None = None) -> tuple[RoutingRule, ...]:
        """List rules that lead tasks to other queues, in the order in which they count."""
        return self._do(delivery_calls.rules(handler))

    def get_route(self, rule_id: Id) -> RoutingRule:
        """Read a rule. Raises NotFound."""
        return self._do(delivery_calls.rule(rule_id))

    def delete_route(self, rule_id: Id) -> None:
        """Remove a rule; tasks stay where it has led them. Raises NotFound."""
        self._do(delivery_calls.delete_rule(rule_id))


class AsyncDeliveryMethods(ABC):
    """Webhooks, push queues and the administration of workers; part of `AsyncClient`."""

    tenant: str | None

    @abstractmethod
    async def _do(self, call: Call[Result]) -> Result: ...

    # -- webhooks: root key ------------------------------------------------------------------------------------------

    async def list_webhooks(self, *, limit: int = 100) -> tuple[Webhook, ...]:
        """List events that were not sent yet, the oldest first; at most 1000."""
        return await self._do(delivery_calls.webhooks(limit))

    async def preview_redelivery(self, webhook_id: Id) -> RedeliverPreview:
        """Say what sending an event again would send. Raises NotFound if it was sent."""
        return await self._do(delivery_calls.preview_redelivery(webhook_id))

    async def redeliver(self, webhook_id: Id) -> UUID:
        """Send an event now; returns the id of the delivery.

        Raises:
            NotFound: It was sent.
            Conflict: It is being sent.
            ServerUnavailable: It was not taken, and stays.
        """
        return await self._do(delivery_calls.redeliver(webhook_id))

    async def delete_webhook(self, webhook_id: Id) -> None:
        """Drop an event that was not sent. Raises NotFound."""
        await self._do(delivery_calls.delete_webhook(webhook_id))

    async def list_deliveries(
        self,
        *,
        url: str | None = None,
        event_type: str | None = None,
        delivered: bool | None = None,
        error_class: str | None = None,
        limit: int = 100,
    ) -> tuple[Delivery, ...]:
        """List deliveries, the one tried last first; at most 1000."""
        call = delivery_calls.deliveries(
            url=url, event_type=event_type, delivered=delivered, error_class=error_class, limit=limit
        )
        return await self._do(call)

    async def get_delivery(self, delivery_id: Id) -> tuple[DeliveryAttempt, ...]:
        """Read the tries of a delivery, in order. Raises NotFound."""
        return await self._do(delivery_calls.delivery(delivery_id))

    # -- push queues -------------------------------------------------------------------------------------------------

    async def push_queue(
        self,
        queue: str,
        push_url: str,
        *,
        secret: str | None = None,
        second_secret: str | None = None,
        sync: bool = False,
    ) -> Dispatch:
        """Have the tasks of a queue posted to an address.

        Args:
            secret: Signs what is posted.
            second_secret: Signs it, too, in a header of its own, while the receiver changes from one to the other.
            sync: A refusal of the receiver is the failure of the task.
        """
        call = delivery_calls.configure_dispatch(
            self.tenant, queue, mode="push", push_url=push_url, secret=secret, second_secret=second_secret, sync=sync
        )
        return await self._do(call)

    async def list_dispatch(self) -> tuple[Dispatch, ...]:
        """List how tasks reach their workers, for queues of which something was said."""
        return await self._do(delivery_calls.dispatch())

    async def poll_queue(self, queue: str) -> None:
        """Let the tasks of a queue be polled only. Raises NotFound if they were not pushed."""
        await self._do(delivery_calls.delete_dispatch(self.tenant, queue))

    # -- workers -----------------------------------------------------------------------------------------------------

    async def handlers(self) -> Handlers:
        """List handlers: those of the engine, and those of living workers."""
        return await self._do(delivery_calls.handlers())

    async def tell_worker(self, worker_id: str, command: str, payload: Any = None) -> WorkerCommand:
        """Tell a worker to `drain`, `reload`, `ping` or `place`. With the root key only."""
        return await self._do(delivery_calls.tell_worker(worker_id, command, payload))

    async def list_commands(self, worker_id: str) -> tuple[WorkerCommand, ...]:
        """List what a worker was told, the oldest first. With the root key only."""
        return await self._do(delivery_calls.commands(worker_id))

    async def delete_command(self, command_id: Id) -> None:
        """Take a command back, or note that it was obeyed. With the root key only. Raises NotFound."""
        await self._do(delivery_calls.delete_command(command_id))

    async def pin_version(self, handler: str, min_version: str) -> VersionPin:
        """Let only workers of a version, or a higher one, have tasks of a handler. With the root key only."""
        return await self._do(delivery_calls.pin_version(self.tenant, handler, min_version))

    async def list_pins(self) -> tuple[VersionPin, ...]:
        """List the least versions of workers. With the root key only."""
        return await self._do(delivery_calls.pins())

    async def unpin_version(self, handler: str) -> None:
        """Let workers of any version have tasks of a handler. With the root key only. Raises NotFound."""
        await self._do(delivery_calls.unpin_version(self.tenant, handler))

    async def route(
        self,
        handler: str,
        queue_override: str,
        *,
        match_queue: str | None = None,
        priority: int = 0,
        enabled: bool = True,
    ) -> RoutingRule:
        """Lead new tasks of a handler to another queue.

        Args:
            match_queue: Only those of this queue; None for all.
            priority: Of several rules that fit a task the one with the highest counts.
        """
        values = {"match_queue": match_queue, "priority": priority, "enabled": enabled}
        return await self._do(delivery_calls.create_rule(self.tenant, handler, queue_override, values))

    async def list_routes(self, handler: str | None = None) -> tuple[RoutingRule, ...]:
        """List rules that lead tasks to other queues, in the order in which they count."""
        return await self._do(delivery_calls.rules(handler))

    async def get_route(self, rule_id: Id) -> RoutingRule:
        """Read a rule. Raises NotFound."""
        return await self._do(delivery_calls.rule(rule_id))

    async def delete_route(self, rule_id: Id) -> None:
        """Remove a rule; tasks stay where it has led them. Raises NotFound."""
        await self._do(delivery_calls.delete_rule(rule_id))
