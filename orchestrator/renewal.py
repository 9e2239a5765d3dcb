"""Renewal of OAuth2 credentials before they expire (RFC 6749 §6): a form is posted to the address they name.

One process at a time renews a credential: it takes a lease, posts without a transaction, and stores what came back if
the lease is still its own. The others use the value as long as it is good, then wait for the one that renews.
"""

import asyncio
import time
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID, uuid4

import orjson
import structlog

from orchestrator.egress import Egress, OutboundRequest
from orchestrator.encryption import is_sealed
from orchestrator.loops import TickResult
from orchestrator.step_errors import PermanentError, RetryableError
from orchestrator.store import credentials
from orchestrator.store.credentials import Credential
from orchestrator.store.interface import Store
from orchestrator.store.postgres import postgres_of

log = structlog.get_logger()

USE_MARGIN: Final = timedelta(seconds=30)
"""A value that expires sooner is renewed before it is used: the step must have time to use it."""
TIMEOUT: Final = timedelta(seconds=10)
LEASE: Final = timedelta(seconds=20)
"""The time-out, and as much again for the two transactions around it."""
LOOK_SECONDS: Final = 0.1
AHEAD: Final = timedelta(seconds=60)
"""How long before the end the loop renews: early enough that no step has to wait for it."""
TICK_SECONDS: Final = 10.0
AT_ONCE: Final = 20
DEFAULT_LIFETIME: Final = timedelta(hours=1)
"""Of a value whose provider does not say how long it is good."""
MAX_ANSWER_BYTES: Final = 256 * 1024


class Renewer:
    """Renews credentials: when they are used, and as a background loop. Safe to use from several threads.

    Args:
        egress: The way out to the providers.
    """

    name = "credentials"

    def __init__(self, store: Store, egress: Egress) -> None:
        self._store = store
        self._egress = egress

    def fresh(self, credential: Credential, now: datetime) -> Credential:
        """Give a credential whose value is good, renewed if it is about to expire.

        Args:
            now: By the database's clock.

        Raises:
            RetryableError: It has expired and its provider does not answer.
            PermanentError: It has expired and cannot be renewed.
        """
        if credential.expires_at is None or credential.expires_at > now + USE_MARGIN:
            return credential
        is_good = credential.expires_at > now
        if not credential.is_renewable:
            if is_good:
                return credential
            raise PermanentError(f"credential {credential.id!r} has expired")
        try:
            return self._renewed(credential, is_urgent=not is_good)
        except (PermanentError, RetryableError):
            if is_good:
                return credential
            raise

    def renew(self, credential_id: str, *, within: timedelta) -> bool:
        """Renew a credential that expires within some time; False if it does not, or another is at it.

        Raises:
            RetryableError: Its provider does not answer.
            PermanentError: Its provider refuses, or its address is blocked.
        """
        renewal = uuid4()
        with self._transaction() as tx:
            if not credentials.begin_renewal(tx, credential_id, renewal, within=within, lease=LEASE):
                return False
            credential = credentials.get(tx, credential_id)
        if credential is None or not credential.is_renewable:
            self._give_up(credential_id, renewal)
            return False
        try:
            answer = self._ask(credential)
        except BaseException:
            self._give_up(credential_id, renewal)
            raise
        lifetime = answer.get("expires_in")
        with self._transaction() as tx:
            is_stored = credentials.end_renewal(
                tx,
                credential_id,
                renewal,
                value=_new_value(credential.value, answer),
                refresh_token=_text(answer.get("refresh_token")) or credential.refresh_token or "",
                lasts=_duration(lifetime),
            )
        log.info("credential_renewed", credential=credential_id, stored=is_stored)
        return is_stored

    def tick(self) -> TickResult:
        """Renew what expires soon; what cannot be renewed is tried again in the next tick."""
        with self._transaction() as tx:
            due = credentials.expiring(tx, AHEAD, AT_ONCE)
        done = 0
        for credential_id in due:
            try:
                done += self.renew(credential_id, within=AHEAD)
            except (PermanentError, RetryableError) as error:
                log.warning("credential_not_renewed", credential=credential_id, reason=error.message)
        return TickResult(done=done, wait=TICK_SECONDS)

    def _renewed(self, credential: Credential, *, is_urgent: bool) -> Credential:
        until = time.monotonic() + LEASE.total_seconds()
        while True:
            self.renew(credential.id, within=USE_MARGIN)
            with self._transaction() as tx:
                # Asked first: whoever has ended before this has stored what is read after it.
                is_busy = credentials.is_being_renewed(tx, credential.id)
                found = credentials.of_tenant(tx, credential.tenant_id, [credential.id]).get(credential.id)
                now = tx.now()
            if found is None or not found.enabled:
                raise PermanentError(f"credential {credential.id!r} is not known")
            if not is_urgent or found.expires_at is None or found.expires_at > now:
                return found
            if not is_busy or time.monotonic() >= until:
                raise RetryableError(f"credential {credential.id!r} has expired and was not renewed")
            time.sleep(LOOK_SECONDS)

    def _give_up(self, credential_id: str, renewal: UUID) -> None:
        with self._transaction() as tx:
            credentials.give_up_renewal(tx, credential_id, renewal)

    def _transaction(self) -> Any:
        return postgres_of(self._store).transaction()

    def _ask(self, credential: Credential) -> dict[str, Any]:
        form = {
            "grant_type": "refresh_token",
            "refresh_token": credential.refresh_token,
            **_client_of(credential.value),
        }
        request = OutboundRequest(
            method="POST",
            url=credential.refresh_url or "",
            headers={"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"},
            body=urlencode(form).encode(),
            follows=False,
        )
        failed = f"credential {credential.id!r} could not be renewed"
        try:
            answer = asyncio.run(self._egress.request(request, timeout=TIMEOUT, max_body_bytes=MAX_ANSWER_BYTES))
        except PermanentError as error:
            raise PermanentError(f"{failed}: {error.message}") from error
        except (ConnectionError, TimeoutError) as error:
            raise RetryableError(f"{failed}: its provider does not answer") from error
        if answer.status >= 500 or answer.status in {408, 429}:
            raise RetryableError(f"{failed}: HTTP {answer.status}")
        if answer.status >= 300:
            raise PermanentError(f"{failed}: HTTP {answer.status}")
        try:
            body = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            body = None
        if not isinstance(body, dict) or _text(body.get("access_token")) is None:
            raise RetryableError(f"{failed}: the answer holds no access_token")
        return body


def _client_of(value: str) -> dict[str, str]:
    """Give what identifies the client, if the value is an object that holds it."""
    known = _object(value) or {}
    return {name: known[name] for name in ("client_id", "client_secret") if isinstance(known.get(name), str)}


def _new_value(value: str, answer: dict[str, Any]) -> str:
    """Put the new token into the place of the old one: a member of an object, or the whole value.

    >>> _new_value("old", {"access_token": "new"}), _new_value('{"a":1}', {"access_token": "new"})
    ('new', '{"a":1,"access_token":"new"}')
    """
    token: str = answer["access_token"]
    known = _object(value)
    return token if known is None else orjson.dumps({**known, "access_token": token}).decode()


def _object(value: str) -> dict[str, Any] | None:
    try:
        known = orjson.loads(value)
    except orjson.JSONDecodeError:
        return None
    return known if isinstance(known, dict) else None


def _text(value: Any) -> str | None:
    is_usable = isinstance(value, str) and bool(value) and "\0" not in value and not is_sealed(value)
    return value if is_usable else None


def _duration(seconds: Any) -> timedelta:
    """Read `expires_in`; providers write it as text, too.

    >>> _duration("60"), _duration(None)
    (datetime.timedelta(seconds=60), datetime.timedelta(seconds=3600))
    """
    try:
        number = float(seconds)
        return timedelta(seconds=number) if 0 < number < 10 * 365 * 86_400 else DEFAULT_LIFETIME
    except (TypeError, ValueError):
        return DEFAULT_LIFETIME
