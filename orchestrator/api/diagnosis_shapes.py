"""What clients read of why an instance stands where it stands, and of what can be done about it."""

from datetime import datetime
from typing import Any
from uuid import UUID

from orchestrator.api.instance_shapes import Attempt, AuditRow, TaskInstance, TreeNode
from orchestrator.api.shapes import Shape
from orchestrator.api.step_logs import LogLine
from orchestrator.core.states import InstanceState, StepState
from orchestrator.findings import Severity
from orchestrator.remediation import Action


class Cause(Shape):
    """One thing that an instance waits for, or that it has ended by.

    `name` is the kind of it; `until` says when it is over by itself, null if nobody can say; `details` are by kind.
    """

    name: str
    severity: Severity
    what: str
    remedy: str
    block_id: str | None
    until: datetime | None
    details: dict[str, Any]


class NextEvent(Shape):
    """What happens next; `at` is null when it is up to somebody."""

    what: str
    at: datetime | None
    block_id: str | None


class Diagnosis(Shape):
    """Why an instance stands where it stands; `next` is null when nothing will happen any more."""

    instance_id: UUID
    state: InstanceState
    summary: str
    causes: list[Cause]
    next: NextEvent | None
    generated_at: datetime


class PreviewedStep(Shape):
    """An open step as it would read."""

    block_id: str
    iteration: list[int]
    handler: str
    queue: str
    attempt: int
    state: StepState
    wake_at: datetime | None


class Remediation(Shape):
    """What one action would do. It can be applied as long as the instance stands as it did."""

    preview_id: str
    instance_id: UUID
    action: Action
    summary: str
    safe: bool
    from_state: InstanceState
    to_state: InstanceState
    steps: list[PreviewedStep]


class RemediationApplied(Shape):
    """What was done, and the state of the instance afterwards."""

    preview_id: str
    instance_id: UUID
    action: Action
    state: InstanceState


class KeptSignalView(Shape):
    """A signal that no gate has taken yet."""

    name: str | None
    created_at: datetime


class Workbench(Shape):
    """All that is needed to look into one instance, as it was at one moment.

    Lists are cut: the newest 200 of `audit`, the newest 200 of `attempts` (the oldest of them first) and of `logs`.
    """

    instance: TaskInstance
    diagnosis: Diagnosis
    remediations: list[Remediation]
    tree: list[TreeNode]
    attempts: list[Attempt]
    audit: list[AuditRow]
    logs: list[LogLine]
    signals: list[KeptSignalView]
    children: list[TaskInstance]
