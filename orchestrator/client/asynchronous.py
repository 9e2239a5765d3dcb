"""The client for async code."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

import httpx

from orchestrator.client import calls, credential_calls
from orchestrator.client.calls import Id, StartOptions
from orchestrator.client.course_methods import AsyncCourseMethods
from orchestrator.client.credential_calls import Credential, Renewal
from orchestrator.client.delivery_methods import AsyncDeliveryMethods
from orchestrator.client.diagnosis_methods import AsyncDiagnosisMethods
from orchestrator.client.following import AsyncFollowingMethods
from orchestrator.client.registry_methods import AsyncRegistryMethods
from orchestrator.client.resource_methods import AsyncResourceMethods
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
from orchestrator.client.starting_methods import AsyncStartingMethods
from orchestrator.client.task_methods import AsyncTaskMethods
from orchestrator.client.transport import Call, Patience, Tries, http_options, result_of
from orchestrator.client.waiting import Watch
from orchestrator.core.states import InstanceState
from orchestrator.errors import ServerUnavailable

Result = TypeVar("Result")


class AsyncClient(
    AsyncResourceMethods,
    AsyncStartingMethods,
    AsyncDeliveryMethods,
    AsyncDiagnosisMethods,
    AsyncFollowingMethods,
    AsyncCourseMethods,
    AsyncRegistryMethods,
    AsyncTaskMethods,
):
    """Talks to a server from one event loop; the methods and errors are those of `Client`.

    Every method raises the errors of `orchestrator.errors`: `NotFound`, `InvalidArgument`, `Conflict` and the other
    kinds of `RequestError` when the server refuses, `NotAuthorized` for a wrong key, `ServerUnavailable` when it cannot
    be reached after several tries, `ServerFault` when it has failed.

    Args:
        url: Where the server is, such as `http://127.0.0.1:8080`.
        api_key: Root or tenant key; None for a server without keys.
        tenant: Whose things are meant; None for the tenant of the key, or a server that does not ask.
        timeout: Seconds one request may take.
        patience: How often requests are tried.
        transport: Replaces the network, for tests.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        tenant: str | None = None,
        *,
        timeout: float = 30.0,
        patience: Patience | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url.rstrip("/")
        self.tenant = tenant
        self._patience = patience or Patience()
        self._http = httpx.AsyncClient(**http_options(self.url, api_key, tenant, timeout), transport=transport)

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    # -- sequences -----------------------------------------------------------------------------------------------

    async def create_sequence(self, document: Mapping[str, Any]) -> StoredSequence:
        """Store a definition, canonical or shorthand.

        Shorthand (no `name`, no `version`) that says what its newest version says is not stored again.

        Raises:
            InvalidArgument: It breaks a rule of the language; the message names the block.
            Unprocessable: It does not have the shape of the language.
            AlreadyExists: Its id, or its name and version, are taken.
        """
        return await self._do(calls.create_sequence(document))

    async def get_sequence(
        self, name_or_id: Id, *, namespace: str = calls.DEFAULT_NAME, version: int | None = None
    ) -> Definition:
        """Read a version by id; or the newest, or the given, version of a name. Raises NotFound."""
        known = calls.as_id(name_or_id)
        if known is not None:
            return await self._do(calls.sequence(known))
        call = calls.sequence_by_name(str(name_or_id), tenant=self.tenant, namespace=namespace, version=version)
        return await self._do(call)

    async def list_sequences(
        self, *, namespace: str | None = None, offset: int = 0, limit: int = 200
    ) -> Page[Definition]:
        """List versions by tenant, namespace and name, the highest version of a name first; at most 1000."""
        return await self._do(calls.sequences(namespace=namespace, offset=offset, limit=limit))

    async def versions(self, name: str, *, namespace: str = calls.DEFAULT_NAME) -> tuple[Definition, ...]:
        """List the versions of a name that are not deprecated, the highest first; empty for an unknown name."""
        return await self._do(calls.versions(name, tenant=self.tenant, namespace=namespace))

    async def deprecate(self, sequence_id: Id) -> None:
        """Let no new instance use a version; running ones go on. Repeatable. Raises NotFound."""
        await self._do(calls.deprecate(sequence_id))

    # -- starting ------------------------------------------------------------------------------------------------

    async def start(
        self,
        sequence: Id,
        data: Any = None,
        *,
        namespace: str = calls.DEFAULT_NAME,
        version: int | None = None,
        idempotency_key: str | None = None,
        options: StartOptions | None = None,
    ) -> Started:
        """Start an instance.

        Without an `idempotency_key` one is made, so that a request repeated after a lost connection starts nothing
        twice. With one, every call with the same key gives the id of the first instance, whatever its state.

        Args:
            sequence: A name, for its newest version that is not deprecated; or the id of exactly one version.
            data: The first `context.data`; anything JSON can say, times and ids included. None is `{}`.
            version: Of a name; None for the newest.

        Raises:
            NotFound: There is no such sequence.
            Unprocessable: The data do not fit the sequence's `input_schema`; the message says where.
            PayloadTooLarge: The data are larger than 256 KiB.
            Conflict: The version is deprecated.
        """
        options = options or StartOptions()
        key = idempotency_key or calls.new_key()
        is_own_key = idempotency_key is None
        if calls.as_id(sequence) is not None:
            definition = await self.get_sequence(sequence)
            return await self._do(calls.start_version(definition, data, options, key=key, is_own_key=is_own_key))
        return await self._do(
            calls.start_by_name(
                str(sequence),
                data,
                options,
                namespace=namespace,
                version=version,
                key=key,
                is_own_key=is_own_key,
            )
        )

    async def start_many(
        self,
        sequence: Id,
        data: Iterable[Any],
        *,
        namespace: str = calls.DEFAULT_NAME,
        version: int | None = None,
        idempotency_keys: Sequence[str] | None = None,
        options: StartOptions | None = None,
    ) -> tuple[Started, ...]:
        """Start one instance for each of `data`, a thousand at a time; returns them in the same order.

        Each thousand is started whole or not at all. If one of them is refused, those before it have been started:
        calling again with the same `idempotency_keys` starts the rest and nothing twice.

        Args:
            idempotency_keys: One for each of `data`; made when not given.

        Raises:
            InvalidArgument: There are not as many keys as data.
            RequestError: As `start`; the message names the position within its thousand.
        """
        items = calls.keyed(data, idempotency_keys)
        definition = await self.get_sequence(sequence, namespace=namespace, version=version)
        started: list[Started] = []
        for part in calls.parts(items):
            call = calls.start_batch(definition, part, options or StartOptions(), are_own_keys=idempotency_keys is None)
            batch = await self._do(call)
            started.extend(batch)
        return tuple(started)

    # -- reading -------------------------------------------------------------------------------------------------

    async def get(self, instance_id: Id) -> Instance:
        """Read one instance. Raises NotFound."""
        return await self._do(calls.instance(instance_id))

    async def list(
        self,
        *,
        states: Iterable[str] | None = None,
        sequence_id: Id | None = None,
        namespace: str | None = None,
        metadata: Mapping[str, str] | None = None,
        offset: int = 0,
        limit: int = 100,
    ) -> Page[Instance]:
        """List instances, the newest change first; at most 1000. All that is given has to match."""
        call = calls.instances(
            states=states, sequence_id=sequence_id, namespace=namespace, metadata=metadata, offset=offset, limit=limit
        )
        return await self._do(call)

    async def every(
        self,
        *,
        states: Iterable[str] | None = None,
        sequence_id: Id | None = None,
        namespace: str | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> AsyncIterator[Instance]:
        """Give all instances that match, page by page, each once; what changes meanwhile may be left out."""
        seen: set[UUID] = set()
        offset, wanted = 0, None if states is None else tuple(states)
        while True:
            page = await self.list(
                states=wanted,
                sequence_id=sequence_id,
                namespace=namespace,
                metadata=metadata,
                offset=offset,
                limit=calls.LONGEST_PAGE,
            )
            for each in page.items:
                if each.id not in seen:
                    seen.add(each.id)
                    yield each
            if not page.has_more:
                return
            offset += len(page.items)

    async def every_sequence(self, *, namespace: str | None = None) -> AsyncIterator[Definition]:
        """Give all versions, page by page."""
        offset = 0
        while True:
            page = await self.list_sequences(namespace=namespace, offset=offset, limit=calls.LONGEST_PAGE)
            for each in page.items:
                yield each
            if not page.has_more:
                return
            offset += len(page.items)

    async def outputs(self, instance_id: Id) -> tuple[OutputRow, ...]:
        """Read the outputs of an instance in the order they were stored. Raises NotFound."""
        return await self._do(calls.outputs(instance_id))

    async def output(self, instance_id: Id, block_id: str) -> Any:
        """Read the newest output of one block. Raises NotFound if the instance, or an output, does not exist."""
        return calls.newest_output(await self.outputs(instance_id), instance_id, block_id)

    async def tree(self, instance_id: Id) -> tuple[TreeNode, ...]:
        """Read the state of every block. Raises NotFound."""
        return await self._do(calls.tree(instance_id))

    async def audit(self, instance_id: Id) -> tuple[AuditRow, ...]:
        """Read the last 200 changes of an instance, the newest first. Raises NotFound."""
        return await self._do(calls.audit(instance_id))

    async def attempts(self, instance_id: Id) -> tuple[Attempt, ...]:
        """Read every execution of its steps, failed and lost ones too, in the order they ended. Raises NotFound."""
        return await self._do(calls.attempts(instance_id))

    async def wait(
        self,
        instance_id: Id,
        timeout: float | None = None,
        *,
        watch: Callable[[Instance], None] | None = None,
    ) -> Instance:
        """Wait until an instance has ended, or was parked for a human; returns it, whatever its state.

        It is looked at after 50 ms, then less and less often, at last every two seconds. A server that is away for
        less than a minute is waited for.

        Args:
            timeout: Seconds; None waits for as long as it takes.
            watch: Called with what each look has shown.

        Raises:
            WaitTimedOut: The time is over; the instance goes on.
            NotFound: There is no such instance.
        """
        look = Watch(instance_id, timeout)
        while True:
            try:
                instance = await self.get(instance_id)
            except ServerUnavailable as error:
                await asyncio.sleep(look.after_outage(error))
                continue
            if watch is not None:
                watch(instance)
            pause = look.after(instance)
            if pause is None:
                return instance
            await asyncio.sleep(pause)

    # -- changing ------------------------------------------------------------------------------------------------

    async def retry(self, instance_id: Id) -> InstanceState:
        """Open a failed instance again at its failed step; returns its state. InvalidArgument if it has not failed."""
        return await self._do(calls.retry(instance_id))

    async def signal(self, instance_id: Id, name: str | None = None, payload: Any = None) -> UUID:
        """Send a signal to the flow; returns the signal's id. It is kept until the flow asks for it.

        A signal is not sent again after a lost connection: `ServerUnavailable.may_be_done` says that it may have come.

        Args:
            name: Of the signal; None answers the gate the flow stands at.

        Raises:
            NotFound: There is no such instance.
            InvalidArgument: It has ended, or a nameless signal fits several gates.
        """
        return await self._do(calls.signal(instance_id, calls.custom(name), payload))

    async def pause(self, instance_id: Id) -> UUID:
        """Let no new step begin; those that run end. Raises InvalidArgument if the instance has ended."""
        return await self._do(calls.signal(instance_id, "pause", None))

    async def resume(self, instance_id: Id) -> UUID:
        """Let a paused instance go on. Raises InvalidArgument if it has ended."""
        return await self._do(calls.signal(instance_id, "resume", None))

    async def cancel(self, instance_id: Id) -> UUID:
        """End an instance early, with its `on_cancel` blocks. Raises InvalidArgument if it has ended."""
        return await self._do(calls.signal(instance_id, "cancel", None))

    async def update_data(self, instance_id: Id, data: Mapping[str, Any]) -> UUID:
        """Merge members into `context.data`. Raises InvalidArgument if the instance has ended."""
        return await self._do(calls.signal(instance_id, "update_context", {"data": dict(data)}))

    # -- operations ----------------------------------------------------------------------------------------------

    async def approvals(
        self, *, namespace: str | None = None, offset: int = 0, limit: int = 100
    ) -> tuple[Approval, ...]:
        """List open human gates, the most recently changed first; at most 1000."""
        return await self._do(calls.approvals(namespace=namespace, offset=offset, limit=limit))

    async def answer(self, instance_id: Id, block_id: str, value: str, comment: str | None = None) -> UUID:
        """Answer a human gate. A value that is none of its choices is ignored by the engine: see `approvals`.

        An answer that comes before its gate is open is kept for it.
        """
        return await self._do(calls.answer(instance_id, block_id, value, comment))

    async def queues(self) -> tuple[QueueView, ...]:
        """List queues with open steps or living workers."""
        return await self._do(calls.queues())

    async def workers(self, *, include_stale: bool = False) -> tuple[WorkerView, ...]:
        """List living workers, or all that have been heard of."""
        return await self._do(calls.workers(include_stale=include_stale))

    async def tasks(
        self,
        *,
        state: str | None = None,
        queue: str | None = None,
        handler: str | None = None,
        offset: int = 0,
        limit: int = 50,
    ) -> tuple[Task, ...]:
        """List tasks of external workers, the newest first; at most 1000."""
        call = calls.tasks(state=state, queue=queue, handler=handler, offset=offset, limit=limit)
        return await self._do(call)

    # -- keys ----------------------------------------------------------------------------------------------------

    async def create_key(
        self, *, name: str = "", capabilities: Iterable[str] = (), expires_at: datetime | None = None
    ) -> NewApiKey:
        """Make a key of this client's tenant; needs the root key. Its secret is in the answer and nowhere else.

        If the answer was lost it is not asked for again: find the key that nobody knows by `list_keys`, and revoke it.

        Args:
            capabilities: Of `operator`, `worker`, `publisher`, `approver`, `auditor`; none is `operator`.
            expires_at: An aware time from when on it opens nothing; None for never.

        Raises:
            Forbidden: This client's key is not the root key.
            Unprocessable: There is no such capability.
        """
        call = calls.create_key(self.tenant, name=name, capabilities=capabilities, expires_at=expires_at)
        return await self._do(call)

    async def list_keys(self) -> tuple[ApiKey, ...]:
        """List the keys of this client's tenant, the newest first, revoked ones too; needs the root key."""
        return await self._do(calls.keys(self.tenant))

    async def revoke_key(self, key_id: str) -> None:
        """Let a key open nothing from now on; needs the root key. Repeatable. Raises NotFound."""
        await self._do(calls.revoke_key(key_id))

    # -- credentials ---------------------------------------------------------------------------------------------

    async def create_credential(
        self,
        credential_id: str,
        value: str,
        *,
        name: str | None = None,
        kind: str = "api_key",
        expires_at: datetime | None = None,
        renewal: Renewal | None = None,
        description: str | None = None,
    ) -> Credential:
        """Store a secret; steps name it as `credentials://<id>`, and nobody can read it again.

        Args:
            value: JSON text, whose fields can be named as `credentials://<id>/<field>`, or any text.
            name: For people; the id if not given.
            kind: `api_key`, `oauth2` or `basic`.
            renewal: How an `oauth2` credential is renewed before it expires.

        Raises:
            AlreadyExists: Somebody has a credential of that id, maybe another tenant.
        """
        call = credential_calls.create(
            credential_id,
            value,
            name=name,
            kind=kind,
            expires_at=expires_at,
            renewal=renewal,
            description=description,
        )
        return await self._do(call)

    async def credential(self, credential_id: str) -> Credential:
        """Read what is known of a credential beside its secrets."""
        return await self._do(credential_calls.one(credential_id))

    async def credentials(self, *, limit: int = 1000) -> tuple[Credential, ...]:
        """List credentials by id; at most 1000."""
        return await self._do(credential_calls.every(limit=limit))

    async def change_credential(self, credential_id: str, changes: Mapping[str, Any]) -> Credential:
        """Change members of a credential, such as `value` or `enabled`; what is not named stays."""
        return await self._do(credential_calls.change(credential_id, changes))

    async def delete_credential(self, credential_id: str) -> None:
        """Remove a credential; steps that name it fail from then on."""
        await self._do(credential_calls.delete(credential_id))

    # -- usage ---------------------------------------------------------------------------------------------------

    async def usage(
        self, *, start: datetime | None = None, end: datetime | None = None, group_by: str | None = None
    ) -> Usage:
        """Sum up the tokens that models have used for this client's tenant, with an estimate of their cost.

        Args:
            start: An aware time; None for 30 days before the end.
            end: An aware time; None for now.
            group_by: `step`, `instance`, `sequence` or `provider` adds sums for each of them, the largest first.
        """
        return await self._do(calls.usage(self.tenant, start=start, end=end, group_by=group_by))

    # -- travelling ----------------------------------------------------------------------------------------------

    async def _do(self, call: Call[Result]) -> Result:
        arguments = call.arguments()
        tries = Tries(call, self._patience, self.url)
        while True:
            try:
                response = await self._http.request(**arguments)
            except httpx.TransportError as error:
                pause: float | None = tries.after_error(error)
            else:
                pause = tries.after_answer(response)
                if pause is None:
                    return result_of(call, response)
            await asyncio.sleep(pause or 0.0)
