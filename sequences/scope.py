"""What templates and expressions can see, and how a dotted path is looked up in it (§6.3, §8.2).

Every section may be a lazy `Mapping`: only what a path needs is read, a `KeyError` means missing, and any other error
of its `__getitem__` reaches the caller untouched. Clock, chance and ids come in as values, so reading stays pure.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from random import Random
from types import MappingProxyType
from typing import Any, Final

from sequences.step_fields import Access, ContextAccess, VisibleFields

EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})
MISSING: Final = object()
ROOTS: Final = frozenset(
    {"context", "data", "config", "outputs", "steps", "input", "instance_id", "runtime", "state", "session"}
)
DEFAULT_RUNTIME: Final[Mapping[str, Any]] = MappingProxyType(
    {"attempt": 0, "total_steps_executed": 0, "dry_run": False, "dry_run_auto_approve": False}
)


def _nothing() -> Mapping[str, Any]:
    return EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """Everything one evaluation can read.

    Attributes:
        data, config: Sections of the context; any JSON value, null reads as empty.
        outputs: Newest row of each block, by block id.
        session: Data of the bound session, any JSON value; None without one.
        audit: The audit section: what a handler is given, never what an expression reads.
        bindings: Names laid over `context.data`: a for_each item, `_error` of `retry_if`. They shadow data everywhere.
        variables: Names beside the roots: `index`, `item_index`, `iteration`, the hook roots. A template always finds
            them; an expression only if `context.data` has no such key.
        now, random, new_uuid: Sources of `now()`, `random()`, `uuid()`; without one the function is null.
    """

    data: Any = None
    config: Any = None
    outputs: Mapping[str, Any] = field(default_factory=_nothing)
    state: Mapping[str, Any] = field(default_factory=_nothing)
    runtime: Mapping[str, Any] = field(default_factory=_nothing)
    session: Any = None
    audit: Any = None
    instance_id: str = ""
    bindings: Mapping[str, Any] = field(default_factory=_nothing)
    variables: Mapping[str, Any] = field(default_factory=_nothing)
    now: datetime | None = None
    random: Random | None = None
    new_uuid: Callable[[], object] | None = None

    def filtered(self, access: ContextAccess | None) -> "Scope":
        """Return the scope a step with this `context_access` sees: hidden sections empty (§8.2)."""
        if access is None:
            return self
        bindings = _visible(self.bindings, access.data)
        hidden = dict.fromkeys(self.bindings.keys() - bindings.keys()) if bindings is not self.bindings else {}
        return replace(
            self,
            data=_visible(self.data, access.data),
            config=_visible(self.config, access.config),
            audit=self.audit if _shows_any(access.audit) else None,
            runtime=_visible(self.runtime, access.runtime) if _shows_any(access.runtime) else DEFAULT_RUNTIME,
            bindings=bindings,
            variables={**self.variables, **hidden} if hidden else self.variables,
        )

    def variable(self, name: str) -> Any:
        """Return the value of a name that is no root, as a template sees it; `MISSING` if there is none."""
        if name in self.bindings:
            return self.bindings[name]
        return self.variables.get(name, MISSING)

    def bare(self, name: str) -> Any:
        """Return what a bare word of an expression means: a binding, else a key of `context.data`, else a variable."""
        if name in self.bindings:
            return self.bindings[name]
        found = member(self.data, name)
        return self.variables.get(name) if found is MISSING else found


class Fields(Mapping[str, Any]):
    """Some keys of a mapping, read only when asked for."""

    def __init__(self, whole: Mapping[str, Any], names: tuple[str, ...]) -> None:
        self._whole, self._names = whole, frozenset(names)

    def __getitem__(self, key: str) -> Any:
        if key not in self._names:
            raise KeyError(key)
        return self._whole[key]

    def __iter__(self) -> Iterator[str]:
        return (key for key in self._whole if key in self._names)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def visible_section(section: Any, access: Access) -> Any:
    """Return a context section as a step with this access sees it: whole, `{}`, or the named top-level keys."""
    return _visible(section, access)


def member(value: Any, key: str) -> Any:
    """Return a member of an object or, by its number, of an array; `MISSING` if there is none."""
    if isinstance(value, Mapping):
        try:
            return value[key]
        except KeyError:
            return MISSING
    if isinstance(value, list | tuple) and key.isdigit() and key.isascii() and len(key) < 10:
        index = int(key)
        return value[index] if index < len(value) else MISSING
    return MISSING


def follow(value: Any, keys: tuple[str, ...]) -> Any:
    """Return what a path of keys leads to; null when anything on the way is missing."""
    for key in keys:
        value = member(value, key)
        if value is MISSING:
            return None
    return value


def resolve(scope: Scope, root: str, keys: tuple[str, ...]) -> Any:
    """Return the value of a path that starts at one of `ROOTS`; null when missing (§6.3)."""
    match root:
        case "outputs" | "steps":
            return _output(scope.outputs, keys)
        case "data":
            return _data(scope, keys)
        case "config":
            return _section(scope.config, keys)
        case "context":
            return _context(scope, keys)
        case "input":
            return _data(scope, ("input", *keys))
        case "state":
            return _section(scope.state, keys)
        case "runtime":
            return _section(scope.runtime, keys)
        case "session":
            return _section(scope.session, keys)
        case _:
            return None if keys else scope.instance_id


def plain(value: Any) -> Any:
    """Return a lazy mapping as a dict; any other value as it is."""
    return dict(value) if isinstance(value, Mapping) and not isinstance(value, dict) else value


def _section(section: Any, keys: tuple[str, ...]) -> Any:
    if keys:
        return follow(section, keys)
    return {} if section is None else plain(section)


def _data(scope: Scope, keys: tuple[str, ...]) -> Any:
    if not scope.bindings:
        return _section(scope.data, keys)
    if not keys:
        return {**(scope.data if isinstance(scope.data, Mapping) else {}), **scope.bindings}
    if keys[0] in scope.bindings:
        return follow(scope.bindings[keys[0]], keys[1:])
    return follow(scope.data, keys)


def _context(scope: Scope, keys: tuple[str, ...]) -> Any:
    if not keys:
        return {"data": _data(scope, ()), "config": _section(scope.config, ())}
    return resolve(scope, keys[0], keys[1:]) if keys[0] in {"data", "config"} else None


def _output(outputs: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    """Look up `<block>.<path>`; `.output` may stand for the row, and a child block for its newest row (§3.8, §6.3)."""
    if not keys:
        return plain(outputs)
    row = member(outputs, keys[0])
    if row is MISSING:
        return None
    rest = keys[1:]
    if rest and rest[0] == "output" and not (isinstance(row, Mapping) and "output" in row):
        rest = rest[1:]
    if rest and isinstance(row, list) and member(row, rest[0]) is MISSING:
        return follow(_child_output(row, rest[0]), rest[1:])
    return follow(row, rest)


def _child_output(rows: list[Any], block_id: str) -> Any:
    newest = (row for row in reversed(rows) if isinstance(row, Mapping) and row.get("block_id") == block_id)
    return next((row.get("output") for row in newest), None)


def _shows_any(access: Access) -> bool:
    return access is not False and access != "none"


def _visible(section: Any, access: Access) -> Any:
    if access is True or access == "all":
        return section
    if isinstance(access, VisibleFields) and isinstance(section, Mapping):
        return Fields(section, access.fields)
    return {}
