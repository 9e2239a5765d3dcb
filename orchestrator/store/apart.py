"""Which values are stored apart, and what stands in their place (sequences contract §8.5).

A large member of `context.data`, or a large output, would be read and rewritten with its row again and again. It goes
to the table `payloads`, and its row keeps a marker, `{"_externalized": true, "_ref": "<key>"}`. Whoever reads through
the store gets the whole value: markers never leave it. A value that looks like a marker is itself stored apart,
whatever its size, so that nobody can name a payload that is not his.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple
from uuid import UUID

from sequences.json_values import json_bytes

DEFAULT_THRESHOLD: Final = 65_536
"""Bytes of JSON text (contract §8.5)."""
_MAX_NAME_BYTES: Final = 200
_MARK: Final = "_externalized"
_REF: Final = "_ref"


class Mode(StrEnum):
    """Which outputs are stored apart."""

    NEVER = "never"
    THRESHOLD = "threshold"
    ALWAYS = "always"


class Split(NamedTuple):
    """What a row keeps, as JSON text, and what goes apart, by key."""

    text: str
    apart: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Apart:
    """What an installation stores apart.

    Args:
        threshold: Bytes of JSON text above which a value is; 0 for none.
        outputs: Whether that holds for outputs.

    >>> Apart(threshold=8).split_data({"a": 1, "b": "123456789"}).text
    '{"a":1,"b":{"_externalized":true,"_ref":"data:b"}}'
    """

    threshold: int = DEFAULT_THRESHOLD
    outputs: Mode = Mode.THRESHOLD

    def split_output(self, output_id: UUID, output: Any) -> Split:
        """Split an output: it goes apart as a whole."""
        text = json_bytes(output).decode()
        if not (is_marker(output) or self._takes_output(text)):
            return Split(text=text, apart={})
        key = f"output:{output_id}"
        return Split(text=_marker(key), apart={key: text})

    def split_data(self, data: Any) -> Split:
        """Split the data of a context: members of an object go apart, each for itself."""
        text = json_bytes(data).decode()
        if not isinstance(data, dict) or not (self._is_large(text) or may_hold_marker(text)):
            return Split(text, {})
        kept: dict[str, Any] = {}
        apart: dict[str, str] = {}
        for name, value in data.items():
            member = json_bytes(value).decode()
            if is_marker(value) or self._is_large(member):
                apart[_key_of(name)] = member
                kept[name] = {_MARK: True, _REF: _key_of(name)}
            else:
                kept[name] = value
        return Split(text=json_bytes(kept).decode() if apart else text, apart=apart)

    def _takes_output(self, text: str) -> bool:
        return self.outputs is Mode.ALWAYS or (self.outputs is Mode.THRESHOLD and self._is_large(text))

    def _is_large(self, text: str) -> bool:
        if not self.threshold or len(text) * 4 <= self.threshold:  # a character has four bytes at the most
            return False
        return len(text) > self.threshold or len(text.encode()) > self.threshold


def is_marker(value: Any) -> bool:
    """Tell whether a stored value stands for one that is stored apart."""
    return type(value) is dict and value.get(_MARK) is True and isinstance(value.get(_REF), str)


def may_hold_marker(text: str) -> bool:
    """Tell whether there may be a marker in a stored value, from its JSON text."""
    return _MARK in text


def ref_of(marker: Mapping[str, Any]) -> str:
    """Give the key that a marker names."""
    ref: str = marker[_REF]
    return ref


def _marker(key: str) -> str:
    return json_bytes({_MARK: True, _REF: key}).decode()


def _key_of(name: str) -> str:
    """Name a member of the data; a new value of it takes the place of the former one."""
    raw = name.encode()
    return f"data:{name}" if len(raw) <= _MAX_NAME_BYTES else f"data:sha256:{hashlib.sha256(raw).hexdigest()}"
