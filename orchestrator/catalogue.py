"""The door for sequences: storing definitions, finding them, retiring them (sequences contract §1, §2, §16)."""

import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from random import Random
from typing import Any, Final
from uuid import UUID

from orchestrator.core.ids import IdMaker
from orchestrator.core.steps import runs_in_process
from orchestrator.drafts import read_definition
from orchestrator.errors import AlreadyExists, Conflict, InvalidArgument, NotFound
from orchestrator.store import definitions, removal
from orchestrator.store.definitions import StoredDefinition
from orchestrator.store.session import Store, Transaction, patiently
from sequences.document import (
    Block,
    DocumentError,
    SequenceDefinition,
    Step,
    parse_blocks,
    to_document,
    walk,
)
from sequences.shorthand import fingerprint, is_shorthand
from sequences.validation import validate, validate_blocks

BLOCK_MEMBERS_WITHOUT_EFFECT: Final = (
    "rate_limit_key",
    "rate_limit",
    "resource_pool",
    "fallback_handler",
)

STATUS_MOVES: Final = {
    "draft": frozenset({"staging", "unpublished"}),
    "staging": frozenset({"production", "unpublished"}),
    "production": frozenset({"unpublished"}),
}

MAX_NAME_BYTES: Final = 255
MAX_LONG_NAME_BYTES: Final = 1024
"""1 KiB for sequence names and block ids: they stand in indexes, whose rows PostgreSQL limits to 2.7 KB."""

_REMOVING_SECONDS: Final = 5.0
"""How long a request removes the instances of a deleted version; what is left then is the reconciler's."""
_TRIES: Final = 20
_MAX_VERSION: Final = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A stored definition; not new when a shorthand document said nothing new."""

    id: UUID
    warnings: tuple[str, ...] = ()
    is_new: bool = True


class Catalogue:
    """Stored sequences. Synchronous; safe to use from several threads.

    A `tenant` argument is the scope of the caller: None sees all tenants. What is changed by its id is looked up
    first in a transaction that reads for the tenant alone.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._new_id = IdMaker(Random())  # noqa: S311 - ids, not secrets

    def create(self, data: Any, *, tenant: str | None) -> Accepted:
        """Check a posted document, canonical or shorthand, and store it.

        Raises:
            DocumentError: It does not have the shape of the language.
            InvalidArgument: It breaks a rule.
            Forbidden: It names another tenant.
            AlreadyExists: Its id, or its name and version, are taken.
        """
        definition = read_definition(data, tenant=tenant, now=datetime.now(UTC), new_id=self._id())
        warnings = check(definition)
        if is_shorthand(data):
            return self._store_next_version(definition, warnings)
        with self._store.transaction() as tx:
            stored = stored_form(definition)
            if not definitions.insert(tx, stored):
                raise AlreadyExists(_taken(tx, definition))
            # Asked after the insertion, which has waited for a deletion that is under way.
            if removal.is_taken(tx, stored.id, stored.content_hash):
                raise AlreadyExists(f"sequence {stored.id}: the id has stood for another content")
        return Accepted(id=definition.id, warnings=warnings)

    def _store_next_version(self, definition: SequenceDefinition, warnings: tuple[str, ...]) -> Accepted:
        """Store shorthand as the next version of its name, unless it says just what the newest version says."""
        name = (definition.tenant_id, definition.namespace, definition.name)
        stored = stored_form(definition)
        for _ in range(_TRIES):
            with self._store.transaction() as tx:
                newest = definitions.newest(tx, *name)
                if newest is not None and newest.content_hash == stored.content_hash:
                    return Accepted(id=newest.id, warnings=warnings, is_new=False)
                version = definitions.highest_version(tx, *name) + 1
                if version > _MAX_VERSION:
                    raise Conflict(f"sequence {definition.name!r} has no version numbers left")
                numbered = replace(stored, version=version, document={**stored.document, "version": version})
                if definitions.insert(tx, numbered):
                    return Accepted(id=definition.id, warnings=warnings)
        raise Conflict(f"sequence {definition.name!r} is being changed by others, try again")

    def get(self, sequence_id: UUID, *, tenant: str | None) -> StoredDefinition:
        """Read one version by id, deprecated or not; NotFound if the caller has none."""
        with self._store.reading(tenant) as tx:
            found = definitions.get(tx, sequence_id, tenant)
        if found is None:
            raise NotFound(f"sequence {sequence_id}")
        return found

    def by_name(self, tenant_id: str, namespace: str, name: str, version: int | None = None) -> StoredDefinition:
        """Read the highest version that is not deprecated, or exactly the one asked for."""
        with self._store.reading(tenant_id) as tx:
            found = definitions.newest(tx, tenant_id, namespace, name, version=version)
        if found is None:
            raise NotFound(f"sequence {name}" + ("" if version is None else f" version {version}"))
        return found

    def startable(
        self, name_or_id: str, *, tenant: str | None, tenant_id: str, namespace: str, version: int | None
    ) -> StoredDefinition:
        """Find the version to start for a name, or for the id of any version of it."""
        known = self._by_id_text(name_or_id, tenant)
        if known is None:
            return self.by_name(tenant_id, namespace, name_or_id, version)
        return self.by_name(known.tenant_id, known.namespace, known.name, version)

    def _by_id_text(self, text: str, tenant: str | None) -> StoredDefinition | None:
        try:
            sequence_id = UUID(text)
        except ValueError:
            return None
        with self._store.reading(tenant) as tx:
            return definitions.get(tx, sequence_id, tenant)

    def versions(self, tenant_id: str, namespace: str, name: str) -> list[StoredDefinition]:
        """Read the versions that are not deprecated, highest first."""
        with self._store.reading(tenant_id) as tx:
            return [found for found in definitions.versions(tx, tenant_id, namespace, name) if not found.deprecated]

    def find(self, *, tenant: str | None, namespace: str | None, offset: int, limit: int) -> list[StoredDefinition]:
        """List versions by tenant, namespace and name, the highest of a name first."""
        with self._store.reading(tenant) as tx:
            return definitions.find(tx, tenant_id=tenant, namespace=namespace, offset=offset, limit=limit)

    def deprecate(self, sequence_id: UUID, *, tenant: str | None) -> None:
        """Take a version out of look-ups by name; running instances go on. Repeatable."""
        self.get(sequence_id, tenant=tenant)
        with self._store.transaction() as tx:
            if definitions.get(tx, sequence_id, tenant) is None or not definitions.deprecate(tx, sequence_id):
                raise NotFound(f"sequence {sequence_id}")

    def missing(self, tenant_id: str, namespace: str, names: Iterable[tuple[str, int | None]]) -> list[str]:
        """Tell which names, or versions of names, nothing is stored under."""
        with self._store.reading(tenant_id) as tx:
            return [
                name if version is None else f"{name} version {version}"
                for name, version in names
                if definitions.newest(tx, tenant_id, namespace, name, version=version) is None
            ]

    def delete(self, sequence_id: UUID, *, tenant: str | None) -> None:
        """Delete a version and its ended instances: the version at once, of many instances a part later.

        Raises:
            NotFound: The caller has no such version.
            Conflict: Instances that have not ended are bound to it.
        """
        self.get(sequence_id, tenant=tenant)
        patiently(lambda: self._remove(sequence_id, tenant))
        until = time.monotonic() + _REMOVING_SECONDS
        while time.monotonic() < until and patiently(lambda: self._remove_instances(sequence_id)):
            pass

    def _remove(self, sequence_id: UUID, tenant: str | None) -> None:
        with self._store.transaction() as tx:
            if definitions.get(tx, sequence_id, tenant) is None or not removal.remove_sequence(tx, sequence_id):
                raise NotFound(f"sequence {sequence_id}")
            _check_unused(tx, sequence_id)

    def _remove_instances(self, sequence_id: UUID) -> int:
        with self._store.transaction() as tx:
            return removal.remove_of_deleted(tx, sequence_id)

    def set_status(self, sequence_id: UUID, status: str, *, tenant: str | None) -> None:
        """Move a version on; only the moves of `STATUS_MOVES` are allowed.

        Raises:
            NotFound: The caller has no such version.
            InvalidArgument: The move is not allowed.
        """
        self.get(sequence_id, tenant=tenant)
        with self._store.transaction() as tx:
            found = definitions.get(tx, sequence_id, tenant)
            if found is None:
                raise NotFound(f"sequence {sequence_id}")
            former = found.document["status"]
            if status not in STATUS_MOVES.get(former, frozenset()):
                raise InvalidArgument(f"cannot move a sequence from {former} to {status}")
            definitions.set_status(tx, sequence_id, status)

    def promote(self, name: str, *, tenant_id: str, namespace: str, version: int | None) -> StoredDefinition:
        """Bring the newest version of a name that is not deprecated, or the given one, to production.

        Raises:
            NotFound: There is no such version.
            InvalidArgument: It was withdrawn.
        """
        with self._store.transaction() as tx:
            found = definitions.newest(tx, tenant_id, namespace, name, version=version)
            if found is None:
                raise NotFound(f"sequence {name}" + ("" if version is None else f" version {version}"))
            if found.document["status"] == "unpublished":
                raise InvalidArgument("cannot move a sequence from unpublished to production")
            definitions.set_status(tx, found.id, "production")
        return found

    def unpublish(self, name: str, *, tenant_id: str, namespace: str, delete: bool) -> None:
        """Withdraw all versions of a name; with `delete` they are deleted as by `delete`. Repeatable.

        Raises:
            NotFound: There is none.
            Conflict: One is to be deleted, and instances that have not ended are bound to it.
        """
        with self._store.transaction() as tx:
            found = definitions.versions(tx, tenant_id, namespace, name)
            if not found:
                raise NotFound(f"sequence {name}")
            for each in found:
                if delete:
                    _check_unused(tx, each.id)
                definitions.set_status(tx, each.id, "unpublished")
        for each in found if delete else ():
            with suppress(NotFound):
                self.delete(each.id, tenant=tenant_id)

    def _id(self) -> UUID:
        return self._new_id(datetime.now(UTC))


def check(definition: SequenceDefinition) -> tuple[str, ...]:
    """Refuse a definition that breaks a rule; returns the warnings about one that does not."""
    report = validate(definition)
    problem = report.first_error or next(_problems_of_this_version(definition), None)
    if problem is not None:
        raise InvalidArgument(problem)
    return (*report.warnings, *_members_without_effect(definition))


def check_name(what: str, written: str) -> None:
    """Refuse a name that is blank or too long to stand in an index."""
    if not written.strip():
        raise InvalidArgument(f"{what} must not be empty")
    if len(written.encode()) > MAX_NAME_BYTES:
        raise InvalidArgument(f"{what} is longer than {MAX_NAME_BYTES} bytes")


def check_blocks(data: Any) -> tuple[Block, ...]:
    """Read blocks to be injected from decoded JSON, under the rules of a definition.

    Raises:
        InvalidArgument: They do not have the shape of blocks, or break a rule.
    """
    try:
        blocks = parse_blocks(data)
    except DocumentError as error:
        raise InvalidArgument(str(error)) from error
    problem = next((problem.text for problem in validate_blocks(blocks)), None)
    problem = problem or next((text for block in walk(blocks) for text in _problems_of_block(block)), None)
    if problem is not None:
        raise InvalidArgument(problem)
    return blocks


def problems_of(definition: SequenceDefinition) -> tuple[str, ...]:
    """Name every rule a definition breaks; one without problems can be stored."""
    broken = tuple(problem.text for problem in validate(definition).problems)
    return broken or tuple(_problems_of_this_version(definition))


def stored_form(definition: SequenceDefinition) -> StoredDefinition:
    """Give the row of a definition: its canonical document and the hash of what it does."""
    return StoredDefinition(
        id=definition.id,
        tenant_id=definition.tenant_id,
        namespace=definition.namespace,
        name=definition.name,
        version=definition.version,
        deprecated=definition.deprecated,
        document=to_document(definition),
        content_hash=fingerprint(definition),
    )


def _members_without_effect(definition: SequenceDefinition) -> Iterator[str]:
    """Warn of what is kept and given back, but does not change how this version runs an instance."""
    for block in walk(definition.blocks):
        for member in BLOCK_MEMBERS_WITHOUT_EFFECT:
            if getattr(block, member, None):
                yield f"block `{block.id}`: `{member}` has no effect in this version"


def _problems_of_this_version(definition: SequenceDefinition) -> Iterator[str]:
    for member in ("tenant_id", "namespace"):
        if len(getattr(definition, member).encode()) > MAX_NAME_BYTES:
            yield f"{member} is longer than {MAX_NAME_BYTES} bytes"
    if len(definition.name.encode()) > MAX_LONG_NAME_BYTES:
        yield f"name is longer than {MAX_LONG_NAME_BYTES} bytes"
    for tree in (definition.blocks, definition.on_failure or (), definition.on_cancel or ()):
        for block in walk(tree):
            yield from _problems_of_block(block)


def _problems_of_block(block: Block) -> Iterator[str]:
    if len(block.id.encode()) > MAX_LONG_NAME_BYTES:
        yield f"block `{block.id[:40]}…`: block id is longer than {MAX_LONG_NAME_BYTES} bytes"
    queue_name = getattr(block, "queue_name", None)
    if queue_name is not None and len(queue_name.encode()) > MAX_NAME_BYTES:
        yield f"block `{block.id}`: queue_name is longer than {MAX_NAME_BYTES} bytes"
    handler = block.handler if isinstance(block, Step) else ""
    if len(handler.encode()) > MAX_LONG_NAME_BYTES and not runs_in_process(handler):
        yield f"block `{block.id}`: handler name is longer than {MAX_LONG_NAME_BYTES} bytes"


def _check_unused(tx: Transaction, sequence_id: UUID) -> None:
    active = removal.count_open(tx, sequence_id)
    if active:
        reason = f"{active} active instance(s) still reference it"
        raise Conflict(f"cannot delete sequence {sequence_id}: {reason}")


def _taken(tx: Transaction, definition: SequenceDefinition) -> str:
    if definitions.heads(tx, [definition.id]):
        return f"sequence {definition.id}"
    return f"sequence {definition.name!r} version {definition.version}"
