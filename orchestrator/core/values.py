"""Frozen values, copied with some fields changed.

`dataclasses.replace` calls the class again, and a frozen class sets each field through `object.__setattr__`: for an
instance or a step (some 25 fields) that takes 7.5 µs, a third of a decision. Here the slots are copied, in 2.5 µs.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import Any, TypeVar

T = TypeVar("T")


def replace(value: T, /, **changed: Any) -> T:
    """Copy a frozen slotted dataclass (of two fields or more) with some fields changed, as `dataclasses.replace` does.

    Raises:
        AttributeError: There is no such field.
    """
    kind: Any = type(value)
    read, writers = _shape(kind)
    copy: T = object.__new__(kind)
    for write, field in zip(writers, read(value), strict=True):
        write(copy, field)
    overwrite(copy, **changed)
    return copy


def overwrite(value: object, **changed: Any) -> None:
    """Set fields of a frozen value in place. Only for a copy that nobody else has seen yet."""
    for name, field in changed.items():
        object.__setattr__(value, name, field)


@lru_cache(maxsize=64)
def _shape(kind: Any) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[Callable[[Any, Any], None], ...]]:
    names = [field.name for field in fields(kind)]
    return attrgetter(*names), tuple(getattr(kind, name).__set__ for name in names)
