"""What a signal means to an instance, whoever sends it (sequences contract §9.4)."""

from typing import Any
from uuid import UUID

from orchestrator.core.events import (
    CancelRequested,
    ContextUpdated,
    PauseRequested,
    ResumeRequested,
    Signal,
    SignalReceived,
)
from sequences.signals import Control, Custom, SignalType


def event_of_signal(signal_id: UUID, signal: SignalType, payload: Any) -> Signal:
    """Say what a signal means; a context update without an object `data` changes nothing."""
    match signal:
        case Control.PAUSE:
            return PauseRequested(payload=payload)
        case Control.RESUME:
            return ResumeRequested(payload=payload)
        case Control.CANCEL:
            return CancelRequested(payload=payload)
        case Control.UPDATE_CONTEXT:
            data = payload.get("data") if isinstance(payload, dict) else None
            return ContextUpdated(data=data if isinstance(data, dict) else {}, payload=payload)
        case Custom(name=name):
            return SignalReceived(id=signal_id, name=name, payload=payload)
