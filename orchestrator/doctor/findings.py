"""What a doctor finds."""

from dataclasses import dataclass
from enum import StrEnum


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
    """

    name: str
    severity: Severity
    what: str
    remedy: str


def error(name: str, what: str, remedy: str) -> Finding:
    """Find something that stops work."""
    return Finding(name=name, severity=Severity.ERROR, what=what, remedy=remedy)


def warning(name: str, what: str, remedy: str) -> Finding:
    """Find something that does harm."""
    return Finding(name=name, severity=Severity.WARNING, what=what, remedy=remedy)


def note(name: str, what: str, remedy: str = "nothing") -> Finding:
    """Find something that is worth knowing."""
    return Finding(name=name, severity=Severity.NOTE, what=what, remedy=remedy)
