"""Child processes under one supervisor, which ends all of them however it ends itself."""

from orchestrator.supervision.ending import STOP_SECONDS, worker_grace
from orchestrator.supervision.interrupts import Interrupts
from orchestrator.supervision.printing import LinePrinter
from orchestrator.supervision.probing import answers
from orchestrator.supervision.supervisor import Backoff, ChildSpec, Supervisor

__all__ = [
    "STOP_SECONDS",
    "Backoff",
    "ChildSpec",
    "Interrupts",
    "LinePrinter",
    "Supervisor",
    "answers",
    "worker_grace",
]
