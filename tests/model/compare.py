"""Runs one program on the real core and on the reference interpreter, in lock-step, and compares them after each event.

A program is a list of blocks and a *script*: what external workers answer, in which order what could happen happens,
which signals come when. Both sides get the same events at the same virtual time; so what the contract leaves to chance
(which of two ready steps is taken first) is decided by the script, and all else must agree.
"""

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from orchestrator.core.model import Claim
from orchestrator.core.outcomes import Completed, Failed, Outcome
from tests.model.reference.handlers import Broken, Done
from tests.model.reference.interpreter import TERMINAL, Flow
from tests.model.reference.places import ancestors, everything_in
from tests.model.reference.steps import SOME_TEXT
from tests.model.reference.tasks import Key
from tests.support.drive import START, PureWorld

MAX_EVENTS = 2000
"""Events after which a program is taken for one that never ends."""


class Disagreement(AssertionError):
    """The core and the interpreter differ."""


@dataclass(frozen=True)
class Program:
    """A document and its script; all of it is JSON.

    Attributes:
        blocks: The root list.
        data: `context.data` at the start.
        config: `context.config`.
        outcomes: What external workers answer: for a block id the results of its executions, used in turn by attempt
            and iteration: `{"output": …}`, `{"fail": text, "retryable": bool, "details": …}` or `{"silent": true}`.
        answers: What people say at a gate, by block id, in order.
        choices: Numbers that choose what happens next, used in turn, then 0.
        signals: `{"at": number of events, "type": …, "payload": …}`, in order.
        crash: Number of the claim whose worker dies, and whether that is `before` or `after` its report is committed.
    """

    blocks: list[dict[str, Any]]
    data: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    outcomes: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    answers: dict[str, list[Any]] = field(default_factory=dict)
    choices: list[int] = field(default_factory=list)
    signals: list[dict[str, Any]] = field(default_factory=list)
    crash: tuple[int, str] | None = None

    def text(self) -> str:
        """Write the program as JSON."""
        return json.dumps(asdict(self), indent=1)


class Match:
    """One run of a program on both sides."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.world = PureWorld()
        self.real = self.world.start(program.blocks, data=dict(program.data), config=dict(program.config))
        self.model = Flow(
            {"blocks": program.blocks},
            instance_id=self.real.id,
            now=START,
            data=program.data,
            config=program.config,
        )
        self.blocks = {block["id"]: block for block in everything_in(program.blocks)}
        self.around = ancestors(program.blocks)
        self.claims: dict[Key, tuple[Claim, Any]] = {}
        self.answered: Counter[str] = Counter()
        self.rows_seen = 0
        self.claimed = self.events = self.signalled = self.chosen = 0
        self.log: list[str] = []
        self.seen: Counter[str] = Counter()

    @property
    def id(self) -> UUID:
        return self.real.id

    def play(self) -> "Match":
        """Run to the end; raises `Disagreement`."""
        if self.model.is_left_to_chance:
            return self
        self.compare()
        while self.model.state not in TERMINAL:
            self.step()
            self.events += 1
            if self.model.is_left_to_chance:
                self.seen["left to chance"] += 1
                return self
            self.compare()
            if self.events > MAX_EVENTS:
                raise Disagreement("the flow does not end")
        self.report_late()
        self.compare_ends()
        return self

    # -- events --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Let one thing happen."""
        if self.signal_due():
            return
        options = self.options()
        choice = self.next_choice()
        times = self.model_timers()
        can_wait = times and not any(not self.is_external(key) for key in self.claims)
        if options and not (can_wait and choice % 10 == 9):
            options[choice % len(options)]()
        elif can_wait:
            self.pass_time(times)
        else:
            self.unstick()

    def next_choice(self) -> int:
        self.chosen += 1
        return self.program.choices[self.chosen - 1] if self.chosen <= len(self.program.choices) else 0

    def signal_due(self) -> bool:
        due = [signal for signal in self.program.signals[self.signalled :] if signal["at"] <= self.events]
        if not due:
            return False
        self.signalled += 1
        self.send(due[0]["type"], due[0].get("payload"))
        return True

    def send(self, kind: str, payload: Any = None) -> None:
        self.note(f"signal {kind} {payload or ''}")
        self.seen[f"signal {kind} while {self.model.state}"] += 1
        self.real.signal(kind, payload)
        match kind:
            case "pause":
                self.model.pause()
            case "resume":
                self.model.resume()
            case "cancel":
                self.model.cancel()
            case _:
                self.model.update_context(payload)

    def options(self) -> list[Callable[[], None]]:
        """Give what can happen without time passing, in a fixed order."""
        found: list[Callable[[], None]] = []
        for key in sorted(self.model.stands):
            stand = self.model.stands[key]
            if stand.phase == "ready":
                found.append(lambda key=key: self.claim(key))  # type: ignore[misc]
            elif stand.phase == "claimed" and not self.outcome_of(key, stand.attempt).get("silent"):
                found.append(lambda key=key: self.report(key))  # type: ignore[misc]
            elif stand.phase == "gate" and self.answered[key[0]] < len(self.program.answers.get(key[0], [])):
                found.append(lambda block_id=key[0]: self.answer(block_id))  # type: ignore[misc]
        return found

    def claim(self, key: Key) -> None:
        self.note(f"claim {key}")
        step = next(step for step in self.real.steps(key[0]) if (step.key.block_id, step.key.iteration) == key)
        claim = self.world.claim(self.id, step)
        assert claim is not None
        work = self.world.work(claim)
        outcome: Outcome | None = None
        if work.failure is not None:
            outcome = work.failure
        elif not self.is_external(key):
            outcome = self.world.outcome(work)
        self.model.claim(key)
        if self.is_external(key) and work.failure is None:
            self.same("params", work.params, self.model.stands[key].owner.seen, key)
        self.claims[key] = (claim, outcome)
        self.claimed += 1
        if self.program.crash == (self.claimed, "before"):
            self.note(f"crash before the commit of {key}")
            self.world.restart()
            self.real.lose(claim)
            self.model.lose(key)
            del self.claims[key]

    def report(self, key: Key) -> None:
        self.note(f"report {key}")
        claim, outcome = self.claims.pop(key)
        said = self.outcome_of(key, claim.attempt)
        result = outcome if outcome is not None else _real_outcome(said)
        number = self.claimed
        self.real.finish(claim, result)
        self.model.report(key, _model_outcome(said))
        self.seen[f"report {type(result).__name__}"] += 1
        if self.program.crash == (number, "after"):
            self.note(f"crash after the commit of {key}")
            self.world.restart()
            self.real.finish(claim, result)
            self.real.lose(claim)

    def answer(self, block_id: str) -> None:
        payload = self.program.answers[block_id][self.answered[block_id]]
        self.note(f"answer {block_id} {payload}")
        self.answered[block_id] += 1
        self.real.signal({"custom": f"human_input:{block_id}"}, payload)
        self.model.answer(block_id, payload)

    def pass_time(self, times: dict[Key, Any]) -> None:
        key = min(times, key=lambda key: (times[key], key))
        self.note(f"timer {key} at +{times[key] - START}")
        self.seen[f"timer of {self.model.stands[key].phase}"] += 1
        timer = next(found for found in self.world.timers(self.id) if (found.block_id, found.iteration) == key)
        self.model.now = self.world.clock = max(self.model.now, times[key], self.real_timers()[key])
        self.model.fire(key)
        self.world.fire(self.id, timer)

    def unstick(self) -> None:
        """Do what ends a standstill: resume, let a silent worker be lost, answer a gate, at last cancel."""
        silent = sorted(key for key, stand in self.model.stands.items() if stand.phase == "claimed")
        gates = sorted(key[0] for key, stand in self.model.stands.items() if stand.phase == "gate")
        if self.model.state == "paused":
            self.send("resume")
        elif silent:
            self.note(f"silent {silent[0]}")
            self.program.outcomes[silent[0][0]] = [{"output": {"late": True}}]
            self.report(silent[0])
        elif gates:
            answers = self.program.answers.setdefault(gates[0], [])
            gate = self.blocks[gates[0]].get("wait_for_input") or {}
            choices = gate.get("choices") or [{"value": "yes"}]
            answers.append({"value": choices[0]["value"]})
            self.answer(gates[0])
        else:
            self.send("cancel")

    def report_late(self) -> None:
        """Let workers report what has been taken from them: it must change nothing."""
        for key in [key for key in self.claims if self.is_gone(key)]:
            claim, outcome = self.claims.pop(key)
            self.note(f"late report of {key}")
            self.seen["late report"] += 1
            self.real.finish(claim, outcome or Completed(output={"late": "yes"}, merges=True))

    def is_gone(self, key: Key) -> bool:
        stand = self.model.stands.get(key)
        claim = self.claims[key][0]
        return stand is None or stand.phase != "claimed" or stand.attempt != claim.attempt

    # -- comparing -----------------------------------------------------------------------------------------------

    def compare(self) -> None:
        """Compare where both sides stand."""
        self.report_late()
        self.same("ready", self.real_ready(), self.model_ready())
        self.same("timers", *_rounded(self.real_timers(), self.model_timers()))
        self.same("state", self.real.state, self.model.state)
        real, model = self.real_rows(), self.model_rows()
        self.same("rows", _sorted(real[self.rows_seen :]), _sorted(model[self.rows_seen :]))
        self.rows_seen = len(model)
        try:
            self.real.check()
        except AssertionError as error:
            self.same(f"consistency: {error}", real=False, model=True)

    def compare_ends(self) -> None:
        """Compare what is left when the flow has ended."""
        self.same("data", _data(self.real.data), _data(self.model.data))
        self.same("state values", self.real.kv, self.model.values)
        self.same("tree", self.real_nodes(), self.model.nodes)

    def real_nodes(self) -> dict[str, str]:
        """Give the tree's states; among those of concurrent items any will do."""
        nodes, model = self.real.tree(), self.model
        return {
            block_id: model.nodes[block_id] if state in self.also_true(block_id) else state
            for block_id, state in nodes.items()
        }

    def also_true(self, block_id: str) -> set[str]:
        """Give other states a node may read.

        Of concurrent items any; in a cancelled repetition, that of the next; and inside of what was cancelled nobody
        says whether what never began was still to come (`cancelled`) or not chosen (`skipped`).
        """
        states, model = self.model.states.get(block_id, set()), self.model
        found = set(states) if model.lanes[block_id] else set()
        if ("pending" in states or model.lanes[block_id]) and model.cancelling.cancelled:
            found.add("cancelled")
        stopped = any(model.nodes[outer] == "cancelled" for outer in self.around[block_id])
        if stopped and model.nodes[block_id] in {"cancelled", "skipped"}:
            found |= {"cancelled", "skipped"}
        return found

    def real_ready(self) -> dict[Key, int]:
        steps = self.real.steps()
        return {(s.key.block_id, s.key.iteration): s.attempt for s in steps if s.state.value == "ready"}

    def model_ready(self) -> dict[Key, int]:
        return {key: stand.attempt for key, stand in self.model.stands.items() if stand.phase == "ready"}

    def real_timers(self) -> dict[Key, Any]:
        return {(key.block_id, key.iteration): due for key, due in self.world.timers(self.id).items()}

    def model_timers(self) -> dict[Key, Any]:
        return {key: stand.due for key, stand in self.model.stands.items() if stand.due is not None}

    def real_rows(self) -> list[Any]:
        rows = [row for row in self.real.rows() if row.ref not in {"__retry__", "__in_progress__"}]
        return [_row(row.block_id, row.iteration, row.output, row.attempt, row.ref) for row in rows if self.counts(row)]

    def model_rows(self) -> list[Any]:
        return [_row(r.block_id, r.iteration, r.output, r.attempt, r.mark) for r in self.model.rows]

    def counts(self, row: Any) -> bool:
        """Leave out the bookkeeping of for_eachs: when it is written is nobody's business."""
        return self.blocks[row.block_id]["type"] != "for_each"

    def is_external(self, key: Key) -> bool:
        return not self.model.stands[key].in_process if key in self.model.stands else False

    def outcome_of(self, key: Key, attempt: int) -> dict[str, Any]:
        if not self.is_external(key):
            return {}
        given = self.program.outcomes.get(key[0]) or [{"output": {}}]
        return given[(sum(key[1]) + attempt) % len(given)]

    def same(self, what: str, real: Any, model: Any, where: Any = "") -> None:
        if real != model and _forgiving(real, model) != model:
            story = "\n".join(self.log)
            raise Disagreement(f"{what} {where}\n  core:  {real}\n  model: {model}\nafter:\n{story}")

    def note(self, event: str) -> None:
        self.log.append(event)


def _real_outcome(said: dict[str, Any]) -> Outcome:
    if "fail" in said:
        return Failed(message=said["fail"], retryable=said.get("retryable", False), details=said.get("details"))
    return Completed(output=said.get("output", {}), merges=True)


def _model_outcome(said: dict[str, Any]) -> Done | Broken:
    if "fail" in said:
        return Broken(said["fail"], said.get("retryable", False), said.get("details"))
    return Done(said.get("output", {}))


def _forgiving(real: Any, model: Any) -> Any:
    """Put the interpreter's "some text" in the place of the text that is there."""
    if isinstance(real, dict) and isinstance(model, dict):
        return {name: _forgiving(real[name], model.get(name)) for name in real}
    if isinstance(real, list | tuple) and isinstance(model, list | tuple) and len(real) == len(model):
        return type(real)(_forgiving(*pair) for pair in zip(real, model, strict=True))
    return SOME_TEXT if model == SOME_TEXT and isinstance(real, str) else real


def _sorted(rows: list[Any]) -> list[Any]:
    """Put the rows of one event in an order."""
    return sorted(rows, key=lambda row: row[:2])


def _rounded(real: dict[Key, Any], model: dict[Key, Any]) -> tuple[dict[Key, Any], dict[Key, Any]]:
    """Forgive the microseconds by which the core keeps the rows of one moment apart."""
    near = {key for key in real.keys() & model.keys() if abs(real[key] - model[key]) < timedelta(milliseconds=1)}
    return {**real, **{key: model[key] for key in near}}, model


def _row(block_id: str, iteration: tuple[int, ...], output: Any, attempt: int, mark: str | None) -> Any:
    if isinstance(output, dict) and "_orch8_human_gate" in output:
        output = {name: output[name] for name in ("value", "_orch8_human_gate", "comment") if name in output}
    return (block_id, iteration, output, attempt, mark)


def _data(data: Any) -> Any:
    """Leave out of `_error` what may be there beside the contract's members."""
    if isinstance(data, dict) and isinstance(data.get("_error"), dict):
        known = ("failed_blocks", "failed_step", "source", "block_id", "message", "step_id")
        return {**data, "_error": {name: data["_error"][name] for name in known if name in data["_error"]}}
    return data


def play(program: Program) -> Match:
    """Run a program once; raises `Disagreement`."""
    return Match(program).play()
