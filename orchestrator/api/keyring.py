"""Secrets of keys: how they are made, found again, and how their use is written down.

A secret is 256 random bits, so nobody finds it by trying, and a fast digest is enough to hide it from readers of the
database. A pepper hides more: who can write to the database, and does not know it, cannot make a key.
"""

import hashlib
import hmac
import re
import secrets
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from threading import Lock
from typing import Final

import psycopg2
import structlog

from orchestrator.errors import ConfigurationError, StoreUnavailable
from orchestrator.store import api_keys
from orchestrator.store.api_keys import KeyInForce
from orchestrator.store.session import Store

log = structlog.get_logger()

NO_PEPPER: Final = "plain"
MIN_PEPPER_CHARACTERS: Final = 16
SETTLE_SECONDS: Final = 1.0
_SECRET: Final = re.compile(r"sk_[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class NewSecret:
    """A secret that was never shown, and what is stored of it."""

    secret: str
    digest: str


def check_peppers(peppers: tuple[str, ...]) -> None:
    """Refuse a pepper that could be guessed; raises ConfigurationError."""
    if any(len(pepper) < MIN_PEPPER_CHARACTERS for pepper in peppers if pepper != NO_PEPPER):
        raise ConfigurationError(
            f"ORCHESTRATOR_API_KEY_PEPPERS holds one of less than {MIN_PEPPER_CHARACTERS} characters: "
            f"use random ones, or {NO_PEPPER!r} for keys that were made without"
        )


def digest_of(secret: str, pepper: str) -> str:
    """Give the hex digest that is stored of a secret.

    >>> digest_of("sk_1", NO_PEPPER) == hashlib.sha256(b"sk_1").hexdigest()
    True
    """
    if pepper == NO_PEPPER:
        return hashlib.sha256(secret.encode()).hexdigest()
    return hmac.new(pepper.encode(), secret.encode(), hashlib.sha256).hexdigest()


class Keyring:
    """The tenant keys of an installation, as one process sees them. Safe to use from several threads.

    A key is looked up at each request: what another process has revoked opens nothing from its commit on.

    Args:
        peppers: New keys are made with the first; keys of the others are known. None at all is `plain`.
    """

    def __init__(self, store: Store, peppers: tuple[str, ...]) -> None:
        self._store = store
        self._peppers = peppers or (NO_PEPPER,)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="key-use")
        self._writing: dict[str, Future[None]] = {}
        self._lock = Lock()

    def new_secret(self) -> NewSecret:
        """Make a secret."""
        secret = f"sk_{secrets.token_hex(32)}"
        return NewSecret(secret, digest_of(secret, self._peppers[0]))

    def find(self, secret: str) -> KeyInForce | None:
        """Find the key of a secret and have its use written down; None if it opens nothing."""
        if _SECRET.fullmatch(secret) is None:
            return None
        digests = [digest_of(secret, pepper) for pepper in self._peppers]
        with self._store.transaction() as tx:
            found = api_keys.in_force(tx, digests)
        if found is None or not any(secrets.compare_digest(found.digest, each) for each in digests):
            return None
        if found.is_use_due:
            self._note_use(found.id)
        return found

    def settle(self) -> None:
        """Wait until the uses that this process has seen are written, as long as that takes no second."""
        with self._lock:
            writing = list(self._writing.values())
        wait(writing, timeout=SETTLE_SECONDS)

    def _note_use(self, key_id: str) -> None:
        with self._lock:
            if key_id not in self._writing:
                self._writing[key_id] = self._writer.submit(self._write_use, key_id)

    def _write_use(self, key_id: str) -> None:
        try:
            with self._store.transaction(is_losable=True) as tx:
                api_keys.note_use(tx, key_id)
        except (StoreUnavailable, psycopg2.Error) as error:
            log.warning("key_use_not_written", key_id=key_id, error=type(error).__name__)
        finally:
            with self._lock:
                self._writing.pop(key_id, None)
