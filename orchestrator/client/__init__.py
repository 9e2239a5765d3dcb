"""Use the orchestrator from application code.

    from orchestrator.client import Client

    with Client("http://127.0.0.1:8080", tenant="shop") as client:
        client.create_sequence({"id": "greet", "blocks": [{"handler": "transform", "params": {"text": "hello"}}]})
        started = client.start("greet", {"order": 17}, idempotency_key="order-17")
        instance = client.wait(started.id, timeout=60)
        print(instance.state, client.output(started.id, "transform"))

`AsyncClient` has the same methods, to be awaited. Both are thin: requests, shapes, and what may be repeated when are
in `calls`, `shapes` and `transport`.

A start carries an idempotency key, yours or one made for the call, so a connection lost at the worst moment never
starts anything twice. Reads are repeated too. What cannot be repeated safely, such as a signal, is not: the error says
whether it may have been carried out.

>>> from orchestrator.errors import ServerUnavailable
>>> with Client("http://127.0.0.1:9", patience=Patience(tries=1)) as client:
...     try:
...         client.start("greet")
...     except ServerUnavailable as error:
...         error.may_be_done
False
"""

from orchestrator.client.asynchronous import AsyncClient
from orchestrator.client.calls import StartOptions
from orchestrator.client.course_calls import (
    BatchResult,
    Checkpoint,
    Comparison,
    Effect,
    FailureGroup,
    Fork,
    ForkPreview,
    GroupRetried,
    Injected,
    ResumedFrom,
    Timeline,
)
from orchestrator.client.credential_calls import Credential, Renewal
from orchestrator.client.delivery_calls import (
    Delivery,
    DeliveryAttempt,
    Dispatch,
    Handlers,
    RedeliverPreview,
    RoutingRule,
    VersionPin,
    Webhook,
    WorkerCommand,
)
from orchestrator.client.diagnosis_calls import (
    Cause,
    Diagnosis,
    LogLine,
    NextEvent,
    PreviewedStep,
    Remediation,
    Workbench,
)
from orchestrator.client.following import StreamEvent
from orchestrator.client.registry_calls import (
    Change,
    ChangePage,
    Event,
    EventOutcome,
    Migrated,
    MigratedMany,
    Node,
    Plugin,
    Session,
)
from orchestrator.client.resource_calls import Breaker, Pool, Promoted, RateLimit, Resource
from orchestrator.client.shapes import (
    ApiKey,
    Approval,
    Attempt,
    AuditRow,
    Choice,
    Context,
    Definition,
    Instance,
    NewApiKey,
    OutputRow,
    Page,
    QueueView,
    Started,
    StoredSequence,
    Task,
    TreeNode,
    Usage,
    UsageGroup,
    UsageRow,
    WorkerView,
)
from orchestrator.client.starting_calls import Fired, NewSchedule, Schedule, Trigger
from orchestrator.client.synchronous import Client
from orchestrator.client.task_calls import TaskEvent, TaskStats, WorkerTask
from orchestrator.client.transport import Patience
from orchestrator.core.states import InstanceState, NodeState

__all__ = [
    "ApiKey",
    "Approval",
    "AsyncClient",
    "Attempt",
    "AuditRow",
    "BatchResult",
    "Breaker",
    "Cause",
    "Change",
    "ChangePage",
    "Checkpoint",
    "Choice",
    "Client",
    "Comparison",
    "Context",
    "Credential",
    "Definition",
    "Delivery",
    "DeliveryAttempt",
    "Diagnosis",
    "Dispatch",
    "Effect",
    "Event",
    "EventOutcome",
    "FailureGroup",
    "Fired",
    "Fork",
    "ForkPreview",
    "GroupRetried",
    "Handlers",
    "Injected",
    "Instance",
    "InstanceState",
    "LogLine",
    "Migrated",
    "MigratedMany",
    "NewApiKey",
    "NewSchedule",
    "NextEvent",
    "Node",
    "NodeState",
    "OutputRow",
    "Page",
    "Patience",
    "Plugin",
    "Pool",
    "PreviewedStep",
    "Promoted",
    "QueueView",
    "RateLimit",
    "RedeliverPreview",
    "Remediation",
    "Renewal",
    "Resource",
    "ResumedFrom",
    "RoutingRule",
    "Schedule",
    "Session",
    "StartOptions",
    "Started",
    "StoredSequence",
    "StreamEvent",
    "Task",
    "TaskEvent",
    "TaskStats",
    "Timeline",
    "TreeNode",
    "Trigger",
    "Usage",
    "UsageGroup",
    "UsageRow",
    "VersionPin",
    "Webhook",
    "Workbench",
    "WorkerCommand",
    "WorkerTask",
    "WorkerView",
]
