"""Methods of both clients about sessions, versions, events, plugins, nodes and the change feed."""

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar

from orchestrator.client.calls import DEFAULT_NAME, Id
from orchestrator.client.course_calls import filter_of
from orchestrator.client.forms import part, read_one, read_rows, read_whole, send, send_blindly, send_counted
from orchestrator.client.registry_calls import (
    Change,
    ChangePage,
    Event,
    EventOutcome,
    EventOutcomes,
    Migrated,
    MigratedMany,
    Node,
    Plugin,
    Session,
)
from orchestrator.client.shapes import Instance
from orchestrator.client.transport import Call

Result = TypeVar("Result")


class RegistryMethods(ABC):
    """Sessions, versions, events, plugins, nodes, the change feed; part of `Client`."""

    tenant: str | None

    @abstractmethod
    def _do(self, call: Call[Result]) -> Result: ...

    # -- sessions ------------------------------------------------------------------------------------------------

    def create_session(self, key: str, data: Any = None, *, expires_at: datetime | None = None) -> Session:
        """Make a session under a key of the tenant's. Raises AlreadyExists, PayloadTooLarge."""
        body = {"tenant_id": self.tenant or DEFAULT_NAME, "session_key": key, "data": data, "expires_at": expires_at}
        return self._do(send("POST", "/sessions", Session, body))

    def get_session(self, session_id: Id) -> Session:
        """Read a session. Raises NotFound."""
        return self._do(read_one(f"/sessions/{part(session_id)}", Session))

    def find_session(self, key: str) -> Session:
        """Read the session of a key. Raises NotFound."""
        return self._do(read_one(f"/sessions/by-key/{part(self.tenant or DEFAULT_NAME)}/{part(key)}", Session))

    def replace_session_data(self, session_id: Id, data: Any) -> None:
        """Put other data in the place of a session's. Raises NotFound, PayloadTooLarge."""
        self._do(send_blindly("PATCH", f"/sessions/{part(session_id)}/data", {"data": data}, may_repeat=True))

    def set_session_state(self, session_id: Id, state: str) -> None:
        """Set a session `active`, `paused`, `completed` or `expired`; only an active one takes new instances."""
        self._do(send_blindly("PATCH", f"/sessions/{part(session_id)}/state", {"state": state}, may_repeat=True))

    def session_instances(self, session_id: Id) -> tuple[Instance, ...]:
        """List the instances of a session. Raises NotFound."""
        return self._do(read_rows(f"/sessions/{part(session_id)}/instances", Instance))

    def cancel_session(self, session_id: Id) -> int:
        """Cancel all instances of a session that have not ended; returns how many. Raises NotFound."""
        return self._do(send_counted("POST", f"/sessions/{part(session_id)}/cancel"))

    # -- versions ------------------------------------------------------------------------------------------------

    def delete_sequence(self, sequence_id: Id) -> None:
        """Delete a version and its ended instances. Raises NotFound, and Conflict while others are bound to it."""
        self._do(send_blindly("DELETE", f"/sequences/{part(sequence_id)}"))

    def set_sequence_status(self, sequence_id: Id, status: str) -> None:
        """Say where a version stands: `draft`, `staging`, `production` or `unpublished`. Raises NotFound."""
        path = f"/sequences/{part(sequence_id)}/status"
        self._do(send_blindly("POST", path, {"status": status}, may_repeat=True))

    def migrate(self, instance_id: Id, target_sequence_id: Id) -> Migrated:
        """Let a living instance go over to another version. Raises InvalidArgument, NotFound."""
        body = {"instance_id": str(instance_id), "target_sequence_id": str(target_sequence_id)}
        return self._do(send("POST", "/sequences/migrate-instance", Migrated, body))

    def migrate_many(
        self,
        target_sequence_id: Id,
        *,
        namespace: str | None = None,
        sequence_id: Id | None = None,
        states: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        dry_run: bool = False,
    ) -> MigratedMany:
        """Let all instances that match go over to another version. Raises NotFound."""
        meant = filter_of(self.tenant, namespace=namespace, sequence_id=sequence_id, states=states, metadata=metadata)
        body = {"filter": meant, "target_sequence_id": str(target_sequence_id), "dry_run": dry_run}
        return self._do(send("POST", "/sequences/migrate-instances", MigratedMany, body))

    def preflight(self, sequence: Id | Mapping[str, Any]) -> dict[str, Any]:
        """Check a stored version by its id, or a definition before it is stored; `overall` is the worst check."""
        if isinstance(sequence, Mapping):
            return self._do(read_whole("POST", "/sequences/preflight", dict(sequence)))
        return self._do(read_whole("GET", f"/sequences/{part(sequence)}/preflight"))

    def dataflow(self, sequence: Id | Mapping[str, Any]) -> dict[str, Any]:
        """Say which block reads what of which, in a stored version by its id, or in a definition."""
        if isinstance(sequence, Mapping):
            return self._do(read_whole("POST", "/sequences/dataflow", dict(sequence)))
        return self._do(read_whole("GET", f"/sequences/{part(sequence)}/dataflow"))

    def inspect_template(self, template: str | Mapping[str, Any]) -> dict[str, Any]:
        """Say what a template, or all those of a definition, refer to."""
        body = dict(template) if isinstance(template, Mapping) else {"template": template}
        return self._do(read_whole("POST", "/sequences/inspect-template", body))

    def debug_template(
        self, template: str, *, data: Any = None, config: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Evaluate a template, and say where each of its expressions had its value from."""
        body = {"template": template, "context_data": data, "context_config": config, "outputs": dict(outputs or {})}
        return self._do(read_whole("POST", "/debug/template", body))

    def language_schema(self) -> dict[str, Any]:
        """Read the JSON Schema of definitions."""
        return self._do(read_whole("GET", "/sequences/schema"))

    # -- events --------------------------------------------------------------------------------------------------

    def publish_event(
        self, name: str, correlation_key: str, producer_event_id: str, payload: Any = None
    ) -> EventOutcome:
        """Publish a correlation event; the same `producer_event_id` is published once."""
        body = {
            "tenant_id": self.tenant or DEFAULT_NAME,
            "event_name": name,
            "correlation_key": correlation_key,
            "producer_event_id": producer_event_id,
            "payload": payload,
        }
        return self._do(send("POST", "/events", EventOutcome, body, may_repeat=True))

    def publish_events(self, events: Sequence[Mapping[str, Any]]) -> tuple[EventOutcome, ...]:
        """Publish at most 100 events: `event_name`, `correlation_key`, `producer_event_id` and `payload` of each."""
        body = {"events": [{"tenant_id": self.tenant or DEFAULT_NAME, **each} for each in events]}
        return self._do(send("POST", "/events/batch", EventOutcomes, body, may_repeat=True)).outcomes

    def list_events(
        self,
        *,
        status: str | None = None,
        name: str | None = None,
        correlation_key: str | None = None,
        limit: int = 100,
    ) -> tuple[Event, ...]:
        """List correlation events."""
        query = {"status": status, "event_name": name, "correlation_key": correlation_key, "limit": limit}
        return self._do(read_rows("/events", Event, {"tenant_id": self.tenant, **query}))

    def get_event(self, event_id: Id) -> Event:
        """Read a correlation event. Raises NotFound."""
        return self._do(read_one(f"/events/{part(event_id)}", Event))

    # -- plugins and nodes ---------------------------------------------------------------------------------------

    def register_plugin(
        self, name: str, plugin_type: str, source: str, *, config: Any = None, description: str | None = None
    ) -> Plugin:
        """Register a plugin, `wasm` or `grpc`. Raises AlreadyExists."""
        body = {
            "name": name,
            "plugin_type": plugin_type,
            "source": source,
            "config": config,
            "description": description,
            "tenant_id": self.tenant,
        }
        return self._do(send("POST", "/plugins", Plugin, body))

    def list_plugins(self) -> tuple[Plugin, ...]:
        """List plugins by name."""
        return self._do(read_rows("/plugins", Plugin))

    def get_plugin(self, name: str) -> Plugin:
        """Read a plugin. Raises NotFound."""
        return self._do(read_one(f"/plugins/{part(name)}", Plugin))

    def change_plugin(self, name: str, changes: Mapping[str, Any]) -> Plugin:
        """Change members of a plugin, such as `{"enabled": False}`. Raises NotFound."""
        return self._do(send("PATCH", f"/plugins/{part(name)}", Plugin, dict(changes), may_repeat=True))

    def remove_plugin(self, name: str) -> None:
        """Take a plugin off the registry. Raises NotFound."""
        self._do(send_blindly("DELETE", f"/plugins/{part(name)}"))

    def nodes(self) -> tuple[Node, ...]:
        """List worker processes by name; needs the root key."""
        return self._do(read_rows("/cluster/nodes", Node))

    def drain_node(self, node_id: Id) -> Node:
        """Let a worker process take no more steps, end those it runs, and stop. Raises NotFound."""
        return self._do(send("POST", f"/cluster/nodes/{part(node_id)}/drain", Node, None, may_repeat=True))

    # -- changes -------------------------------------------------------------------------------------------------

    def list_changes(self, cursor: str | None = None, *, limit: int = 100) -> ChangePage:
        """Read what has happened to all instances of the tenant behind a cursor, the oldest first; at most 1000."""
        query = {"tenant_id": self.tenant, "cursor": cursor, "limit": limit}
        return self._do(read_one("/changes", ChangePage, query))

    def every_change(self, cursor: str | None = None) -> Iterator[Change]:
        """Give what has happened up to now, page by page; what comes later is had by another call."""
        while True:
            page = self.list_changes(cursor, limit=1000)
            yield from page.changes
            if not page.has_more:
                return
            cursor = page.next_cursor


class AsyncRegistryMethods(ABC):
    """Sessions, versions, events, plugins, nodes, the change feed; part of `AsyncClient`."""

    tenant: str | None

    @abstractmethod
    async def _do(self, call: Call[Result]) -> Result: ...

    # -- sessions ------------------------------------------------------------------------------------------------

    async def create_session(self, key: str, data: Any = None, *, expires_at: datetime | None = None) -> Session:
        """Make a session under a key of the tenant's. Raises AlreadyExists, PayloadTooLarge."""
        body = {"tenant_id": self.tenant or DEFAULT_NAME, "session_key": key, "data": data, "expires_at": expires_at}
        return await self._do(send("POST", "/sessions", Session, body))

    async def get_session(self, session_id: Id) -> Session:
        """Read a session. Raises NotFound."""
        return await self._do(read_one(f"/sessions/{part(session_id)}", Session))

    async def find_session(self, key: str) -> Session:
        """Read the session of a key. Raises NotFound."""
        return await self._do(read_one(f"/sessions/by-key/{part(self.tenant or DEFAULT_NAME)}/{part(key)}", Session))

    async def replace_session_data(self, session_id: Id, data: Any) -> None:
        """Put other data in the place of a session's. Raises NotFound, PayloadTooLarge."""
        await self._do(send_blindly("PATCH", f"/sessions/{part(session_id)}/data", {"data": data}, may_repeat=True))

    async def set_session_state(self, session_id: Id, state: str) -> None:
        """Set a session `active`, `paused`, `completed` or `expired`; only an active one takes new instances."""
        await self._do(send_blindly("PATCH", f"/sessions/{part(session_id)}/state", {"state": state}, may_repeat=True))

    async def session_instances(self, session_id: Id) -> tuple[Instance, ...]:
        """List the instances of a session. Raises NotFound."""
        return await self._do(read_rows(f"/sessions/{part(session_id)}/instances", Instance))

    async def cancel_session(self, session_id: Id) -> int:
        """Cancel all instances of a session that have not ended; returns how many. Raises NotFound."""
        return await self._do(send_counted("POST", f"/sessions/{part(session_id)}/cancel"))

    # -- versions ------------------------------------------------------------------------------------------------

    async def delete_sequence(self, sequence_id: Id) -> None:
        """Delete a version and its ended instances. Raises NotFound, and Conflict while others are bound to it."""
        await self._do(send_blindly("DELETE", f"/sequences/{part(sequence_id)}"))

    async def set_sequence_status(self, sequence_id: Id, status: str) -> None:
        """Say where a version stands: `draft`, `staging`, `production` or `unpublished`. Raises NotFound."""
        await self._do(
            send_blindly("POST", f"/sequences/{part(sequence_id)}/status", {"status": status}, may_repeat=True)
        )

    async def migrate(self, instance_id: Id, target_sequence_id: Id) -> Migrated:
        """Let a living instance go over to another version. Raises InvalidArgument, NotFound."""
        body = {"instance_id": str(instance_id), "target_sequence_id": str(target_sequence_id)}
        return await self._do(send("POST", "/sequences/migrate-instance", Migrated, body))

    async def migrate_many(
        self,
        target_sequence_id: Id,
        *,
        namespace: str | None = None,
        sequence_id: Id | None = None,
        states: Sequence[str] | None = None,
        metadata: Mapping[str, str] | None = None,
        dry_run: bool = False,
    ) -> MigratedMany:
        """Let all instances that match go over to another version. Raises NotFound."""
        meant = filter_of(self.tenant, namespace=namespace, sequence_id=sequence_id, states=states, metadata=metadata)
        body = {"filter": meant, "target_sequence_id": str(target_sequence_id), "dry_run": dry_run}
        return await self._do(send("POST", "/sequences/migrate-instances", MigratedMany, body))

    async def preflight(self, sequence: Id | Mapping[str, Any]) -> dict[str, Any]:
        """Check a stored version by its id, or a definition before it is stored; `overall` is the worst check."""
        if isinstance(sequence, Mapping):
            return await self._do(read_whole("POST", "/sequences/preflight", dict(sequence)))
        return await self._do(read_whole("GET", f"/sequences/{part(sequence)}/preflight"))

    async def dataflow(self, sequence: Id | Mapping[str, Any]) -> dict[str, Any]:
        """Say which block reads what of which, in a stored version by its id, or in a definition."""
        if isinstance(sequence, Mapping):
            return await self._do(read_whole("POST", "/sequences/dataflow", dict(sequence)))
        return await self._do(read_whole("GET", f"/sequences/{part(sequence)}/dataflow"))

    async def inspect_template(self, template: str | Mapping[str, Any]) -> dict[str, Any]:
        """Say what a template, or all those of a definition, refer to."""
        body = dict(template) if isinstance(template, Mapping) else {"template": template}
        return await self._do(read_whole("POST", "/sequences/inspect-template", body))

    async def debug_template(
        self, template: str, *, data: Any = None, config: Any = None, outputs: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Evaluate a template, and say where each of its expressions had its value from."""
        body = {"template": template, "context_data": data, "context_config": config, "outputs": dict(outputs or {})}
        return await self._do(read_whole("POST", "/debug/template", body))

    async def language_schema(self) -> dict[str, Any]:
        """Read the JSON Schema of definitions."""
        return await self._do(read_whole("GET", "/sequences/schema"))

    # -- events --------------------------------------------------------------------------------------------------

    async def publish_event(
        self, name: str, correlation_key: str, producer_event_id: str, payload: Any = None
    ) -> EventOutcome:
        """Publish a correlation event; the same `producer_event_id` is published once."""
        body = {
            "tenant_id": self.tenant or DEFAULT_NAME,
            "event_name": name,
            "correlation_key": correlation_key,
            "producer_event_id": producer_event_id,
            "payload": payload,
        }
        return await self._do(send("POST", "/events", EventOutcome, body, may_repeat=True))

    async def publish_events(self, events: Sequence[Mapping[str, Any]]) -> tuple[EventOutcome, ...]:
        """Publish at most 100 events: `event_name`, `correlation_key`, `producer_event_id` and `payload` of each."""
        body = {"events": [{"tenant_id": self.tenant or DEFAULT_NAME, **each} for each in events]}
        return (await self._do(send("POST", "/events/batch", EventOutcomes, body, may_repeat=True))).outcomes

    async def list_events(
        self,
        *,
        status: str | None = None,
        name: str | None = None,
        correlation_key: str | None = None,
        limit: int = 100,
    ) -> tuple[Event, ...]:
        """List correlation events."""
        query = {"status": status, "event_name": name, "correlation_key": correlation_key, "limit": limit}
        return await self._do(read_rows("/events", Event, {"tenant_id": self.tenant, **query}))

    async def get_event(self, event_id: Id) -> Event:
        """Read a correlation event. Raises NotFound."""
        return await self._do(read_one(f"/events/{part(event_id)}", Event))

    # -- plugins and nodes ---------------------------------------------------------------------------------------

    async def register_plugin(
        self, name: str, plugin_type: str, source: str, *, config: Any = None, description: str | None = None
    ) -> Plugin:
        """Register a plugin, `wasm` or `grpc`. Raises AlreadyExists."""
        body = {
            "name": name,
            "plugin_type": plugin_type,
            "source": source,
            "config": config,
            "description": description,
            "tenant_id": self.tenant,
        }
        return await self._do(send("POST", "/plugins", Plugin, body))

    async def list_plugins(self) -> tuple[Plugin, ...]:
        """List plugins by name."""
        return await self._do(read_rows("/plugins", Plugin))

    async def get_plugin(self, name: str) -> Plugin:
        """Read a plugin. Raises NotFound."""
        return await self._do(read_one(f"/plugins/{part(name)}", Plugin))

    async def change_plugin(self, name: str, changes: Mapping[str, Any]) -> Plugin:
        """Change members of a plugin, such as `{"enabled": False}`. Raises NotFound."""
        return await self._do(send("PATCH", f"/plugins/{part(name)}", Plugin, dict(changes), may_repeat=True))

    async def remove_plugin(self, name: str) -> None:
        """Take a plugin off the registry. Raises NotFound."""
        await self._do(send_blindly("DELETE", f"/plugins/{part(name)}"))

    async def nodes(self) -> tuple[Node, ...]:
        """List worker processes by name; needs the root key."""
        return await self._do(read_rows("/cluster/nodes", Node))

    async def drain_node(self, node_id: Id) -> Node:
        """Let a worker process take no more steps, end those it runs, and stop. Raises NotFound."""
        return await self._do(send("POST", f"/cluster/nodes/{part(node_id)}/drain", Node, None, may_repeat=True))

    # -- changes -------------------------------------------------------------------------------------------------

    async def list_changes(self, cursor: str | None = None, *, limit: int = 100) -> ChangePage:
        """Read what has happened to all instances of the tenant behind a cursor, the oldest first; at most 1000."""
        query = {"tenant_id": self.tenant, "cursor": cursor, "limit": limit}
        return await self._do(read_one("/changes", ChangePage, query))

    async def every_change(self, cursor: str | None = None) -> AsyncIterator[Change]:
        """Give what has happened up to now, page by page; what comes later is had by another call."""
        while True:
            page = await self.list_changes(cursor, limit=1000)
            for each in page.changes:
                yield each
            if not page.has_more:
                return
            cursor = page.next_cursor
