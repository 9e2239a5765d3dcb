"""What is found when an installation, or an instance, is looked at."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Severity(StrEnum):
    """How bad it is."""

    NOTE = "note"
    """Nothing has to be done."""
    WARNING = "warning"
    """It will do harm, or costs time already."""
    ERROR = "error"
    """Work stands still, or may be lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found.

    Args:
        name: The kind of it, for programs.
        what: What is the case.
        remedy: What to do.
        block_id: The block it is about; None for the whole.
        until: When it will be over by itself; None if nobody can say.
        details: More about it, for programs.
    """

    name: str
    severity: Severity
    what: str
    remedy: str
    block_id: str | None = None
    until: datetime | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def error(name: str, what: str, remedy: str, **about: Any) -> Finding:
    """Find something that stops work."""
    return Finding(name=name, severity=Severity.ERROR, what=what, remedy=remedy, **about)


def warning(name: str, what: str, remedy: str, **about: Any) -> Finding:
    """Find something that does harm."""
    return Finding(name=name, severity=Severity.WARNING, what=what, remedy=remedy, **about)


def note(name: str, what: str, remedy: str = "nothing", **about: Any) -> Finding:
    """Find something that is worth knowing."""
    return Finding(name=name, severity=Severity.NOTE, what=what, remedy=remedy, **about)
