"""Signals as clients write them, and which choice of a gate an answer means (§9.4, §5.5, §16)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

HUMAN_INPUT_PREFIX: Final = "human_input:"


class SignalError(ValueError):
    """The type of a signal has none of the accepted forms; the client's fault, HTTP 422."""


class Control(StrEnum):
    """A signal the engine itself acts on."""

    PAUSE = "pause"
    RESUME = "resume"
    CANCEL = "cancel"
    UPDATE_CONTEXT = "update_context"


@dataclass(frozen=True, slots=True)
class Custom:
    """A signal for the flow; without a name it answers the gate the flow stands at."""

    name: str | None


SignalType = Control | Custom


def parse_signal(body: Mapping[str, Any]) -> SignalType:
    """Read the type of a signal from a request: `signal_type` or its alias `type`, in the long or a short form.

    >>> parse_signal({"signal_type": {"custom": "human_input:a"}})
    Custom(name='human_input:a')
    >>> parse_signal({"type": "custom", "name": "go"})
    Custom(name='go')

    Raises:
        SignalError: The member is missing or is none of the accepted forms.
    """
    written = body.get("signal_type")
    if written is None:
        written = body.get("type")
    return parse_signal_type(written, name=body.get("name"))


def parse_signal_type(written: object, *, name: object = None) -> SignalType:
    """Read a signal type; `name` is the member beside a bare `"custom"`. Raises `SignalError`."""
    match written:
        case "pause" | "resume" | "cancel" | "update_context":
            return Control(written)
        case "custom" if name is None or isinstance(name, str):
            return Custom(name)
        case {"custom": str() as custom}:
            return Custom(custom)
        case None:
            raise SignalError("missing field `signal_type`")
        case _:
            expected = 'expected "pause", "resume", "cancel", "update_context" or {"custom": "<name>"}'
            raise SignalError(f"signal_type: {expected}")


def written_type(signal: SignalType) -> str | dict[str, str]:
    """Return the canonical wire form of a signal type; a nameless custom signal is `"custom"`."""
    if isinstance(signal, Control):
        return signal.value
    return "custom" if signal.name is None else {"custom": signal.name}


def exact_choice(payload: object, values: Iterable[str]) -> str | None:
    """Return the choice a `human_input:<block id>` signal makes: only `payload.value`, only an exact value."""
    value = payload.get("value") if isinstance(payload, Mapping) else None
    return value if isinstance(value, str) and value in tuple(values) else None


_YES: Final = frozenset({"approved", "yes", "true", "approve"})
_NO: Final = frozenset({"rejected", "no", "false", "reject"})


def nameless_choice(payload: object, values: Iterable[str]) -> str | None:
    """Return the choice a nameless answer makes, or None if it makes none (§16).

    The text is `value`, else `decision`, else `choice`, else `approved` as yes or no. A text that is no choice is
    mapped when it is one side of a known pair and exactly one choice is on that side.

    >>> nameless_choice({"decision": "approved"}, ("yes", "no"))
    'yes'
    """
    choices = tuple(values)
    text = _answer_text(payload)
    if text is None or text in choices:
        return text
    side = next((side for side in (_YES, _NO) if text.lower() in side), None)
    same = [choice for choice in choices if side and choice.lower() in side]
    return same[0] if len(same) == 1 else None


def _answer_text(payload: object) -> str | None:
    if not isinstance(payload, Mapping):
        return None
    for member in ("value", "decision", "choice"):
        if payload.get(member) is not None:
            return _as_text(payload[member])
    approved = payload.get("approved")
    if isinstance(approved, bool):
        return "yes" if approved else "no"
    return _as_text(approved)


def _as_text(answer: object) -> str | None:
    if isinstance(answer, bool):
        return "true" if answer else "false"
    return answer if isinstance(answer, str) else None
