"""Methods of both clients about what starts flows: triggers, and cron schedules."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

from orchestrator.client import starting_calls
from orchestrator.client.calls import DEFAULT_NAME, Id
from orchestrator.client.starting_calls import Fired, NewSchedule, Schedule, Trigger
from orchestrator.client.transport import Call

Result = TypeVar("Result")


class StartingMethods(ABC):
    """Triggers and schedules; part of `Client`."""

    tenant: str | None

    @abstractmethod
    def _do(self, call: Call[Result]) -> Result: ...

    # -- triggers ------------------------------------------------------------------------------------------------

    def create_trigger(
        self,
        slug: str,
        sequence_name: str,
        *,
        namespace: str = DEFAULT_NAME,
        version: int | None = None,
        secret: str | None = None,
        trigger_type: str = "webhook",
        config: Any = None,
    ) -> Trigger:
        """Make a trigger.

        Args:
            version: Of the sequence; None for the newest one at the moment it fires.
            secret: What whoever fires it must know; without one it has no public webhook.
            trigger_type: `webhook`, `event`, `nats`, `file_watch` or `activepieces_poll`.
            config: With `idempotency_key`, a path or template on the payload: equal ones start one flow.

        Raises:
            NotFound: There is no such sequence.
            AlreadyExists: Somebody has a trigger of that slug.
        """
        values = {
            "slug": slug,
            "sequence_name": sequence_name,
            "namespace": namespace,
            "version": version,
            "secret": secret,
            "trigger_type": trigger_type,
            "config": config,
        }
        return self._do(starting_calls.create_trigger(self.tenant, values))

    def list_triggers(self) -> tuple[Trigger, ...]:
        """List triggers by slug; at most 1000."""
        return self._do(starting_calls.triggers())

    def get_trigger(self, slug: str) -> Trigger:
        """Read a trigger. Raises NotFound."""
        return self._do(starting_calls.trigger(slug))

    def change_trigger(self, slug: str, changes: Mapping[str, Any]) -> Trigger:
        """Change `enabled`, `config`, `secret` or `version`; what is not named stays. Raises NotFound.

        With `overlap_secs` beside `secret`, the secret before is as good for so many seconds, 30 days at most.
        """
        return self._do(starting_calls.change_trigger(slug, changes))

    def delete_trigger(self, slug: str) -> None:
        """Remove a trigger; flows that it has started go on. Raises NotFound."""
        self._do(starting_calls.delete_trigger(slug))

    def fire_trigger(self, slug: str, payload: Any = None, *, secret: str | None = None) -> Fired:
        """Start a flow with the payload as its data. Not sent again after a lost connection.

        Raises:
            NotFound: There is no such trigger, or its sequence is gone.
            NotAuthorized: It has another secret.
            InvalidArgument: It is switched off.
        """
        return self._do(starting_calls.fire_trigger(slug, payload, secret))

    # -- schedules -----------------------------------------------------------------------------------------------

    def create_schedule(
        self,
        sequence_id: Id,
        cron_expr: str,
        *,
        namespace: str = DEFAULT_NAME,
        timezone: str = "UTC",
        metadata: Any = None,
        enabled: bool = True,
        overlap_policy: str = "allow",
    ) -> NewSchedule:
        """Start a version of a sequence at the moments that a cron expression of 5, 6 or 7 fields names.

        Args:
            timezone: Whose local times the expression means.
            metadata: Of the instances that are started.
            overlap_policy: While an earlier flow goes on: `allow`, `skip`, `buffer_one` or `cancel_previous`.

        Raises:
            InvalidArgument: The expression or the zone is none.
            NotFound: There is no such sequence.
        """
        values = {
            "sequence_id": str(sequence_id),
            "cron_expr": cron_expr,
            "namespace": namespace,
            "timezone": timezone,
            "metadata": metadata,
            "enabled": enabled,
            "overlap_policy": overlap_policy,
        }
        return self._do(starting_calls.create_schedule(self.tenant, values))

    def list_schedules(self) -> tuple[Schedule, ...]:
        """List schedules, the oldest first, disabled ones too; at most 1000."""
        return self._do(starting_calls.schedules())

    def get_schedule(self, schedule_id: Id) -> Schedule:
        """Read a schedule. Raises NotFound."""
        return self._do(starting_calls.schedule(schedule_id))

    def change_schedule(self, schedule_id: Id, changes: Mapping[str, Any]) -> Schedule:
        """Change `cron_expr`, `timezone`, `enabled`, `metadata` or `overlap_policy`; what is not named stays.

        Raises:
            NotFound: There is no such schedule.
            InvalidArgument: The expression or the zone is none.
        """
        return self._do(starting_calls.change_schedule(schedule_id, changes))

    def delete_schedule(self, schedule_id: Id) -> None:
        """Remove a schedule; flows that it has started go on. Raises NotFound."""
        self._do(starting_calls.delete_schedule(schedule_id))

    def next_fires(self, schedule_id: Id, count: int = 5) -> tuple[datetime, ...]:
        """List the next moments that a schedule names, in UTC; at most 50. Raises NotFound."""
        return self._do(starting_calls.next_fires(schedule_id, count))


class AsyncStartingMethods(ABC):
    """Triggers and schedules; part of `AsyncClient`."""

    tenant: str | None

    @abstractmethod
    async def _do(self, call: Call[Result]) -> Result: ...

    # -- triggers ------------------------------------------------------------------------------------------------

    async def create_trigger(
        self,
        slug: str,
        sequence_name: str,
        *,
        namespace: str = DEFAULT_NAME,
        version: int | None = None,
        secret: str | None = None,
        trigger_type: str = "webhook",
        config: Any = None,
    ) -> Trigger:
        """Make a trigger.

        Args:
            version: Of the sequence; None for the newest one at the moment it fires.
            secret: What whoever fires it must know; without one it has no public webhook.
            trigger_type: `webhook`, `event`, `nats`, `file_watch` or `activepieces_poll`.
            config: With `idempotency_key`, a path or template on the payload: equal ones start one flow.

        Raises:
            NotFound: There is no such sequence.
            AlreadyExists: Somebody has a trigger of that slug.
        """
        values = {
            "slug": slug,
            "sequence_name": sequence_name,
            "namespace": namespace,
            "version": version,
            "secret": secret,
            "trigger_type": trigger_type,
            "config": config,
        }
        return await self._do(starting_calls.create_trigger(self.tenant, values))

    async def list_triggers(self) -> tuple[Trigger, ...]:
        """List triggers by slug; at most 1000."""
        return await self._do(starting_calls.triggers())

    async def get_trigger(self, slug: str) -> Trigger:
        """Read a trigger. Raises NotFound."""
        return await self._do(starting_calls.trigger(slug))

    async def change_trigger(self, slug: str, changes: Mapping[str, Any]) -> Trigger:
        """Change `enabled`, `config`, `secret` or `version`; what is not named stays. Raises NotFound.

        With `overlap_secs` beside `secret`, the secret before is as good for so many seconds, 30 days at most.
        """
        return await self._do(starting_calls.change_trigger(slug, changes))

    async def delete_trigger(self, slug: str) -> None:
        """Remove a trigger; flows that it has started go on. Raises NotFound."""
        await self._do(starting_calls.delete_trigger(slug))

    async def fire_trigger(self, slug: str, payload: Any = None, *, secret: str | None = None) -> Fired:
        """Start a flow with the payload as its data. Not sent again after a lost connection.

        Raises:
            NotFound: There is no such trigger, or its sequence is gone.
            NotAuthorized: It has another secret.
            InvalidArgument: It is switched off.
        """
        return await self._do(starting_calls.fire_trigger(slug, payload, secret))

    # -- schedules -----------------------------------------------------------------------------------------------

    async def create_schedule(
        self,
        sequence_id: Id,
        cron_expr: str,
        *,
        namespace: str = DEFAULT_NAME,
        timezone: str = "UTC",
        metadata: Any = None,
        enabled: bool = True,
        overlap_policy: str = "allow",
    ) -> NewSchedule:
        """Start a version of a sequence at the moments that a cron expression of 5, 6 or 7 fields names.

        Args:
            timezone: Whose local times the expression means.
            metadata: Of the instances that are started.
            overlap_policy: While an earlier flow goes on: `allow`, `skip`, `buffer_one` or `cancel_previous`.

        Raises:
            InvalidArgument: The expression or the zone is none.
            NotFound: There is no such sequence.
        """
        values = {
            "sequence_id": str(sequence_id),
            "cron_expr": cron_expr,
            "namespace": namespace,
            "timezone": timezone,
            "metadata": metadata,
            "enabled": enabled,
            "overlap_policy": overlap_policy,
        }
        return await self._do(starting_calls.create_schedule(self.tenant, values))

    async def list_schedules(self) -> tuple[Schedule, ...]:
        """List schedules, the oldest first, disabled ones too; at most 1000."""
        return await self._do(starting_calls.schedules())

    async def get_schedule(self, schedule_id: Id) -> Schedule:
        """Read a schedule. Raises NotFound."""
        return await self._do(starting_calls.schedule(schedule_id))

    async def change_schedule(self, schedule_id: Id, changes: Mapping[str, Any]) -> Schedule:
        """Change `cron_expr`, `timezone`, `enabled`, `metadata` or `overlap_policy`; what is not named stays.

        Raises:
            NotFound: There is no such schedule.
            InvalidArgument: The expression or the zone is none.
        """
        return await self._do(starting_calls.change_schedule(schedule_id, changes))

    async def delete_schedule(self, schedule_id: Id) -> None:
        """Remove a schedule; flows that it has started go on. Raises NotFound."""
        await self._do(starting_calls.delete_schedule(schedule_id))

    async def next_fires(self, schedule_id: Id, count: int = 5) -> tuple[datetime, ...]:
        """List the next moments that a schedule names, in UTC; at most 50. Raises NotFound."""
        return await self._do(starting_calls.next_fires(schedule_id, count))
