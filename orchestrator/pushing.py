"""The door for tasks that are pushed to an address, and what becomes of the answers (contract, api §13.8, §20.6).

A push is no claim: the task stays pending, and whoever polls may have it. Only an answer that ends the task claims it,
for the moment of its report; if somebody has polled it meanwhile, the answer is theirs to give.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

import orjson
import structlog

from orchestrator.core.outcomes import Completed, Failed, FailureKind, Outcome
from orchestrator.core.states import StepState
from orchestrator.credential_use import CredentialUse, without
from orchestrator.egress import Egress
from orchestrator.engine import Engine
from orchestrator.errors import InvalidArgument, StoreUnavailable
from orchestrator.exchange import Report
from orchestrator.posting import ErrorClass, Posted, Posting, post_all
from orchestrator.renewal import Renewer
from orchestrator.slices import Plans
from orchestrator.storable import check_storable
from orchestrator.store import claiming, counters, dispatch, leases
from orchestrator.store.claiming import Worker
from orchestrator.store.dispatch import DispatchConfig, Push
from orchestrator.store.leases import HeldTask
from orchestrator.store.postgres import PostgresStore
from orchestrator.task_inputs import TaskInputs, context_of, inputs_now
from sequences.json_values import json_bytes
from sequences.scope import plain

log = structlog.get_logger()

RETRY_AFTER: Final = (timedelta(seconds=0.5), timedelta(seconds=1), timedelta(seconds=1.5))
LEASE: Final = timedelta(seconds=30)
"""Three times as long as a try may take; then the sender counts as dead."""
PUSHER: Final = Worker(id=None, name="push")
PUSHED, PUSH_FAILED = "orch8_tasks_pushed", "orch8_tasks_push_failed"
NO_INPUTS: Final = "the parameters of the task cannot be made: a template is wrong"
_LATER = 202
_BUSY: Final = frozenset({408, 429})
_FORGET_AT_ONCE: Final = 1000

Settled = tuple[Push, int, timedelta | None]
"""A push, how many of its tries have failed, and how long until the next one; None for never."""


class Pushes:
    """Tasks of push queues on their way.

    Args:
        egress: The way out; one as the settings allow if None.
    """

    def __init__(self, store: PostgresStore, engine: Engine, egress: Egress | None = None) -> None:
        self._store = store
        self._engine = engine
        self._plans = Plans()
        self._max_output_bytes = engine.settings.max_output_bytes
        self._egress = egress or Egress(allow_internal=engine.settings.allow_internal_urls)
        self._use = CredentialUse(store, Renewer(store, self._egress))

    def is_asked_to_push(self) -> bool:
        """Tell whether the tasks of any queue are to be pushed."""
        with self._store.transaction(is_single=True) as tx:
            return bool(dispatch.push_queues(tx))

    def push_due(self, limit: int) -> int:
        """Push what is due, of every push queue up to `limit` tasks, at the same time; returns how many."""
        with self._store.transaction() as tx:
            claimed = [
                (config, push)
                for config in dispatch.push_queues(tx)
                for push in dispatch.claim(tx, config, lease=LEASE, limit=limit)
            ]
        if not claimed:
            return 0
        tasks = self._tasks([push.step_id for _, push in claimed])
        ready = [(config, push, tasks[push.step_id]) for config, push in claimed if push.step_id in tasks]
        sent = post_all(self._egress, [self._posting(config, task) for config, _, task in ready])
        counts: Counter[str] = Counter()
        settled: list[Settled] = [(push, push.tries, None) for _, push in claimed if push.step_id not in tasks]
        for (config, push, task), posted in zip(ready, sent, strict=True):
            settled.append(self._settle(config, push, task, posted, counts))
        self._write(settled, counts)
        return len(claimed)

    def next_due(self) -> timedelta | None:
        """Say how long until a task is to be pushed again; None if none is."""
        with self._store.transaction(is_single=True) as tx:
            return dispatch.next_due(tx)

    def forget_ended(self) -> int:
        """Remove what is remembered of tasks that have ended."""
        with self._store.transaction() as tx:
            return dispatch.forget_ended(tx, _FORGET_AT_ONCE)

    def _tasks(self, step_ids: Sequence[UUID]) -> dict[UUID, "_Ready"]:
        """Read tasks with what they are given; those that are gone are left out.

        A task whose parameters cannot be made fails, as it does when it is polled.
        """
        with self._store.transaction() as tx:
            held = [each for each in leases.held_tasks(tx, step_ids) if each.step.state is StepState.READY]
            made = inputs_now(self._plans, tx, held, with_outputs=True)
        ready: dict[UUID, _Ready] = {}
        for task in held:
            inputs = made.get(task.step.id)
            failure = Failed(message=NO_INPUTS, retryable=False, kind=FailureKind.INPUT)
            filled = failure if inputs is None else self._with_secrets(task, inputs)
            if isinstance(filled, Failed):
                self._report(task, filled)
            else:
                ready[task.step.id] = filled
        return ready

    def _with_secrets(self, task: HeldTask, inputs: TaskInputs) -> "_Ready | Failed":
        dry_run = bool(inputs.scope.runtime.get("dry_run"))
        filled = self._use.fill(inputs.params, task.step.tenant_id, is_dry_run=dry_run)
        if isinstance(filled, Failed):
            return filled
        return _Ready(held=task, inputs=replace(inputs, params=filled.params), secrets=filled.secrets)

    def _posting(self, config: DispatchConfig, task: "_Ready") -> Posting:
        step, made = task.held.step, task.inputs
        envelope = {
            "task_id": step.id,
            "instance_id": task.held.instance_id,
            "block_id": step.key.block_id,
            "handler_name": step.handler,
            "queue_name": step.queue,
            "params": made.params,
            "context": context_of(made.scope),
            "attempt": step.attempt,
            "timeout_ms": None if step.timeout is None else round(step.timeout.total_seconds() * 1000),
            "outputs": plain(made.outputs),
        }
        return Posting(
            url=config.push_url or "",
            body=json_bytes(envelope),
            secret=config.secret,
            second_secret=config.second_secret,
            follows=True,
            reads=self._max_output_bytes,
            secrets=task.secrets,
        )

    def _settle(
        self, config: DispatchConfig, push: Push, task: "_Ready", posted: Posted, counts: Counter[str]
    ) -> Settled:
        """Let an answer take effect."""
        if posted.error is None:
            counts[PUSHED] += 1
            outcome = outcome_of_answer(posted)
            if outcome is not None:
                self._report(task.held, _cleared(outcome, task.secrets))
            return push, push.tries, None
        if config.sync and posted.status is not None:
            counts[PUSHED] += 1
            self._report(task.held, _failure(posted))
            return push, push.tries, None
        if (not posted.is_final or posted.status is not None) and push.tries < len(RETRY_AFTER):
            return push, push.tries + 1, RETRY_AFTER[push.tries]
        counts[PUSH_FAILED] += 1
        log.warning("task_not_pushed", task_id=str(push.step_id), error_class=str(posted.error))
        if config.sync:
            self._report(task.held, _failure(posted))
        return push, push.tries + 1, None

    def _report(self, task: HeldTask, outcome: Outcome) -> None:
        """Claim a task and end it at once; nothing if somebody has polled it, or if it cannot be ended."""
        try:
            with self._store.transaction() as tx:
                claim = claiming.claim_one(tx, task.step.id, [task.step.handler], PUSHER)
            if claim is not None:
                self._engine.finish([Report(claim=claim, outcome=outcome)])
        except StoreUnavailable:
            raise
        except Exception:
            log.exception("push_answer_refused", task_id=str(task.step.id))

    def _write(self, settled: Sequence[Settled], counts: Mapping[str, int]) -> None:
        with self._store.transaction() as tx:
            for push, tries, again_after in sorted(settled, key=lambda each: each[0].step_id):
                dispatch.settle(tx, push, tries=tries, again_after=again_after)
            counters.add(tx, counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """A task that can be pushed, with the secrets that its params hold."""

    held: HeldTask
    inputs: TaskInputs
    secrets: tuple[str, ...] = field(default=(), repr=False)


def _cleared(outcome: Outcome, secrets: tuple[str, ...]) -> Outcome:
    """Give an outcome whose failure tells no secret; an output is the receiver's own business."""
    return replace(outcome, message=without(outcome.message, secrets)) if isinstance(outcome, Failed) else outcome


def outcome_of_answer(posted: Posted) -> Outcome | None:
    """Read what a receiver says of the task; None if it will be completed later.

    >>> outcome_of_answer(Posted(duration_ms=1, status=200, body=b'{"output": 7}')).output
    7
    >>> outcome_of_answer(Posted(duration_ms=1, status=202, body=b'{"output": 7}')) is None
    True
    """
    if posted.status == _LATER or not posted.body.strip():
        return None
    try:
        value: Any = orjson.loads(posted.body)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(value, dict):
        return None
    try:
        check_storable(value, posted.body)
    except InvalidArgument as refused:
        return Failed(message=f"the answer cannot be stored: {refused}", retryable=False)
    return Completed(output=value["output"] if set(value) == {"output"} else value, merges=True)


def _failure(posted: Posted) -> Failed:
    """Give the failure of a task from a refusal: 4xx is final, all else may be tried again (contract, api §20.6)."""
    status = posted.status
    message = posted.excerpt or str(posted.error)
    if status is None:
        kind = FailureKind.TIMEOUT if posted.error is ErrorClass.TIMEOUT else FailureKind.NETWORK
        return Failed(message=message, retryable=not posted.is_final, kind=kind)
    is_final = 400 <= status < 500 and status not in _BUSY
    return Failed(message=message, retryable=not is_final, details={"status": status})
