"""The door for triggers: storing them, changing them, firing them from outside (contract, api §15, §20.8)."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import orjson

from orchestrator.catalogue import MAX_LONG_NAME_BYTES, check_name
from orchestrator.emitting import request_of, sequence_of
from orchestrator.encryption import is_sealed
from orchestrator.engine import Engine
from orchestrator.errors import AlreadyExists, InvalidArgument, NotFound, Unauthorized
from orchestrator.exchange import Started
from orchestrator.store import nonces, triggers
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.triggers import Trigger
from sequences.scope import Scope, follow
from sequences.templates import TemplateError, compile_template

WEBHOOK: Final = "webhook"
"""The type of the triggers that the public webhook fires."""
_PAYLOAD_ROOTS: Final = ("payload", "data", "context.data")


class Triggers:
    """Stored triggers. A `tenant` argument is the scope of the caller: None sees all tenants."""

    def __init__(self, store: PostgresStore, engine: Engine) -> None:
        self._store = store
        self._engine = engine

    def create(self, trigger: Trigger) -> Trigger:
        """Store a trigger.

        Raises:
            InvalidArgument: A name or the secret is empty or too long.
            NotFound: There is no such sequence.
            AlreadyExists: Somebody has a trigger of that slug.
        """
        for name in ("slug", "sequence_name", "tenant_id", "namespace"):
            check_name(name, getattr(trigger, name))
        _check_secret(trigger.secret)
        with self._store.transaction() as tx:
            sequence_of(tx, trigger)
            if not triggers.insert(tx, trigger):
                raise AlreadyExists(f"trigger {trigger.slug}")
        return trigger

    def get(self, slug: str, *, tenant: str | None) -> Trigger:
        """Read a trigger; NotFound if the caller has none of that slug."""
        with self._store.reading(tenant) as tx:
            return _owned(triggers.get(tx, slug), slug, tenant)

    def find(self, *, tenant: str | None, limit: int) -> list[Trigger]:
        """List triggers by slug."""
        with self._store.reading(tenant) as tx:
            return triggers.find(tx, tenant, limit)

    def change(
        self, slug: str, changes: Mapping[str, Any], *, tenant: str | None, overlap: timedelta = timedelta(0)
    ) -> Trigger:
        """Change `enabled`, `config`, `secret` or `version`; what is not named stays.

        Args:
            overlap: How long the secret that is replaced stays as good as the new one.
        """
        self.get(slug, tenant=tenant)
        with self._store.transaction() as tx:
            found = _owned(triggers.get(tx, slug, lock=True), slug, tenant)
            changed = replace(found, **changes)
            _check_secret(changed.secret)
            if "secret" in changes:
                changed = _rotated(found, changed, tx.now() + overlap if overlap else None)
            if "version" in changes:
                sequence_of(tx, changed)
            triggers.update(tx, changed)
        return self.get(slug, tenant=tenant)

    def delete(self, slug: str, *, tenant: str | None) -> None:
        """Remove a trigger; flows that it has started go on."""
        self.get(slug, tenant=tenant)
        with self._store.transaction() as tx:
            _owned(triggers.get(tx, slug, lock=True), slug, tenant)
            triggers.delete(tx, slug)

    def public(self, slug: str) -> Trigger:
        """Read a trigger that the public webhook may fire; NotFound if there is none of that slug."""
        with self._store.transaction() as tx:
            found = triggers.get(tx, slug)
        if found is None or not found.enabled or found.trigger_type != WEBHOOK:
            raise NotFound(f"trigger {slug}")
        return found

    def fire(self, trigger: Trigger, payload: Any, event: dict[str, Any], *, nonce: str | None = None) -> Started:
        """Start a flow of the sequence that the trigger names now, with the payload as its data.

        Args:
            nonce: Of the signature that was checked, good for one flow; kept together with the flow, so that a fire
                that has failed may be sent again as it is. None if the fire was not signed.

        Raises:
            Unauthorized: The nonce has been used.
            InvalidArgument: The trigger is switched off, or its idempotency key cannot be read.
            NotFound: Its sequence is gone.
            Unprocessable: The payload does not fit the sequence.
        """
        if not trigger.enabled:
            raise InvalidArgument(f"trigger {trigger.slug!r} is disabled")
        key = idempotency_key(trigger.config, payload)
        self._engine.know_handlers()
        with self._store.transaction() as tx:
            if nonce is not None and not nonces.take(tx, trigger.slug, nonce):
                raise Unauthorized
            definition = sequence_of(tx, trigger)
            request = request_of(trigger, definition, payload, event, idempotency_key=key)
            begun = self._engine.begin(tx, [request])
        self._engine.see_off(begun)
        return begun.started[0]


def idempotency_key(config: Any, payload: Any) -> str | None:
    """Read the key by which repeated fires are known: `config.idempotency_key` is a template or a path on the payload.

    >>> idempotency_key({"idempotency_key": "order.id"}, {"order": {"id": 7}})
    '7'
    >>> idempotency_key({"idempotency_key": "o-{{ data.order.id }}"}, {"order": {"id": 7}})
    'o-7'
    >>> idempotency_key({"idempotency_key": "{{ payload.order.id }}-{{ order.id }}"}, {"order": {"id": 7}})
    '7-7'
    """
    written = config.get("idempotency_key") if isinstance(config, dict) else None
    if not isinstance(written, str) or not written.strip():
        return None
    scope = Scope(data=payload, variables=_Members(payload))
    try:
        value = compile_template(written).render(scope) if "{{" in written else _at(payload, written)
    except TemplateError as error:
        raise InvalidArgument(f"config.idempotency_key: {error}") from error
    if value is None or value == "":
        return None
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    if len(text.encode()) > MAX_LONG_NAME_BYTES:
        raise InvalidArgument(f"the idempotency key is longer than {MAX_LONG_NAME_BYTES} bytes")
    return text


class _Members(Mapping[str, Any]):
    """What the words of a template mean over a payload: its members, null for those it lacks, and `payload` for all."""

    def __init__(self, payload: Any) -> None:
        self._members = {"payload": payload, **(payload if isinstance(payload, dict) else {})}

    def __getitem__(self, name: str) -> Any:
        return self._members.get(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


def _at(payload: Any, path: str) -> Any:
    """Follow a path; it may begin with a root that stands for the payload, if the payload has no such member."""
    path = path.strip().removeprefix("$.")
    found = follow(payload, tuple(path.split(".")))
    for root in _PAYLOAD_ROOTS:
        if found is None and path.startswith(f"{root}."):
            found = follow(payload, tuple(path.removeprefix(f"{root}.").split(".")))
    return found


def _rotated(found: Trigger, changed: Trigger, until: datetime | None) -> Trigger:
    """Keep the secret before for a while; a change that comes again keeps the same one, for no longer than it says."""
    previous = found.previous_secret if changed.secret == found.secret else found.secret
    if until is None or previous is None or changed.secret is None:
        return replace(changed, previous_secret=None, previous_secret_until=None)
    return replace(changed, previous_secret=previous, previous_secret_until=until)


def _check_secret(secret: str | None) -> None:
    if secret is not None and not secret.strip():
        raise InvalidArgument("secret must not be empty")
    if secret is not None and is_sealed(secret):
        raise InvalidArgument("secret looks like one that this server has sealed")


def _owned(found: Trigger | None, slug: str, tenant: str | None) -> Trigger:
    if found is None or tenant not in {None, found.tenant_id}:
        raise NotFound(f"trigger {slug}")
    return found
