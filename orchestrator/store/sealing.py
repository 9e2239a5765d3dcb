"""What of a row is sealed, when the installation has a key (`orchestrator.encryption`).

Whoever writes a value that may hold secrets writes it as `Private` text; the transaction seals it on its way out. In a
`json` column the sealed text stands as a JSON string, so the column keeps its type. Reading needs no cooperation: a
sealed value is opened where JSON is decoded, except one that is bound to its instance, which only those can open who
know whose it is (`Locked`).

Without a key nothing is sealed and nothing costs anything. Values that were written then are read ever after: JSON that
happens to look sealed is written with a space in front of it, which changes nothing in its meaning.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final
from uuid import UUID

import orjson
from psycopg2.extensions import QuotedString, register_adapter

from orchestrator.encryption import BOUND, FREE, Unreadable, Vault, is_sealed
from sequences.json_values import json_bytes

_MEMBER: Final = "_sealed"
_SEALED_VALUE: Final = (f'"{FREE}', f'{{"{_MEMBER}":"{FREE}')
_BOUND_VALUE: Final = f'"{BOUND}'
_LOOKS_SEALED: Final = (*_SEALED_VALUE, _BOUND_VALUE)

DETAILS_IN_SQL: Final = ("type",)
"""What the metrics read of the details of a transition (`observed`)."""

Parameters = Sequence[Any] | dict[str, Any] | None


class Sealable(str):
    """Text that is sealed when it is written."""

    __slots__ = ()

    def sealed(self, vault: Vault) -> str:
        """Give the text that is written in its place."""
        raise NotImplementedError


class Private(Sealable):
    """JSON text that is sealed when it is written."""

    __slots__ = ()

    def sealed(self, vault: Vault) -> str:
        """Give the JSON text that is written in its place."""
        return f'"{vault.seal(self)}"'


class PrivateOf(Private):
    """Private text that is bound to an instance."""

    __slots__ = ("owner",)
    owner: UUID

    def sealed(self, vault: Vault) -> str:
        """Give the JSON text that is written in its place."""
        return f'"{vault.seal(self, self.owner)}"'


class PrivateAlike(Private):
    """Private text that is sealed to the same again, so that what has not changed need not be written."""

    __slots__ = ("place",)
    place: str

    def sealed(self, vault: Vault) -> str:
        """Give the JSON text that is written in its place."""
        return f'"{vault.seal_alike(self, self.place)}"'


class PrivateBeside(Private):
    """Private text of an object some of whose members SQL reads: those stand beside it in the clear."""

    __slots__ = ("beside",)
    beside: str

    def sealed(self, vault: Vault) -> str:
        """Give the JSON text that is written in its place."""
        return f'{{"{_MEMBER}":"{vault.seal(self)}"{self.beside}}}'


class PrivateText(Sealable):
    """Text of a `text` column that is sealed when it is written."""

    __slots__ = ()

    def sealed(self, vault: Vault) -> str:
        """Give the text that is written in its place."""
        return vault.seal(self)


class Locked(str):
    """A sealed value that was read, and that is bound to its instance."""

    __slots__ = ()


for _kind in (Private, PrivateOf, PrivateAlike, PrivateBeside, PrivateText):
    register_adapter(_kind, QuotedString)


_NULL: Final = Private("null")


def private(value: Any) -> Private:
    """Write a value as private JSON text."""
    return _NULL if value is None else Private(_written(value))


def private_json(text: str) -> Private:
    """Mark JSON text as private."""
    return Private(_unlike_sealed(text))


def private_of(owner: UUID, text: str) -> PrivateOf:
    """Mark JSON text as private to an instance."""
    made = PrivateOf(_unlike_sealed(text))
    made.owner = owner
    return made


def private_alike(place: str, text: str) -> PrivateAlike:
    """Mark JSON text as private, in a place where it is often written again without a change."""
    made = PrivateAlike(_unlike_sealed(text))
    made.place = place
    return made


def private_beside(value: Mapping[str, Any], names: Iterable[str]) -> PrivateBeside:
    """Write an object as private JSON text; SQL may read the named members, whose values are small and no secrets."""
    made = PrivateBeside(_written(value))
    shown = {name: value[name] for name in names if name in value}
    made.beside = f",{json_bytes(shown).decode()[1:-1]}" if shown else ""
    return made


def _written(value: Any) -> str:
    return _unlike_sealed(json_bytes(value).decode())


def _unlike_sealed(text: str) -> str:
    return f" {text}" if text.startswith(_LOOKS_SEALED) else text


def sealed_row(row: Sequence[Any], vault: Vault) -> list[Any]:
    """Seal the private values among those of a row."""
    return [each.sealed(vault) if isinstance(each, Sealable) else each for each in row]


def sealed_parameters(parameters: Parameters, vault: Vault) -> Parameters:
    """Seal the private values among those of a statement."""
    match parameters:
        case None:
            return None
        case dict():
            return dict(zip(parameters, sealed_row(list(parameters.values()), vault), strict=True))
        case _:
            return sealed_row(parameters, vault)


def reader(vault: Vault | None) -> Callable[[str], Any]:
    """Give the function that decodes the text of a `json` column; a bound value comes out `Locked`."""

    def read(text: str) -> Any:
        if not looks_sealed(text):
            return orjson.loads(text)
        value = orjson.loads(text)
        sealed = value[_MEMBER] if type(value) is dict else value
        return Locked(sealed) if sealed.startswith(BOUND) else orjson.loads(_vault(vault).open(sealed))

    return read


def looks_sealed(text: str) -> bool:
    """Tell whether the text of a `json` column holds a sealed value."""
    return text.startswith(_LOOKS_SEALED)


def opened_json(text: str, owner: UUID | None, vault: Vault | None) -> str:
    """Give the JSON text that a `json` column means, from the text it holds."""
    if not looks_sealed(text):
        return text
    value = orjson.loads(text)
    return _vault(vault).open(value[_MEMBER] if type(value) is dict else value, owner)


def unlocked(value: Any, owner: UUID, vault: Vault | None) -> Any:
    """Open a value that may be bound to an instance."""
    return orjson.loads(_vault(vault).open(value, owner)) if type(value) is Locked else value


def opened_text(text: str | None, vault: Vault | None) -> str | None:
    """Open the text of a `text` column; one that was written without a key is as it is."""
    return _vault(vault).open(text) if text is not None and is_sealed(text) else text


def _vault(vault: Vault | None) -> Vault:
    if vault is None:
        raise Unreadable("this process has no key")
    return vault
