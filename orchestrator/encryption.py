"""Sealing of what is stored, so that a dump of the database tells nobody's secrets (contract, api §18.1).

A sealed text is `enc:v1:` or `enc:v2:` and the base64 of

    key id (6 bytes) │ nonce (24 bytes) │ AES-256-GCM ciphertext and tag

The key id says which of the installation's keys was used: its eight base64 characters can be searched for with SQL.
The first half of the nonce chooses a data key, HMAC-SHA256(key, "data key" ‖ half), under which the second half is the
nonce of GCM. A process uses a data key of its own for a while: under one key alone, random nonces of 96 bit may be
drawn 2^32 times only (NIST SP 800-38D §8.3), which an engine does in days. XAES-256-GCM extends nonces in the same way.

`v2` is bound to an owner, whose id is the associated data: moved to another owner's row it cannot be opened. `v1` can
be copied from row to row by SQL.
"""

import base64
import hmac
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from orchestrator.errors import ConfigurationError

FREE: Final = "enc:v1:"
BOUND: Final = "enc:v2:"
KEY_BYTES: Final = 32

_ID_BYTES: Final = 6
_HALF: Final = 12
_BODY: Final = _ID_BYTES + 2 * _HALF
_TAG_BYTES: Final = 16
_SEALS_PER_DATA_KEY: Final = 2**24
"""With so many random nonces of 96 bit, two are equal with a probability of 2^-49."""
_KNOWN_DATA_KEYS: Final = 4096


class Unreadable(ConfigurationError):
    """A stored value is sealed and none of the keys of this process opens it."""

    def __init__(self, why: str) -> None:
        super().__init__(f"a stored value cannot be decrypted: {why}; check ORCH8_ENCRYPTION_KEY and its old key")


def is_sealed(text: str) -> bool:
    """Tell whether a text has the form of a sealed one."""
    return text.startswith((FREE, BOUND))


@dataclass(frozen=True, slots=True)
class _Key:
    secret: bytes
    id: bytes

    @classmethod
    def of(cls, secret: bytes) -> "_Key":
        return cls(secret, _digest(secret, b"key id")[:_ID_BYTES])

    def data_key(self, half: bytes) -> AESGCM:
        return AESGCM(_digest(self.secret, b"data key" + half))


def _digest(secret: bytes, message: bytes) -> bytes:
    return hmac.digest(secret, message, "sha256")


class Vault:
    """Seals and opens texts. Safe to use from several threads.

    Args:
        key: 32 bytes; what is sealed from now on.
        old: Former keys, for reading.

    >>> vault = Vault(bytes(32))
    >>> vault.open(vault.seal("secret"))
    'secret'
    """

    def __init__(self, key: bytes, old: Sequence[bytes] = ()) -> None:
        if any(len(each) != KEY_BYTES for each in (key, *old)):
            raise ValueError(f"an encryption key has {KEY_BYTES} bytes")
        self._key = _Key.of(key)
        self._keys = {each.id: each for each in map(_Key.of, (*old, key))}
        self._opening: dict[bytes, AESGCM] = {}
        self._lock = threading.Lock()
        self._change_data_key()

    @property
    def key_id(self) -> str:
        """The text that follows the prefix of whatever is sealed now."""
        return base64.b64encode(self._key.id).decode()

    def knows(self, key_id: str) -> bool:
        """Tell whether texts with this key id can be opened."""
        return base64.b64decode(key_id) in self._keys

    def is_current(self, sealed: str) -> bool:
        """Tell whether a text is sealed, and with the newest key."""
        return sealed.startswith((FREE + self.key_id, BOUND + self.key_id))

    def seal(self, text: str, owner: UUID | None = None) -> str:
        """Seal a text.

        Args:
            owner: Whose it is; None for a text that may be copied to other rows.
        """
        with self._lock:
            self._left -= 1
            if self._left < 0:
                self._change_data_key()
            head, data_key = self._head, self._data_key
        nonce = os.urandom(_HALF)
        return _written(head + nonce, data_key.encrypt(nonce, text.encode(), _bytes_of(owner)), owner)

    def seal_alike(self, text: str, place: str) -> str:
        """Seal a text so that the same text in the same place gives the same result: whoever sees both knows that.

        The nonce is a digest of text and place under the key (as in the construction SIV, RFC 5297).
        """
        nonce = _digest(self._key.secret, b"alike" + place.encode() + b"\0" + text.encode())[: 2 * _HALF]
        data_key = self._key.data_key(nonce[:_HALF])
        return _written(self._key.id + nonce, data_key.encrypt(nonce[_HALF:], text.encode(), None), None)

    def open(self, sealed: str, owner: UUID | None = None) -> str:
        """Give the text that was sealed.

        Args:
            owner: As when it was sealed, if that was bound to one.

        Raises:
            Unreadable: It was sealed with a key that is not known, for another owner, or has been changed.
        """
        try:
            raw = base64.b64decode(sealed[len(FREE) :], validate=True)
        except ValueError as error:
            raise Unreadable("it is damaged") from error
        key = self._keys.get(raw[:_ID_BYTES])
        if key is None:
            raise Unreadable("its key is not known")
        if len(raw) < _BODY + _TAG_BYTES:
            raise Unreadable("it is damaged")
        bound = _bytes_of(owner) if sealed.startswith(BOUND) else None
        try:
            opened = self._data_key_of(key, raw[: _ID_BYTES + _HALF]).decrypt(
                raw[_ID_BYTES + _HALF : _BODY], raw[_BODY:], bound
            )
        except InvalidTag as error:
            raise Unreadable("it is damaged, or another's") from error
        return opened.decode()

    def _change_data_key(self) -> None:
        half = os.urandom(_HALF)
        self._head, self._data_key = self._key.id + half, self._key.data_key(half)
        self._left = _SEALS_PER_DATA_KEY

    def _data_key_of(self, key: _Key, head: bytes) -> AESGCM:
        known = self._opening.get(head)
        if known is None:
            if len(self._opening) >= _KNOWN_DATA_KEYS:
                self._opening.clear()
            known = self._opening[head] = key.data_key(head[_ID_BYTES:])
        return known


def _bytes_of(owner: UUID | None) -> bytes | None:
    return None if owner is None else str(owner).encode()


def _written(head: bytes, ciphertext: bytes, owner: UUID | None) -> str:
    return (FREE if owner is None else BOUND) + base64.b64encode(head + ciphertext).decode()
