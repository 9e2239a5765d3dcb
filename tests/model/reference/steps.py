"""One step: guard, delay, window, gate, attempts (§5)."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

from tests.model.reference import handlers
from tests.model.reference.handlers import GONE, IN_PROCESS, Asleep, Broken, Done
from tests.model.reference.moments import back_off, delayed_until, duration, opening
from tests.model.reference.places import INTERNAL, Json, Place
from tests.model.reference.tasks import CANCELLED, COMPLETED, FAILED, SKIPPED, Ended, Stand, Waits
from tests.model.reference.values import BadExpression, BadTemplate, as_text, evaluate, render, truthy

if TYPE_CHECKING:
    from tests.model.reference.interpreter import Flow

DUE, ANSWERED, RESUMED, CANCEL, ENDED, LOST = "due", "answered", "resumed", "cancel", "ended", "lost"
GATE_MARK = "_orch8_human_gate"
SOME_TEXT = "…"
"""Stands for a message that the contract does not give."""


class _Withdrawn(Exception):
    """The step is cancelled."""


class _TooLate(Exception):
    """The step's deadline has passed."""


def run_step(flow: "Flow", block: Json, place: Place) -> Waits:
    """Run a step to its end."""
    step = _Step(flow, block, place)
    try:
        return (yield from step.run())
    except _Withdrawn:
        return Ended(CANCELLED)
    except _TooLate:
        return step.missed_deadline()


def begin(flow: "Flow", stand: Stand) -> Any:
    """Build the params of a claimed step; gives the outcome of a built-in handler or of params that cannot be built."""
    step: _Step = stand.owner
    view = step.view()
    try:
        params = step.params(view)
    except BadTemplate as error:
        return Broken(str(error))
    step.seen = params
    step.announce()
    return handlers.run(step.block["handler"], params, view) if stand.in_process else None


def take_back(stand: Stand) -> None:
    """Take back a task that nobody has claimed: the flow was running and is paused now."""
    if stand.phase == "ready":
        stand.phase, stand.target, stand.due = "held", "ready", None


def hold(stand: Stand) -> None:
    """Take back, for a pause, what no handler has in hand."""
    if stand.phase == "ready" and stand.in_process:
        stand.phase, stand.target = "held", "ready"
    elif stand.phase == "asleep" and not sleeps_on(stand):
        stand.phase, stand.target, stand.due = "held", "ready", None


def interrupt(stand: Stand) -> None:
    """Take back a step whoever has it: the state of its instance was set by hand."""
    if stand.phase in {"ready", "claimed", "asleep"}:
        stand.phase, stand.target, stand.due, stand.outcome = "held", "ready", None, None


def sleeps_on(stand: Stand) -> bool:
    """Say whether a sleep withstands a pause."""
    return not stand.cancellable


def is_shielded(stand: Stand, kind: str) -> bool:
    """Say whether a step withstands a cancellation: not cancellable, and running or waiting."""
    return kind != INTERNAL and not stand.cancellable and stand.phase in {"ready", "claimed", "asleep", "gate"}


class _Step:
    def __init__(self, flow: "Flow", block: Json, place: Place) -> None:
        self.flow, self.block, self.place = flow, block, place
        self.seen: Any = None
        self.started = flow.now
        self.deadline: datetime | None = None
        self.cache_key = ""
        self.is_announced = False
        self.stand = Stand(
            key=(block["id"], place.iteration),
            is_step=True,
            in_process=block["handler"] in IN_PROCESS,
            place=place,
            cancellable=block.get("cancellable", True),
            owner=self,
        )

    def params(self, view: Any) -> Any:
        """Resolve params; what is an expression stays."""
        given = self.block.get("params")
        exempt = {"assert": "condition", "transform": "expression", "self_modify": "blocks"}.get(self.block["handler"])
        if isinstance(given, dict) and exempt in given:
            return {**render({k: v for k, v in given.items() if k != exempt}, view), exempt: given[exempt]}
        return render(given, view)

    def run(self) -> Waits:
        if (when := self.block.get("when")) is not None:
            try:
                holds = truthy(evaluate(when, self.flow.view(self.block["id"], self.place), strict=True))
            except BadExpression:
                return self.failed(Broken(SOME_TEXT))
            if not holds:
                return Ended(SKIPPED)
        memory = self.flow.memory(self.block["id"], self.place)
        yield from self.delays(memory)
        self.started = self.flow.now
        if "deadline" in self.block:
            self.deadline = self.started + duration(self.block["deadline"])
        if "wait_for_input" in self.block and not memory.get("is_answered"):
            ended = yield from self.human_gate()
            if ended is not None:
                return ended
            memory["is_answered"] = True
        ended = memory.get("handled") or (yield from self.attempts())
        gate = self.block.get("wait_for_signal", False)  # an empty object is a gate as well
        if gate is False or ended.state != COMPLETED:
            return ended
        memory["handled"] = ended
        return (yield from self.open_gate(gate if isinstance(gate, dict) else {}))

    def wait(self, phase: str, due: Any = None) -> Any:
        """Stand somewhere until a message comes; a cancel ends the step."""
        if self.deadline is not None:
            due = min(due or self.deadline, self.deadline)
        self.stand.phase, self.stand.due = phase, due
        message = yield self.stand
        if message == CANCEL:
            raise _Withdrawn
        if (message == DUE or isinstance(message, Broken)) and self.is_too_late():
            raise _TooLate
        return message

    def view(self) -> Any:
        """Give what params and cache keys can read."""
        seen = self.flow.view(self.block["id"], self.place, attempt=self.stand.attempt)
        return seen.filtered(self.block.get("context_access"))

    def announce(self) -> None:
        """Tell the interceptor before the first attempt."""
        if not self.is_announced:
            self.is_announced = True
            self.flow.intercept("before_step", f"_interceptor:before:{self.block['id']}")

    def is_too_late(self) -> bool:
        return self.deadline is not None and self.flow.now >= self.deadline

    def missed_deadline(self) -> Ended:
        elapsed = self.flow.now - self.started
        row = {
            "_error": "sla_deadline_breached",
            "_deadline_ms": round(duration(self.block["deadline"]).total_seconds() * 1000),
            "_elapsed_ms": round(elapsed.total_seconds() * 1000),
        }
        self.flow.add_row(self.block["id"], self.place, row, self.stand.attempt, mark="__error__")
        return Ended(FAILED, self.block["id"], self.block["id"], SOME_TEXT)

    def delays(self, memory: dict[str, Any]) -> Any:
        flow = self.flow
        if (delay := self.block.get("delay")) and not memory.get("is_delayed"):
            due = delayed_until(delay, flow.now, flow.timezone, flow.config.get("holidays") or [])
            if due > flow.now:
                yield from self.wait("delayed", due)
            memory["is_delayed"] = True
        yield from self.window()

    def window(self) -> Any:
        """Wait while the send window is shut."""
        flow = self.flow
        while window := self.block.get("send_window"):
            opens = opening(window, flow.now, flow.timezone)
            if opens <= flow.now:
                break
            yield from self.wait("window", opens)

    def unheld(self, target: str) -> Any:
        """Wait for a resume if the flow is pausing."""
        while self.flow.pausing:
            self.stand.target = target
            yield from self.wait("held")

    def handed_out(self, *, again: bool) -> Any:
        """Wait until workers may have the step: in its window, unless one has died with it, and not in a pause."""
        if not again:
            yield from self.window()
        while self.flow.pausing:
            yield from self.unheld("ready")
            yield from self.window()

    # -- gates ---------------------------------------------------------------------------------------------------

    def human_gate(self) -> Any:
        gate = self.block["wait_for_input"]
        flow, block_id = self.flow, self.block["id"]
        choices = [choice["value"] for choice in gate.get("choices") or [{"value": "yes"}, {"value": "no"}]]
        yield from self.unheld("gate")
        due = flow.now + duration(gate["timeout"]) if "timeout" in gate else None
        while True:
            while answer := flow.take_mail(block_id):
                name, payload = answer
                value = payload.get("value") if isinstance(payload, dict) else None
                if name is None:
                    value = _short_value(payload, choices)
                if isinstance(value, str) and value in choices:
                    row = {"value": value, GATE_MARK: True}
                    if gate.get("allow_comment") and isinstance(payload.get("comment"), str):
                        row["comment"] = payload["comment"]
                    flow.add_row(block_id, self.place, row)
                    flow.write(self.place, (gate.get("store_as") or block_id,), value)
                    return None
            if (yield from self.wait("gate", due)) == DUE:
                return self.gate_timed_out(gate)

    def gate_timed_out(self, gate: Json) -> Ended:
        if handler := gate.get("escalation_handler"):
            seconds = duration(gate["timeout"]).total_seconds()
            seconds = int(seconds) if seconds.is_integer() else seconds
            row = {"_escalated": True, "_escalation_handler": handler, "_timeout_seconds": seconds}
            self.flow.add_row(self.block["id"], self.place, row)
            return Ended(COMPLETED)
        return self.failed(Broken(SOME_TEXT))

    def open_gate(self, gate: Json) -> Waits:
        flow, block_id = self.flow, self.block["id"]
        due = flow.now + duration(gate["timeout"]) if "timeout" in gate else None
        answer = flow.take_mail(block_id)
        if answer is None:
            if (yield from self.wait("gate", due)) == DUE:
                return self.gate_timed_out(gate)
            answer = flow.take_mail(block_id)
        assert answer
        payload = answer[1]
        row = payload if isinstance(payload, dict) else {"value": payload}
        flow.add_row(block_id, self.place, row, self.stand.attempt)
        flow.write(self.place, (block_id,), payload)
        return Ended(COMPLETED)

    # -- attempts ------------------------------------------------------------------------------------------------

    def attempts(self) -> Waits:
        while True:
            outcome = yield from self.attempt()
            if isinstance(outcome, Done):
                return self.completed(outcome)
            if not self.tries_again(outcome):
                return self.failed(outcome)
            yield from self.wait("backoff", self.flow.now + back_off(self.block["retry"], self.stand.attempt))
            self.stand.attempt += 1

    def attempt(self) -> Any:
        """Get the outcome of one attempt: from a worker, after a sleep, or from the clock."""
        timeout = self.block.get("timeout")
        queued_until: datetime | None = None
        is_lost = False
        limit = f"step timed out after {round(duration(timeout).total_seconds() * 1000)} ms" if timeout else ""
        while True:
            yield from self.handed_out(again=is_lost)
            if refused := self.unbuildable():
                return refused
            self.flow.announced.add(f"_interceptor:before:{self.block['id']}")
            name = f"_cache:{self.cache_key}"
            if name in self.flow.values:
                return self.unbuildable(with_params=True) or Done(self.flow.values[name])
            due = self.flow.now + duration(timeout) if timeout and not self.stand.in_process else None
            message = yield from self.wait("ready", queued_until or due)
            queued_until = (queued_until or due) if message == LOST and not self.flow.pausing else None
            if is_lost := message == LOST:
                continue
            if message == DUE:
                return Broken(limit, retryable=True, kind="timeout")
            if message == RESUMED:
                continue
            if not isinstance(message, Asleep):
                return message
            ends = self.flow.now + duration(message.milliseconds)
            last = self.flow.now + duration(timeout) if timeout else ends
            if self.flow.pausing and not sleeps_on(self.stand):
                continue
            if (yield from self.wait("asleep", min(ends, last))) == RESUMED:
                continue
            return Done(message.output) if ends <= last else Broken(limit, retryable=True, kind="timeout")

    def unbuildable(self, *, with_params: bool = False) -> Broken | None:
        """Give the failure of a cache key, or of a task's params, that cannot be built: such a step is never queued."""
        try:
            view = self.view()
            if with_params or not self.stand.in_process:
                self.params(view)
            try:
                key = render(self.block.get("cache_key"), view)
            except BadTemplate:
                self.params(view)
                raise
            self.cache_key = "" if key is None else as_text(key)
        except BadTemplate as error:
            return Broken(str(error))
        return None

    def tries_again(self, failure: Broken) -> bool:
        retry = self.block.get("retry")
        if not failure.retryable or not retry or self.stand.attempt + 1 >= retry["max_attempts"]:
            return False
        details = failure.details if isinstance(failure.details, dict) else {}
        codes = [str(details[name]) for name in ("error_code", "code", "status") if name in details]
        if any(code in retry.get("non_retryable_codes", []) for code in codes):
            return False
        if "retryable_errors" in retry and not _is_listed(failure, codes, retry["retryable_errors"]):
            return False
        if "retry_if" not in retry:
            return True
        error = {"message": failure.message} | ({"details": failure.details} if failure.details is not None else {})
        view = self.flow.view(self.block["id"], self.place, attempt=self.stand.attempt)
        view.sections["data"]["_error"] = error
        return truthy(evaluate(retry["retry_if"], view))

    def completed(self, done: Done) -> Ended:
        flow = self.flow
        if not _fits(done.output, self.block.get("output_schema")):
            return self.failed(Broken(SOME_TEXT))
        if done.blocks and not flow.inject(list(done.blocks), done.position):
            return self.failed(Broken(SOME_TEXT))
        flow.intercept("after_step", f"_interceptor:after:{self.block['id']}")
        flow.add_row(self.block["id"], self.place, done.output, self.stand.attempt)
        if self.cache_key:
            flow.values[f"_cache:{self.cache_key}"] = done.output
        if not self.stand.in_process and isinstance(done.output, dict):
            for name, value in done.output.items():
                flow.write(self.place, (name,), value)
        for path, value in done.data:
            flow.write(self.place, path, value)
        for key, value in done.state.items():
            if value is GONE:
                flow.values.pop(key, None)
            else:
                flow.values[key] = value
        return Ended(COMPLETED)

    def failed(self, failure: Broken) -> Ended:
        if self.place.is_root and self.stand.in_process:
            row = {"__error__": True, "retryable": False, "message": failure.message}
            self.flow.add_row(self.block["id"], self.place, row, self.stand.attempt, mark="__error__")
        return Ended(FAILED, self.block["id"], self.block["id"], failure.message)


def _fits(output: Any, schema: Json | None) -> bool:
    """Check the schemas that programs have: a type, and members that are required."""
    if schema is None:
        return True
    return isinstance(output, dict) and all(name in output for name in schema.get("required", []))


def _is_listed(failure: Broken, codes: list[str], listed: list[str]) -> bool:
    details = failure.details if isinstance(failure.details, dict) else {}
    status = str(details.get("status", ""))
    classes = {failure.kind, "429" if status == "429" else "", "5xx" if status[:1] == "5" else ""}
    return any(entry in codes or entry in classes or entry in failure.message for entry in listed)


YES, NO = ("approved", "yes", "true", "approve"), ("rejected", "no", "false", "reject")


def _short_value(payload: Any, choices: list[str]) -> Any:
    """Read the choice out of a signal without a name (§16)."""
    given = payload if isinstance(payload, dict) else {}
    value = next((given[name] for name in ("value", "decision", "choice") if name in given), None)
    if value is None and isinstance(given.get("approved"), bool):
        value = "yes" if given["approved"] else "no"
    if value in choices:
        return value
    group = next((words for words in (YES, NO) if value in words), ())
    fitting = [choice for choice in choices if choice in group]
    return fitting[0] if len(fitting) == 1 else None
