"""Every request of the clients: address, body, and how its answer is read. One home for both clients."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from orchestrator.client.forms import part, read_one, read_rows, send, send_blindly
from orchestrator.client.shapes import (
    ApiKey,
    Approval,
    Attempt,
    AuditRow,
    Definition,
    Instance,
    NewApiKey,
    OutputRow,
    Page,
    QueueView,
    Started,
    StoredSequence,
    Task,
    TreeNode,
    Usage,
    WorkerView,
)
from orchestrator.client.transport import Call
from orchestrator.core.states import InstanceState
from orchestrator.errors import InvalidArgument, NotFound
from sequences.signals import HUMAN_INPUT_PREFIX

Id = UUID | str

DEFAULT_NAME = "default"
"""Tenant and namespace of whatever names none."""
LONGEST_PAGE = 1000
BATCH_SIZE = 1000
"""Instances created by one request; the server takes up to 10,000, and 10 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartOptions:
    """How instances are started.

    Attributes:
        config: The section of the context that steps do not change.
        priority: `Low`, `Normal`, `High` or `Critical`.
        timezone: For windows and times of day, such as `Europe/Berlin`.
        metadata: An object to find the instance by.
        not_before: An aware time; None starts at once.
        dry_run: Steps with effects outside are not run.
        concurrency_key: Of the instances with the same key at most `max_concurrency` run at once; kept, but without
            effect in this version.
        budget: Limits that pause the instance, such as `{"max_steps": 1000}`.
    """

    config: Any = None
    priority: str = "Normal"
    timezone: str = "UTC"
    metadata: Mapping[str, Any] | None = None
    not_before: datetime | None = None
    dry_run: bool = False
    concurrency_key: str | None = None
    max_concurrency: int | None = None
    budget: Mapping[str, int] | None = None

    def body(self, data: Any, idempotency_key: str) -> dict[str, Any]:
        """Give the members that all ways of starting share; what is not set is left out."""
        if self.not_before is not None and self.not_before.tzinfo is None:
            raise InvalidArgument("not_before needs a time zone")
        written = {
            "priority": self.priority,
            "timezone": self.timezone,
            "metadata": self.metadata,
            "next_fire_at": self.not_before,
            "dry_run": self.dry_run or None,
            "concurrency_key": self.concurrency_key,
            "max_concurrency": self.max_concurrency,
            "budget": self.budget,
            "idempotency_key": idempotency_key,
        }
        context = {"data": {} if data is None else data, "config": self.config}
        return {"context": context, **{name: value for name, value in written.items() if value is not None}}


def new_key() -> str:
    """Make an idempotency key that nobody else has."""
    return str(uuid4())


def keyed(data: Iterable[Any], keys: Iterable[str] | None) -> list[tuple[str, Any]]:
    """Give each of `data` its idempotency key.

    >>> keyed([{"n": 1}], ["a"])
    [('a', {'n': 1})]

    Raises:
        InvalidArgument: There are not as many keys as data.
    """
    every = list(data)
    each = [new_key() for _ in every] if keys is None else list(keys)
    if len(each) != len(every):
        raise InvalidArgument(f"{len(every)} instances need as many idempotency keys, not {len(each)}")
    return list(zip(each, every, strict=True))


def parts(items: list[Any], size: int = BATCH_SIZE) -> Iterable[list[Any]]:
    """Cut a list.

    >>> list(parts([1, 2, 3], 2))
    [[1, 2], [3]]
    """
    return (items[start : start + size] for start in range(0, len(items), size))


def as_id(text: Id) -> UUID | None:
    """Read an id; None if the text is a name."""
    try:
        return text if isinstance(text, UUID) else UUID(text)
    except ValueError:
        return None


# -- sequences -------------------------------------------------------------------------------------------------------


def create_sequence(document: Mapping[str, Any]) -> Call[StoredSequence]:
    """Store a definition. Shorthand may be sent again: it makes no second version of the same content."""
    is_shorthand = "name" not in document and "version" not in document
    return Call(
        method="POST",
        path="/sequences",
        body=dict(document),
        may_repeat=is_shorthand,
        read=lambda status, body: StoredSequence.model_validate({**body, "is_new": status == 201}),
    )


def sequence(sequence_id: Id) -> Call[Definition]:
    """Read one version."""
    return Call(method="GET", path=f"/sequences/{part(sequence_id)}", read=_definition, may_repeat=True)


def sequence_by_name(name: str, *, tenant: str | None, namespace: str, version: int | None) -> Call[Definition]:
    """Read the newest version that is not deprecated, or the one asked for."""
    query = {"tenant_id": tenant or DEFAULT_NAME, "namespace": namespace, "name": name, "version": version}
    return Call(method="GET", path="/sequences/by-name", query=query, read=_definition, may_repeat=True)


def sequences(*, namespace: str | None, offset: int, limit: int) -> Call[Page[Definition]]:
    """List versions."""
    query = {"namespace": namespace, "offset": offset, "limit": limit}
    return Call(
        method="GET",
        path="/sequences",
        query=query,
        may_repeat=True,
        read=lambda _status, body: Page(
            items=tuple(Definition.of(each) for each in body["items"]), has_more=body["has_more"]
        ),
    )


def versions(name: str, *, tenant: str | None, namespace: str) -> Call[tuple[Definition, ...]]:
    """List the versions of a name that are not deprecated."""
    query = {"tenant_id": tenant or DEFAULT_NAME, "namespace": namespace, "name": name}
    return Call(
        method="GET",
        path="/sequences/versions",
        query=query,
        may_repeat=True,
        read=lambda _status, body: tuple(Definition.of(each) for each in body),
    )


def deprecate(sequence_id: Id) -> Call[None]:
    """Take a version out of look-ups by name."""
    path = f"/sequences/{part(sequence_id)}/deprecate"
    return send_blindly("POST", path, may_repeat=True)


# -- starting --------------------------------------------------------------------------------------------------------


def start_by_name(
    name: str, data: Any, options: StartOptions, *, namespace: str, version: int | None, key: str, is_own_key: bool
) -> Call[Started]:
    """Start an instance of the newest version of a name, or of the version asked for."""
    body = {**options.body(data, key), "namespace": namespace}
    if version is not None:
        body["version"] = version
    path = f"/sequences/{part(name)}/instances"
    return Call(method="POST", path=path, body=body, read=_started(is_own_key), may_repeat=True)


def start_version(
    definition: Definition, data: Any, options: StartOptions, *, key: str, is_own_key: bool
) -> Call[Started]:
    """Start an instance of exactly this version."""
    body = {**options.body(data, key), **_whose(definition)}
    return Call(method="POST", path="/instances", body=body, read=_started(is_own_key), may_repeat=True)


def start_batch(
    definition: Definition, items: Iterable[tuple[str, Any]], options: StartOptions, *, are_own_keys: bool
) -> Call[tuple[Started, ...]]:
    """Start instances of one version, all or none.

    Args:
        items: An idempotency key and the data of each.
    """
    whose = _whose(definition)
    bodies = [{**options.body(data, key), **whose} for key, data in items]

    def read(_status: int, body: Any) -> tuple[Started, ...]:
        known = frozenset() if are_own_keys else frozenset(body["deduplicated"])
        return tuple(Started(id=each, is_duplicate=each in known) for each in body["ids"])

    return Call(
        method="POST",
        path="/instances/batch",
        query={"ids": "true"},
        body={"instances": bodies},
        read=read,
        may_repeat=True,
    )


def _whose(definition: Definition) -> dict[str, Any]:
    return {
        "sequence_id": definition.id,
        "tenant_id": definition.tenant_id,
        "namespace": definition.namespace,
    }


# -- reading instances -----------------------------------------------------------------------------------------------


def instance(instance_id: Id) -> Call[Instance]:
    """Read one instance."""
    return read_one(instance_path(instance_id), Instance)


def instances(
    *,
    states: Iterable[str] | None,
    sequence_id: Id | None,
    namespace: str | None,
    metadata: Mapping[str, str] | None,
    offset: int,
    limit: int,
) -> Call[Page[Instance]]:
    """List instances."""
    query = {
        "state": None if states is None else ",".join(states),
        "sequence_id": None if sequence_id is None else str(sequence_id),
        "namespace": namespace,
        "offset": offset,
        "limit": limit,
        **{f"metadata.{name}": text for name, text in (metadata or {}).items()},
    }
    return Call(
        method="GET",
        path="/instances",
        query=query,
        may_repeat=True,
        read=lambda _status, body: Page(
            items=tuple(Instance.model_validate(each) for each in body["items"]), has_more=body["has_more"]
        ),
    )


def outputs(instance_id: Id) -> Call[tuple[OutputRow, ...]]:
    """Read the outputs of an instance."""
    return read_rows(f"{instance_path(instance_id)}/outputs", OutputRow)


def tree(instance_id: Id) -> Call[tuple[TreeNode, ...]]:
    """Read the state of every block."""
    return read_rows(f"{instance_path(instance_id)}/tree", TreeNode)


def audit(instance_id: Id) -> Call[tuple[AuditRow, ...]]:
    """Read the changes of an instance."""
    return read_rows(f"{instance_path(instance_id)}/audit", AuditRow)


def attempts(instance_id: Id) -> Call[tuple[Attempt, ...]]:
    """Read the executions of its steps."""
    return read_rows(f"{instance_path(instance_id)}/attempts", Attempt)


def newest_output(rows: Iterable[OutputRow], instance_id: Id, block_id: str) -> Any:
    """Pick the newest output of a block; NotFound if it has none."""
    found = [row for row in rows if row.block_id == block_id]
    if not found:
        raise NotFound(f"output of block {block_id!r} in instance {instance_id}")
    return found[-1].output


# -- changing instances ----------------------------------------------------------------------------------------------


def retry(instance_id: Id) -> Call[InstanceState]:
    """Open a failed instance again."""
    path = f"{instance_path(instance_id)}/retry"
    return Call(method="POST", path=path, read=lambda _status, body: InstanceState(body["state"]))


def signal(instance_id: Id, signal_type: str | Mapping[str, str], payload: Any) -> Call[UUID]:
    """Send a signal."""
    return Call(
        method="POST",
        path=f"{instance_path(instance_id)}/signals",
        body={"signal_type": signal_type, "payload": payload},
        read=lambda _status, body: UUID(body["signal_id"]),
    )


def custom(name: str | None) -> str | dict[str, str]:
    """Give the type of a signal for the flow; without a name it answers the gate the flow stands at."""
    return "custom" if name is None else {"custom": name}


def answer(instance_id: Id, block_id: str, value: str, comment: str | None) -> Call[UUID]:
    """Answer a human gate."""
    payload = {"value": value} if comment is None else {"value": value, "comment": comment}
    return signal(instance_id, custom(f"{HUMAN_INPUT_PREFIX}{block_id}"), payload)


# -- operations ------------------------------------------------------------------------------------------------------


def approvals(*, namespace: str | None, offset: int, limit: int) -> Call[tuple[Approval, ...]]:
    """List open human gates."""
    query = {"namespace": namespace, "offset": offset, "limit": limit}
    return Call(
        method="GET",
        path="/approvals",
        query=query,
        may_repeat=True,
        read=lambda _status, body: tuple(Approval.model_validate(each) for each in body["items"]),
    )


def queues() -> Call[tuple[QueueView, ...]]:
    """List queues with open steps or workers."""
    return read_rows("/queues", QueueView)


def workers(*, include_stale: bool) -> Call[tuple[WorkerView, ...]]:
    """List workers."""
    return read_rows("/workers", WorkerView, {"include_stale": "true" if include_stale else None})


def tasks(
    *, state: str | None, queue: str | None, handler: str | None, offset: int, limit: int
) -> Call[tuple[Task, ...]]:
    """List tasks of external workers."""
    query = {"state": state, "queue_name": queue, "handler_name": handler, "offset": offset, "limit": limit}
    return read_rows("/workers/tasks", Task, query)


# -- keys ------------------------------------------------------------------------------------------------------------


def create_key(
    tenant: str | None, *, name: str, capabilities: Iterable[str], expires_at: datetime | None
) -> Call[NewApiKey]:
    """Make a key."""
    if expires_at is not None and expires_at.tzinfo is None:
        raise InvalidArgument("expires_at needs a time zone")
    body = {"tenant_id": tenant or "", "name": name, "capabilities": list(capabilities), "expires_at": expires_at}
    return send("POST", "/api-keys", NewApiKey, body)


def keys(tenant: str | None) -> Call[tuple[ApiKey, ...]]:
    """List the keys of a tenant."""
    return read_rows("/api-keys", ApiKey, {"tenant_id": tenant or ""})


def revoke_key(key_id: str) -> Call[None]:
    """Revoke a key."""
    return send_blindly("DELETE", f"/api-keys/{part(key_id)}", may_repeat=True)


# -- usage -----------------------------------------------------------------------------------------------------------


def usage(tenant: str | None, *, start: datetime | None, end: datetime | None, group_by: str | None) -> Call[Usage]:
    """Sum up what models have used."""
    query = {"tenant": tenant, "start": _moment("start", start), "end": _moment("end", end), "group_by": group_by}
    return read_one("/usage", Usage, query)


# -- parts -----------------------------------------------------------------------------------------------------------


def _moment(name: str, moment: datetime | None) -> str | None:
    if moment is not None and moment.tzinfo is None:
        raise InvalidArgument(f"{name} needs a time zone")
    return None if moment is None else moment.isoformat()


def instance_path(instance_id: Id) -> str:
    """Give the path of an instance; InvalidArgument if that is no id."""
    known = as_id(instance_id)
    if known is None:
        raise InvalidArgument(f"{instance_id!r} is no instance id: those are UUIDs")
    return f"/instances/{known}"


def _definition(_status: int, body: Any) -> Definition:
    return Definition.of(body)


def _started(is_own_key: bool) -> Any:
    """Read a created instance; with a key made here, a duplicate is our own earlier try."""

    def read(_status: int, body: Any) -> Started:
        return Started(id=body["id"], is_duplicate=bool(body.get("deduplicated")) and not is_own_key)

    return read
