"""Methods of both clients about pools, limits, breakers and published versions."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from datetime import date
from typing import Any, TypeVar

from orchestrator.client import resource_calls
from orchestrator.client.calls import DEFAULT_NAME, Id
from orchestrator.client.resource_calls import Breaker, Pool, Promoted, RateLimit, Resource
from orchestrator.client.transport import Call

Result = TypeVar("Result")


class ResourceMethods(ABC):
    """Pools, limits, breakers and published versions; part of `Client`."""

    tenant: str | None

    @abstractmethod
    def _do(self, call: Call[Result]) -> Result: ...

    # -- pools ---------------------------------------------------------------------------------------------------

    def create_pool(self, name: str, *, strategy: str = "round_robin") -> Pool:
        """Make a pool of resources. Raises AlreadyExists for a name that is taken.

        Args:
            strategy: How one of its resources is chosen: `round_robin`, `weighted` or `random`.
        """
        return self._do(resource_calls.create_pool(self.tenant, name, strategy))

    def list_pools(self) -> tuple[Pool, ...]:
        """List pools, the oldest first; at most 1000."""
        return self._do(resource_calls.pools())

    def get_pool(self, pool_id: Id) -> Pool:
        """Read a pool. Raises NotFound."""
        return self._do(resource_calls.pool(pool_id))

    def delete_pool(self, pool_id: Id) -> None:
        """Remove a pool and all that is in it. Raises NotFound."""
        self._do(resource_calls.delete_pool(pool_id))

    def add_resource(
        self,
        pool_id: Id,
        resource_key: str,
        name: str | None = None,
        *,
        weight: int = 1,
        daily_cap: int = 0,
        warmup_start: date | None = None,
        warmup_days: int = 0,
        warmup_start_cap: int = 0,
    ) -> Resource:
        """Put a resource into a pool; others in it may have the same key. Raises NotFound.

        Args:
            name: What people call it; None for its key.
            daily_cap: Uses a day (UTC); 0 for any number.
            warmup_start: The day on which it may be used `warmup_start_cap` times. From then on the cap rises, until
                `daily_cap` is reached after `warmup_days`.
        """
        values = {
            "resource_key": resource_key,
            "name": resource_key if name is None else name,
            "weight": weight,
            "daily_cap": daily_cap,
            "warmup_start": None if warmup_start is None else warmup_start.isoformat(),
            "warmup_days": warmup_days,
            "warmup_start_cap": warmup_start_cap,
        }
        return self._do(resource_calls.add_resource(pool_id, values))

    def list_resources(self, pool_id: Id) -> tuple[Resource, ...]:
        """List what is in a pool, the oldest first; at most 1000. Raises NotFound."""
        return self._do(resource_calls.resources(pool_id))

    def change_resource(self, pool_id: Id, resource_id: Id, changes: Mapping[str, Any]) -> Resource:
        """Change members of a resource, such as `{"enabled": False}`; what is not named stays. Raises NotFound."""
        return self._do(resource_calls.change_resource(pool_id, resource_id, changes))

    def remove_resource(self, pool_id: Id, resource_id: Id) -> None:
        """Take a resource out of its pool. Repeatable. Raises NotFound if it is in another pool."""
        self._do(resource_calls.remove_resource(pool_id, resource_id))

    # -- limits --------------------------------------------------------------------------------------------------

    def set_rate_limit(self, resource_key: str, max_count: int, window_seconds: int) -> RateLimit:
        """Allow at most so many starts under a key in any window, whatever its limit was."""
        return self._do(resource_calls.set_rate_limit(self.tenant, resource_key, max_count, window_seconds))

    def list_rate_limits(self) -> tuple[RateLimit, ...]:
        """List limits by key; at most 1000."""
        return self._do(resource_calls.rate_limits())

    def get_rate_limit(self, resource_key: str) -> RateLimit:
        """Read the limit of a key. Raises NotFound."""
        return self._do(resource_calls.rate_limit(resource_key))

    def delete_rate_limit(self, resource_key: str) -> None:
        """Take the limit of a key away. Raises NotFound."""
        self._do(resource_calls.delete_rate_limit(resource_key))

    # -- breakers ------------------------------------------------------------------------------------------------

    def list_breakers(self) -> tuple[Breaker, ...]:
        """List the breakers of handlers that have run or were configured, by handler; at most 1000."""
        return self._do(resource_calls.breakers())

    def get_breaker(self, handler: str) -> Breaker:
        """Read the breaker of a handler. Raises NotFound if it has never run."""
        return self._do(resource_calls.breaker(handler))

    def configure_breaker(
        self, handler: str, *, failure_threshold: int = 5, cooldown_secs: int = 60, on_open: str = "auto"
    ) -> Breaker:
        """Set how the breaker of a handler works; what it has counted stays.

        Args:
            failure_threshold: Failures in a row that open it.
            cooldown_secs: How long it is open.
            on_open: What becomes of steps meanwhile: `auto`, `fail` or `defer`.
        """
        return self._do(resource_calls.configure_breaker(handler, failure_threshold, cooldown_secs, on_open))

    def reset_breaker(self, handler: str) -> None:
        """Close the breaker of a handler; an unknown handler is fine."""
        self._do(resource_calls.reset_breaker(handler))

    # -- published versions --------------------------------------------------------------------------------------

    def promote(self, name: str, *, namespace: str = DEFAULT_NAME, version: int | None = None) -> Promoted:
        """Bring the newest version of a name that is not deprecated, or the given one, to production.

        Raises:
            NotFound: There is no such version.
            InvalidArgument: It was withdrawn.
        """
        return self._do(resource_calls.promote(name, self.tenant, namespace, version))

    def unpublish(self, name: str, *, namespace: str = DEFAULT_NAME, delete: bool = False) -> None:
        """Withdraw all versions of a name; running instances go on.

        Args:
            delete: Delete them and their ended instances as well.

        Raises:
            NotFound: There is none.
            Conflict: One is to be deleted, and instances that have not ended are bound to it.
        """
        self._do(resource_calls.unpublish(name, namespace, delete=delete))


class AsyncResourceMethods(ABC):
    """Pools, limits, breakers and published versions; part of `AsyncClient`."""

    tenant: str | None

    @abstractmethod
    async def _do(self, call: Call[Result]) -> Result: ...

    # -- pools ---------------------------------------------------------------------------------------------------

    async def create_pool(self, name: str, *, strategy: str = "round_robin") -> Pool:
        """Make a pool of resources. Raises AlreadyExists for a name that is taken.

        Args:
            strategy: How one of its resources is chosen: `round_robin`, `weighted` or `random`.
        """
        return await self._do(resource_calls.create_pool(self.tenant, name, strategy))

    async def list_pools(self) -> tuple[Pool, ...]:
        """List pools, the oldest first; at most 1000."""
        return await self._do(resource_calls.pools())

    async def get_pool(self, pool_id: Id) -> Pool:
        """Read a pool. Raises NotFound."""
        return await self._do(resource_calls.pool(pool_id))

    async def delete_pool(self, pool_id: Id) -> None:
        """Remove a pool and all that is in it. Raises NotFound."""
        await self._do(resource_calls.delete_pool(pool_id))

    async def add_resource(
        self,
        pool_id: Id,
        resource_key: str,
        name: str | None = None,
        *,
        weight: int = 1,
        daily_cap: int = 0,
        warmup_start: date | None = None,
        warmup_days: int = 0,
        warmup_start_cap: int = 0,
    ) -> Resource:
        """Put a resource into a pool; others in it may have the same key. Raises NotFound.

        Args:
            name: What people call it; None for its key.
            daily_cap: Uses a day (UTC); 0 for any number.
            warmup_start: The day on which it may be used `warmup_start_cap` times. From then on the cap rises, until
                `daily_cap` is reached after `warmup_days`.
        """
        values = {
            "resource_key": resource_key,
            "name": resource_key if name is None else name,
            "weight": weight,
            "daily_cap": daily_cap,
            "warmup_start": None if warmup_start is None else warmup_start.isoformat(),
            "warmup_days": warmup_days,
            "warmup_start_cap": warmup_start_cap,
        }
        return await self._do(resource_calls.add_resource(pool_id, values))

    async def list_resources(self, pool_id: Id) -> tuple[Resource, ...]:
        """List what is in a pool, the oldest first; at most 1000. Raises NotFound."""
        return await self._do(resource_calls.resources(pool_id))

    async def change_resource(self, pool_id: Id, resource_id: Id, changes: Mapping[str, Any]) -> Resource:
        """Change members of a resource, such as `{"enabled": False}`; what is not named stays. Raises NotFound."""
        return await self._do(resource_calls.change_resource(pool_id, resource_id, changes))

    async def remove_resource(self, pool_id: Id, resource_id: Id) -> None:
        """Take a resource out of its pool. Repeatable. Raises NotFound if it is in another pool."""
        await self._do(resource_calls.remove_resource(pool_id, resource_id))

    # -- limits --------------------------------------------------------------------------------------------------

    async def set_rate_limit(self, resource_key: str, max_count: int, window_seconds: int) -> RateLimit:
        """Allow at most so many starts under a key in any window, whatever its limit was."""
        return await self._do(resource_calls.set_rate_limit(self.tenant, resource_key, max_count, window_seconds))

    async def list_rate_limits(self) -> tuple[RateLimit, ...]:
        """List limits by key; at most 1000."""
        return await self._do(resource_calls.rate_limits())

    async def get_rate_limit(self, resource_key: str) -> RateLimit:
        """Read the limit of a key. Raises NotFound."""
        return await self._do(resource_calls.rate_limit(resource_key))

    async def delete_rate_limit(self, resource_key: str) -> None:
        """Take the limit of a key away. Raises NotFound."""
        await self._do(resource_calls.delete_rate_limit(resource_key))

    # -- breakers ------------------------------------------------------------------------------------------------

    async def list_breakers(self) -> tuple[Breaker, ...]:
        """List the breakers of handlers that have run or were configured, by handler; at most 1000."""
        return await self._do(resource_calls.breakers())

    async def get_breaker(self, handler: str) -> Breaker:
        """Read the breaker of a handler. Raises NotFound if it has never run."""
        return await self._do(resource_calls.breaker(handler))

    async def configure_breaker(
        self, handler: str, *, failure_threshold: int = 5, cooldown_secs: int = 60, on_open: str = "auto"
    ) -> Breaker:
        """Set how the breaker of a handler works; what it has counted stays.

        Args:
            failure_threshold: Failures in a row that open it.
            cooldown_secs: How long it is open.
            on_open: What becomes of steps meanwhile: `auto`, `fail` or `defer`.
        """
        return await self._do(resource_calls.configure_breaker(handler, failure_threshold, cooldown_secs, on_open))

    async def reset_breaker(self, handler: str) -> None:
        """Close the breaker of a handler; an unknown handler is fine."""
        await self._do(resource_calls.reset_breaker(handler))

    # -- published versions --------------------------------------------------------------------------------------

    async def promote(self, name: str, *, namespace: str = DEFAULT_NAME, version: int | None = None) -> Promoted:
        """Bring the newest version of a name that is not deprecated, or the given one, to production.

        Raises:
            NotFound: There is no such version.
            InvalidArgument: It was withdrawn.
        """
        return await self._do(resource_calls.promote(name, self.tenant, namespace, version))

    async def unpublish(self, name: str, *, namespace: str = DEFAULT_NAME, delete: bool = False) -> None:
        """Withdraw all versions of a name; running instances go on.

        Args:
            delete: Delete them and their ended instances as well.

        Raises:
            NotFound: There is none.
            Conflict: One is to be deleted, and instances that have not ended are bound to it.
        """
        await self._do(resource_calls.unpublish(name, namespace, delete=delete))
