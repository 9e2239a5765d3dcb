"""Letters: durable messages from one instance to another.

A decision sees one instance, and a transaction holds the lock of no instance that its events do not name. What one
instance has to tell another is therefore written down in the sender's transaction and opened in the recipient's:

    sender's commit ── row in `letters` ──► recipient's commit: what the letter says is done, and the row is gone

So a letter is written if and only if what it tells of has happened, and its effect takes place once, however often its
delivery is tried: whoever delivers says "look into your letter box" (`MailArrived`), and what is in the box is read
under the recipient's lock. Letters to one instance are opened in the order of their ids. A letter to an instance that
has ended, or that never was, has nobody to open it and is dropped.
"""

from dataclasses import dataclass
from typing import Any, assert_never
from uuid import UUID

from orchestrator.core.events import CancelRequested, ChildEnded, Event
from orchestrator.core.model import NodeKey, StepError
from orchestrator.core.signalling import event_of_signal
from orchestrator.core.states import InstanceState
from sequences.signals import SignalType, parse_signal_type, written_type


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentLetsGo:
    """The block that started the child no longer waits for it: the child is to end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalSent:
    """A signal to the recipient; the letter's id is the signal's."""

    signal: SignalType
    payload: Any


Content = ChildEnded | ParentLetsGo | SignalSent


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One message."""

    id: UUID
    sender: UUID
    recipient: UUID
    content: Content

    @property
    def event(self) -> Event:
        """What the letter means to its recipient."""
        match self.content:
            case ChildEnded():
                return self.content
            case ParentLetsGo():
                return CancelRequested()
            case SignalSent(signal=signal, payload=payload):
                return event_of_signal(self.id, signal, payload)
            case _:
                assert_never(self.content)


CHILD_ENDED, PARENT_LETS_GO, SIGNAL_SENT = "child_ended", "parent_lets_go", "signal_sent"


def written_content(content: Content) -> tuple[str, dict[str, Any]]:
    """Give the kind and the JSON body that the store keeps."""
    match content:
        case ChildEnded():
            return CHILD_ENDED, {
                "block_id": content.key.block_id,
                "iteration": list(content.key.iteration),
                "child": str(content.child),
                "state": content.state.value,
                "error": content.error.to_json() if content.error is not None else None,
            }
        case ParentLetsGo():
            return PARENT_LETS_GO, {}
        case SignalSent(signal=signal, payload=payload):
            return SIGNAL_SENT, {"signal_type": written_type(signal), "payload": payload}
        case _:
            assert_never(content)


def read_content(kind: str, body: Any) -> Content:
    """Read what `written_content` gave."""
    match kind:
        case "child_ended":
            return ChildEnded(
                key=NodeKey(body["block_id"], tuple(body["iteration"])),
                child=UUID(body["child"]),
                state=InstanceState(body["state"]),
                error=StepError.from_json(body["error"]),
            )
        case "parent_lets_go":
            return ParentLetsGo()
        case "signal_sent":
            return SignalSent(signal=parse_signal_type(body["signal_type"]), payload=body["payload"])
        case _:
            raise ValueError(f"unknown kind of letter {kind!r}")
