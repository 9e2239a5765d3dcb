"""Requests about why an instance stands where it stands. Source: contract, api §21."""

from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.client.calls import Id, instance_path
from orchestrator.client.forms import part, read_one, read_rows
from orchestrator.client.shapes import Attempt, AuditRow, Instance, Shape, TreeNode
from orchestrator.client.transport import Call
from orchestrator.core.states import InstanceState


class Cause(Shape):
    """One thing that an instance waits for, or that it has ended by.

    Attributes:
        name: The kind of it.
        severity: `note`, `warning` or `error`.
        remedy: What to do.
        until: When it is over by itself; None if nobody can say.
    """

    name: str
    severity: str
    what: str
    remedy: str
    block_id: str | None = None
    until: datetime | None = None
    details: dict[str, Any]


class NextEvent(Shape):
    """What happens next; `at` is None when it is up to somebody."""

    what: str
    at: datetime | None = None
    block_id: str | None = None


class Diagnosis(Shape):
    """Why an instance stands where it stands; `next` is None when nothing will happen any more."""

    instance_id: UUID
    state: InstanceState
    summary: str
    causes: tuple[Cause, ...]
    next: NextEvent | None = None
    generated_at: datetime


class PreviewedStep(Shape):
    """An open step as it would read."""

    block_id: str
    iteration: tuple[int, ...] = ()
    handler: str
    queue: str
    attempt: int
    state: str
    wake_at: datetime | None = None


class Remediation(Shape):
    """What one action would do; it can be applied as long as the instance stands as it did."""

    preview_id: str
    instance_id: UUID
    action: str
    summary: str
    from_state: InstanceState
    to_state: InstanceState
    steps: tuple[PreviewedStep, ...]


class LogLine(Shape):
    """A line that a step has logged."""

    block_id: str
    ts: Any
    level: str
    message: str


class Workbench(Shape):
    """All that is needed to look into one instance, as it was at one moment."""

    instance: Instance
    diagnosis: Diagnosis
    remediations: tuple[Remediation, ...]
    tree: tuple[TreeNode, ...]
    attempts: tuple[Attempt, ...]
    audit: tuple[AuditRow, ...]
    logs: tuple[LogLine, ...]
    signals: tuple[dict[str, Any], ...]
    children: tuple[Instance, ...]


def diagnosis(instance_id: Id) -> Call[Diagnosis]:
    """Say why an instance stands where it stands."""
    path = f"{instance_path(instance_id)}/diagnosis"
    return read_one(path, Diagnosis)


def remediations(instance_id: Id) -> Call[tuple[Remediation, ...]]:
    """Say what can be done about an instance."""
    return read_rows(f"{instance_path(instance_id)}/remediations", Remediation)


def apply_remediation(instance_id: Id, preview_id: str) -> Call[InstanceState]:
    """Do what was previewed."""
    path = f"{instance_path(instance_id)}/remediations/{part(preview_id)}/apply"
    return Call(method="POST", path=path, read=lambda _status, body: InstanceState(body["state"]))


def workbench(instance_id: Id) -> Call[Workbench]:
    """Read all that is needed to look into one instance."""
    path = f"{instance_path(instance_id)}/workbench"
    return read_one(path, Workbench)


def logs(instance_id: Id) -> Call[tuple[LogLine, ...]]:
    """Read what the steps of an instance have logged."""
    return read_rows(f"{instance_path(instance_id)}/logs", LogLine)
