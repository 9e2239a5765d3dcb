"""What is played: a document, the script of what happens to it, and a crash."""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

Block = dict[str, Any]


class When(StrEnum):
    """At which side of a commit something dies."""

    BEFORE = "before"
    """The engine and its workers die, and nothing is written; claims of its workers are lost."""
    AFTER = "after"
    """They die when it is written: the caller asks again, letters and children wait, claims are lost."""
    WORKER = "worker"
    """The external worker dies that has just claimed, or that was about to report."""


@dataclass(frozen=True)
class Crash:
    """A crash at one commit of a run; `commit` counts from 1."""

    commit: int
    when: When


@dataclass(frozen=True)
class Program:
    """A document and its script; all of it is JSON.

    Attributes:
        blocks: The root list.
        members: Other members of the document.
        children: The root lists of other sequences, by name.
        data: `context.data` at the start.
        config: `context.config`.
        timezone: Of the instance.
        outcomes: What external workers answer: for a block id the results of its executions, used in turn by attempt
            and iteration: `{"output": …}`, `{"fail": text, "retryable": bool, "details": …}` or `{"silent": true}`.
        answers: What people say at a gate, by block id, in order.
        choices: Numbers that choose what happens next, used in turn, then 0.
        signals: `{"at": number of events, "to": number of a flow, "type": …, "payload": …}`, in order. Beside the types
            of signals: `inject`, `replace_context`, `set_state`, `resume_from` and `fork`, what else a client asks for.
        afterwards: The same without `at`, for flows that have ended: done one by one when all have.
        retries: How often the flow is retried when it has failed.
        crash: The one crash, if there is one.
    """

    blocks: list[Block]
    members: dict[str, Any] = field(default_factory=dict)
    children: dict[str, list[Block]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    timezone: str = "UTC"
    outcomes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    answers: dict[str, list[Any]] = field(default_factory=dict)
    choices: list[int] = field(default_factory=list)
    signals: list[dict[str, Any]] = field(default_factory=list)
    afterwards: list[dict[str, Any]] = field(default_factory=list)
    retries: int = 0
    crash: Crash | None = None

    def text(self) -> str:
        """Write the program as JSON."""
        return json.dumps(asdict(self), indent=1)
