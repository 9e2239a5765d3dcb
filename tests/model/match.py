"""Runs one program on the real core and on the reference interpreter, in lock-step, and compares them after each event.

Both sides get the same events at the same virtual time; so what the contract leaves to chance (which of two ready steps
is taken first) is decided by the program's script, and all else must agree.

Every event is one commit. A crash at a commit means that the engine and its workers die before or after it: what was
not committed has not happened, what was is not done again although it is asked for again, claims of the dead workers
are lost, and what follows in other flows (letters, children) is done by those that come after.
"""

import copy
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator.core.model import Claim
from orchestrator.core.outcomes import Completed, Failed, Outcome
from tests.model.compare import Disagreement, Pair, same
from tests.model.program import Block, Program, When
from tests.model.reference.handlers import Broken, Done
from tests.model.reference.interpreter import Flow
from tests.model.reference.tasks import Key, Stand
from tests.support.drive import Flow as RealFlow
from tests.support.drive import PureWorld, World

MAX_EVENTS = 2000
MOVES = {
    "scheduled": {"paused", "cancelled", "running"},
    "running": {"scheduled", "paused", "cancelled", "failed", "completed"},
    "waiting": {"scheduled", "cancelled", "failed", "running"},
    "paused": {"scheduled", "cancelled"},
    "failed": {"scheduled"},
    "completed": {"scheduled"},
    "cancelled": {"scheduled"},
}
"""States that a client may set from each (§9.2), without the one to `waiting`, which has no work of its own to do."""
WISHES = ("inject", "replace_context", "set_state", "resume_from", "fork")
RESUMABLE = {"failed", "paused", "completed", "cancelled"}
"""Events after which a program is taken for one that never ends."""

MICROSECONDS = timedelta(milliseconds=1)
"""How far timers may be apart: the core keeps the rows of one moment apart."""

Where = tuple[int, Key]
"""Number of a flow, and where in it."""


class Match:
    """One run of a program on both sides.

    Args:
        is_real_time: The world has the clock on the wall, which goes on while programs wait; what its timers say is not
            compared, and time passes by moving what waits.

    Attributes:
        commits: What each commit was, in order.
    """

    def __init__(self, program: Program, world: World | None = None, *, is_real_time: bool = False) -> None:
        self.program = program
        self.world: Any = world or PureWorld()
        self.outcomes = copy.copy(program.outcomes)
        self.answers = copy.deepcopy(program.answers)
        self.pairs: list[Pair] = []
        self.claims: dict[Where, tuple[Claim, Any]] = {}
        self.ghosts: list[tuple[RealFlow, Claim, Any]] = []
        self.answered: Counter[tuple[int, str]] = Counter()
        self.commits: list[str] = []
        self.events = self.signalled = self.chosen = self.retried = self.followed_up = 0
        self.has_crashed = False
        self.log: list[str] = []
        self.seen: Counter[str] = Counter()
        self._is_real_time = is_real_time
        self._tolerance = timedelta.max if is_real_time else MICROSECONDS
        for name, blocks in program.children.items():
            self.world.define(name, blocks)
        self.commit("start", self._start)

    def _start(self) -> Callable[[], None]:
        given = self.program
        real = self.world.start(
            given.blocks,
            data=copy.deepcopy(given.data),
            config=copy.deepcopy(given.config),
            members=given.members,
            timezone=given.timezone,
        )
        self.root = real

        def model() -> None:
            self.model = Flow(
                {**given.members, "blocks": given.blocks},
                instance_id=real.id,
                now=self.world.now(),
                data=given.data,
                config=given.config,
                timezone=given.timezone,
                sequences={name: {"blocks": blocks} for name, blocks in given.children.items()},
                new_id=self.new_child,
            )

        return model

    def new_child(self, parent: UUID, key: Key) -> UUID:
        """Give the id of the child that the core has made for a block."""
        known = {flow.instance_id for flow in self.model.family.flows} if hasattr(self, "model") else set()
        for child in self.world.children(parent):
            made = self.world.instance(child).parent
            if child not in known and (made.key.block_id, made.key.iteration) == key:
                return UUID(str(child))
        raise Disagreement(f"no child of {key}")

    def play(self) -> "Match":
        """Run to the end; raises `Disagreement`."""
        try:
            self._play()
        except Disagreement as difference:
            story = "\n".join(self.log)
            raise Disagreement(f"{difference}\nafter:\n{story}") from None
        return self

    def _play(self) -> None:
        self.follow()
        while self.has_more():
            if self.is_left_to_chance():
                self.seen["left to chance"] += 1
                return
            self.step()
            self.events += 1
            self.follow()
            if self.events > MAX_EVENTS:
                raise Disagreement("the flow does not end")
        if self.is_left_to_chance():
            self.seen["left to chance"] += 1
            return
        self.haunt()
        for pair in self.pairs:
            pair.compare_end()

    def has_more(self) -> bool:
        return not all(pair.has_ended for pair in self.pairs) or self.can_retry() or self.can_follow_up()

    def is_left_to_chance(self) -> bool:
        return any(flow.is_left_to_chance for flow in self.model.family.flows)

    def follow(self) -> None:
        """Compare where both sides stand; in a run with a crash only after it: the rest was compared without it."""
        for flow in self.model.family.flows[len(self.pairs) :]:
            self.seen["children"] += flow.parent is not None
            self.pairs.append(Pair(RealFlow(self.world, flow.instance_id), flow, self._tolerance))
        if self.is_left_to_chance():
            return
        for pair in self.pairs:
            pair.note_blocks()
        self.report_late()
        if self.program.crash is None or self.has_crashed:
            for pair in self.pairs:
                pair.compare()

    # -- commits and crashes ---------------------------------------------------------------------------------------

    def commit(
        self,
        kind: str,
        real: Callable[[], Callable[[], None]],
        again: Callable[[], None] = lambda: None,
        where: Where | None = None,
    ) -> bool:
        """Let one thing happen; False if a crash came before it.

        Args:
            real: Does it on the real side, and gives what does it on the other.
            again: Asks for it once more, as one does who has not got the answer.
            where: The step that it is about: a crash of its worker can come here.
        """
        self.commits.append(kind)
        crash = self.program.crash
        when = crash.when if crash is not None and crash.commit == len(self.commits) else None
        if when is None:
            real()()
            return True
        self.note(f"crash: {when} the commit of {kind}")
        self.has_crashed = True
        if when is When.BEFORE:
            self.die(where if kind == "report" else None)
            if kind == "start":
                real()()
            return False
        if when is When.WORKER and kind == "report of a worker":
            assert where
            self.lose(where)
            return False
        self.world.hold_mail()
        model = real()
        if when is When.AFTER:
            again()
        self.world.restart()
        self.world.deliver_mail()
        model()
        if when is When.WORKER:
            assert where
            self.lose(where)
        else:
            self.die(where if kind.startswith("claim") else None)
        return True

    def die(self, where: Where | None) -> None:
        """Let the engine die with all of its workers, and the one worker that had not got its answer."""
        self.world.restart()
        for claimed in sorted(self.claims):
            if claimed == where or (self.stand(claimed) and not self.is_external(claimed)):
                self.lose(claimed)

    def lose(self, where: Where) -> None:
        """Let a worker be found dead; it reports after all, too late."""
        if self.is_gone(where):
            return
        number, key = where
        claim, outcome = self.claims.pop(where)
        pair = self.pairs[number]
        self.note(f"lost {where}")
        pair.real.lose(claim)
        pair.model.lose(key)
        late = outcome or Completed(output={"late": "yes"}, merges=True)
        pair.real.finish(claim, late)
        self.ghosts.append((pair.real, claim, late))

    def haunt(self) -> None:
        """Let all that were lost report once more in the end: it must change nothing."""
        for real, claim, outcome in self.ghosts:
            real.finish(claim, outcome)

    # -- events ----------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Let one thing happen."""
        if self.signal_due():
            return
        options = self.options()
        choice = self.next_choice()
        times = self.timers()
        can_wait = times and not any(not self.is_external(where) for where in self.claims)
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
        open_flows = [number for number, pair in enumerate(self.pairs) if not pair.has_ended]
        self.signalled += 1
        if open_flows:
            self.send(open_flows[due[0].get("to", 0) % len(open_flows)], due[0]["type"], due[0].get("payload"))
        return True

    def send(self, number: int, kind: Any, payload: Any = None) -> None:
        """Send a signal; one that was not taken because of a crash is sent again, unless that has ended the flow."""
        pair = self.pairs[number]
        if kind == "custom" and sum(stand.phase == "gate" for stand in pair.model.stands.values()) > 1:
            return
        if kind in WISHES:
            while not getattr(self, kind)(number, **payload):
                self.note("again, after the crash")
            return
        name = kind if isinstance(kind, str) else "custom"
        self.note(f"signal {kind} {payload or ''} to {number}")
        self.seen[f"signal {name} while {pair.model.state}"] += 1

        def real() -> Callable[[], None]:
            pair.real.signal(kind, payload)
            return lambda: pair.model.signal(kind, payload)

        if not self.commit(f"signal {name}", real) and not pair.has_ended:
            self.send(number, kind, payload)

    def inject(self, number: int, blocks: list[Block], position: int | None) -> bool:
        """Inject blocks; False if a crash was in the way."""
        pair = self.pairs[number]
        if any(block["id"] in pair.model.nodes for block in blocks):
            return True
        self.note(f"inject {[block['id'] for block in blocks]} at {position} into {number}")
        self.seen[f"injection while {pair.model.state}"] += 1

        def real() -> Callable[[], None]:
            pair.real.inject(*blocks, position=position)
            return lambda: pair.model.injected(blocks, position)

        return self.commit("injection", real)

    def replace_context(self, number: int, data: Any, config: Any) -> bool:
        """Replace the context of a flow."""
        pair = self.pairs[number]
        return self.ask(
            number,
            f"replace the context of {number} by {data}",
            lambda: self.world.replace_context(pair.id, copy.deepcopy(data), copy.deepcopy(config)),
            lambda: pair.model.replace_context(data, config),
        )

    def set_state(self, number: int, state: str) -> bool:
        """Set the state of a flow, if that may be set from where it stands."""
        pair = self.pairs[number]
        if state not in MOVES[pair.model.state]:
            return True

        def model() -> None:
            pair.rows_seen = 0
            self.retried += pair.has_ended
            pair.model.set_state(state)

        return self.ask(number, f"set the state of {number} to {state}", lambda: pair.real.force(state), model)

    def resume_from(self, number: int, block: int, data: Block, signals: list[Block]) -> bool:
        """Go on from a root block, named by its place."""
        pair = self.pairs[number]
        if pair.model.state not in RESUMABLE:
            return True
        block_id = pair.model.blocks[block % len(pair.model.blocks)]["id"]

        def model() -> None:
            pair.rows_seen = 0
            self.retried += 1
            pair.model.resume_from(block_id, data, signals)

        return self.ask(
            number,
            f"resume {number} from {block_id} with {data} {signals}",
            lambda: pair.real.resume_from(block_id, *copy.deepcopy(signals), **copy.deepcopy(data)),
            model,
        )

    def fork(self, number: int, block: int, data: Block, signals: list[Block]) -> bool:
        """Start a copy that goes on from a root block, named by its place."""
        pair = self.pairs[number]
        block_id = pair.model.blocks[block % len(pair.model.blocks)]["id"]
        made: list[UUID] = []
        return self.ask(
            number,
            f"fork {number} at {block_id} with {data} {signals}",
            lambda: made.append(
                pair.real.fork(block_id, *copy.deepcopy(signals), dry_run=False, **copy.deepcopy(data)).id
            ),
            lambda: pair.model.fork(made[-1], block_id, data, signals),
        )

    def ask(self, number: int, what: str, real: Callable[[], object], model: Callable[[], None]) -> bool:
        """Let a client ask for something; False if a crash was in the way."""
        kind = " ".join(word for word in what.split()[:3] if word != str(number))
        self.note(what)
        self.seen[f"{kind} while {self.pairs[number].model.state}"] += 1

        def both() -> Callable[[], None]:
            real()
            return model

        return self.commit(kind, both)

    def options(self) -> list[Callable[[], Any]]:
        """Give what can happen without time passing, in a fixed order."""
        found: list[Callable[[], Any]] = []
        for where, stand in self.all_stands():
            block_id = where[1][0]
            if stand.phase == "ready":
                found.append(lambda where=where: self.claim(where))  # type: ignore[misc]
            elif stand.phase == "claimed" and not self.outcome_of(where, stand.attempt).get("silent"):
                found.append(lambda where=where: self.report(where))  # type: ignore[misc]
            elif stand.phase == "gate" and self.answered[where[0], block_id] < len(self.answers.get(block_id, [])):
                found.append(lambda where=where: self.answer(where))  # type: ignore[misc]
        if not found and self.can_retry():
            found.append(self.retry)
        elif not found and self.can_follow_up():
            found.append(self.follow_up)
        return found

    def all_stands(self) -> list[tuple[Where, Stand]]:
        return [
            ((number, key), pair.model.stands[key])
            for number, pair in enumerate(self.pairs)
            for key in sorted(pair.model.stands)
        ]

    def claim(self, where: Where) -> None:
        self.note(f"claim {where}")
        number, key = where
        pair = self.pairs[number]
        kind = "claim of a worker" if self.is_external(where) else "claim"

        def real() -> Callable[[], None]:
            step = next(s for s in pair.real.steps(key[0]) if (s.key.block_id, s.key.iteration) == key)
            claim = self.world.claim(pair.id, step)
            assert claim is not None
            return lambda: self._claimed(where, claim)

        self.commit(kind, real, where=where)

    def _claimed(self, where: Where, claim: Claim) -> None:
        number, key = where
        pair = self.pairs[number]
        work = self.world.work(claim)
        outcome: Outcome | None = None
        if work.failure is not None:
            outcome = work.failure
        elif not self.is_external(where):
            outcome = self.world.outcome(work)
        pair.model.claim(key)
        if self.is_external(where) and work.failure is None:
            same("params", work.params, pair.model.stands[key].owner.seen, key)
        self.claims[where] = (claim, outcome)

    def report(self, where: Where) -> None:
        self.note(f"report {where}")
        number, key = where
        pair = self.pairs[number]
        claim, outcome = self.claims[where]
        said = self.outcome_of(where, claim.attempt)
        result = outcome if outcome is not None else _real_outcome(said)
        kind = "report of a worker" if self.is_external(where) else "report"

        def real() -> Callable[[], None]:
            pair.real.finish(claim, result)
            return model

        def model() -> None:
            del self.claims[where]
            pair.model.report(key, _model_outcome(said))
            self.seen[f"report {type(result).__name__}"] += 1

        def again() -> None:
            pair.real.finish(claim, result)
            pair.real.lose(claim)

        self.commit(kind, real, again, where)

    def answer(self, where: Where) -> None:
        number, (block_id, _) = where
        payload = self.answers[block_id][self.answered[number, block_id]]
        self.answered[number, block_id] += 1
        self.send(number, {"custom": f"human_input:{block_id}"}, payload)

    def pass_time(self, times: dict[Where, Any]) -> None:
        where = min(times, key=lambda each: (times[each], each))
        number, key = where
        pair = self.pairs[number]
        self.note(f"timer {where} at {times[where]}")
        self.seen[f"timer of {pair.model.stands[key].phase}"] += 1
        timer = next(found for found in self.world.timers(pair.id) if (found.block_id, found.iteration) == key)
        self.pass_time_until(pair, times[where], pair.real_timers()[key])

        def real() -> Callable[[], None]:
            self.world.fire(pair.id, timer)
            return lambda: pair.model.fire(key)

        def again() -> None:
            if timer not in self.world.timers(pair.id):
                self.world.fire(pair.id, timer)

        self.commit("timer", real, again)

    def pass_time_until(self, pair: Pair, moment: datetime, real: datetime) -> None:
        if self._is_real_time:
            by = max(timedelta(0), real - self.world.now()) + MICROSECONDS
            for each in self.pairs:
                self.world.elapse(each.id, by)
            self.model.family.now = max(self.model.now, moment)
        else:
            self.model.family.now = max(self.model.now, moment, real, *self.due_with(moment))
            self.world.elapse(pair.id, self.model.now - self.world.now())

    def due_with(self, moment: datetime) -> list[datetime]:
        """Give all that is due in the same moment on either side: what one holds for past, the other must too."""
        timers = [
            due for pair in self.pairs for side in (pair.real_timers(), pair.model_timers()) for due in side.values()
        ]
        return [due for due in timers if abs(due - moment) < MICROSECONDS]

    def can_retry(self) -> bool:
        return self.model.state == "failed" and self.retried < self.program.retries

    def can_follow_up(self) -> bool:
        return self.followed_up < len(self.program.afterwards) and all(pair.has_ended for pair in self.pairs)

    def follow_up(self) -> None:
        """Do to a flow that has ended what the script says."""
        wish = self.program.afterwards[self.followed_up]
        self.followed_up += 1
        self.send(wish["to"] % len(self.pairs), wish["type"], wish["payload"])

    def retry(self) -> None:
        self.note("retry")

        def real() -> Callable[[], None]:
            self.root.retry()
            return model

        def model() -> None:
            self.retried += 1
            self.pairs[0].rows_seen = 0
            self.model.retry()

        self.seen["retry of a failed flow"] += 1
        self.commit("retry", real)

    def unstick(self) -> None:
        """Do what ends a standstill: resume, let a silent worker be lost, answer a gate, at last cancel."""
        paused = [number for number, pair in enumerate(self.pairs) if pair.model.state == "paused"]
        silent = [where for where, stand in self.all_stands() if stand.phase == "claimed"]
        gates = [where for where, stand in self.all_stands() if stand.phase == "gate"]
        if paused:
            self.send(paused[0], "resume")
        elif silent:
            self.note(f"silent {silent[0]}")
            self.outcomes[silent[0][1][0]] = [{"output": {"late": True}}]
            self.report(silent[0])
        elif gates:
            number, (block_id, _) = gates[0]
            answers = self.answers.setdefault(block_id, [])
            gate = self.pairs[number].blocks[block_id].get("wait_for_input") or {}
            choices = gate.get("choices") or [{"value": "yes"}]
            answers.insert(self.answered[number, block_id], {"value": choices[0]["value"]})
            self.answer(gates[0])
        else:
            self.send(next(number for number, pair in enumerate(self.pairs) if not pair.has_ended), "cancel")

    def report_late(self) -> None:
        """Let workers report what has been taken from them: it must change nothing."""
        for where in [where for where in self.claims if self.is_gone(where)]:
            claim, outcome = self.claims.pop(where)
            self.note(f"late report of {where}")
            self.seen["late report"] += 1
            self.pairs[where[0]].real.finish(claim, outcome or Completed(output={"late": "yes"}, merges=True))

    # -- looking ---------------------------------------------------------------------------------------------------

    def stand(self, where: Where) -> Stand | None:
        return self.pairs[where[0]].model.stands.get(where[1])

    def is_gone(self, where: Where) -> bool:
        stand = self.stand(where)
        claim = self.claims[where][0]
        return stand is None or stand.phase != "claimed" or stand.attempt != claim.attempt

    def timers(self) -> dict[Where, Any]:
        return {
            (number, key): due for number, pair in enumerate(self.pairs) for key, due in pair.model_timers().items()
        }

    def is_external(self, where: Where) -> bool:
        stand = self.stand(where)
        return stand is not None and not stand.in_process

    def outcome_of(self, where: Where, attempt: int) -> dict[str, Any]:
        if not self.is_external(where):
            return {}
        block_id, iteration = where[1]
        given = self.outcomes.get(block_id) or [{"output": {}}]
        return given[(sum(iteration) + attempt + self.retried) % len(given)]

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


def play(program: Program, world: World | None = None) -> Match:
    """Run a program once; raises `Disagreement`."""
    return Match(program, world).play()
