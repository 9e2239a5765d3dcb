"""The door for credentials: storing and changing them. Their secrets go in and never come out (contract, api §18.1)."""

import re
import socket
import threading
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final

from orchestrator.egress import is_public, parse_url
from orchestrator.encryption import is_sealed
from orchestrator.errors import AlreadyExists, InvalidArgument, NotFound, PayloadTooLarge
from orchestrator.step_errors import PermanentError
from orchestrator.store import credentials
from orchestrator.store.credentials import Credential, CredentialKind
from orchestrator.store.postgres import PostgresStore

MAX_BYTES: Final = 256 * 1024
"""Of its secrets together, and of its other texts together."""
RESOLVE_SECONDS: Final = 2.0
"""A name that has not been found by then counts as unknown; the address is checked again whenever it is used."""

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,255}")


class Credentials:
    """Stored credentials. A `tenant` argument is the scope of the caller: None sees all tenants.

    Args:
        allow_internal: Lets refresh addresses be private ones.
    """

    def __init__(self, store: PostgresStore, *, allow_internal: bool) -> None:
        self._store = store
        self._allow_internal = allow_internal

    def create(self, credential: Credential) -> Credential:
        """Store a credential.

        Raises:
            InvalidArgument: A member is empty, malformed, or leads to a private address.
            PayloadTooLarge: Its secrets, or its other texts, are over `MAX_BYTES`.
            AlreadyExists: Somebody has a credential of that id.
        """
        if _ID.fullmatch(credential.id) is None:
            raise InvalidArgument("id must have 1 to 255 characters of A-Z, a-z, 0-9, '.', '_' and '-'")
        _check(credential)
        self._check_url(credential.refresh_url)
        with self._store.transaction() as tx:
            if not credentials.insert(tx, credential):
                raise AlreadyExists(f"credential {credential.id}")
        return credential

    def get(self, credential_id: str, *, tenant: str | None) -> Credential:
        """Read a credential; NotFound if the caller has none of that id."""
        with self._store.reading(tenant) as tx:
            return _owned(credentials.get(tx, credential_id), credential_id, tenant)

    def find(self, *, tenant: str | None, limit: int) -> list[Credential]:
        """List credentials by id."""
        with self._store.reading(tenant) as tx:
            return credentials.find(tx, tenant, limit)

    def change(self, credential_id: str, changes: Mapping[str, Any], *, tenant: str | None) -> Credential:
        """Change some members; what is not named stays. Raises as `get` and `create` do."""
        self.get(credential_id, tenant=tenant)
        self._check_url(changes.get("refresh_url"))
        with self._store.transaction() as tx:
            found = _owned(credentials.get(tx, credential_id, lock=True), credential_id, tenant)
            changed = replace(found, **changes)
            _check(changed)
            credentials.update(tx, changed)
        return self.get(credential_id, tenant=tenant)

    def delete(self, credential_id: str, *, tenant: str | None) -> None:
        """Remove a credential; steps that name it fail from now on."""
        self.get(credential_id, tenant=tenant)
        with self._store.transaction() as tx:
            _owned(credentials.get(tx, credential_id, lock=True), credential_id, tenant)
            credentials.delete(tx, credential_id)

    def _check_url(self, url: str | None) -> None:
        if url is None:
            return
        try:
            parsed = parse_url(url)
        except PermanentError as error:
            raise InvalidArgument(f"refresh_url: {error.message}") from error
        if parsed.username or parsed.password:
            raise InvalidArgument("refresh_url must not hold a user: client_id and client_secret belong into the value")
        if not self._allow_internal and not all(map(is_public, _addresses(parsed.host))):
            raise InvalidArgument("refresh_url leads to a private address")


def _addresses(host: str) -> list[str]:
    """Ask for the addresses of a host; none if it is not known, or not in time."""
    found: list[str] = []

    def ask() -> None:
        try:
            answer = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError):
            return
        found.extend(str(address[0]) for *_, address in answer)

    asking = threading.Thread(target=ask, daemon=True, name="resolve")
    asking.start()
    asking.join(RESOLVE_SECONDS)
    return list(found)


def _check(credential: Credential) -> None:
    for name in ("tenant_id", "name", "value"):
        if not getattr(credential, name).strip():
            raise InvalidArgument(f"{name} must not be empty")
    for name in ("value", "refresh_token"):
        if is_sealed(getattr(credential, name) or ""):
            raise InvalidArgument(f"{name} looks like one that this server has sealed")
    if credential.kind is CredentialKind.OAUTH2 and credential.refresh_url and not credential.refresh_token:
        raise InvalidArgument("refresh_url needs a refresh_token")
    for texts in (("value", "refresh_token"), ("tenant_id", "name", "refresh_url", "description")):
        size = sum(len((getattr(credential, name) or "").encode()) for name in texts)
        if size > MAX_BYTES:
            raise PayloadTooLarge(f"{' and '.join(texts)} of a credential have at most {MAX_BYTES} bytes, not {size}")


def _owned(found: Credential | None, credential_id: str, tenant: str | None) -> Credential:
    if found is None or tenant not in {None, found.tenant_id}:
        raise NotFound(f"credential {credential_id}")
    return found
