"""A run: what became of one instance, and what can still be done to it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from orchestrator.core.changes import AttemptRecorded
from orchestrator.core.model import Instance, Step
from orchestrator.core.outcomes import Completed, Failed
from orchestrator.core.plan import Plan
from orchestrator.core.states import NodeState, StepState
from orchestrator.store.memory.tables import Rows, from_text
from orchestrator.testing.acts import answer
from orchestrator.testing.crashes import Passing
from orchestrator.testing.parts import length_of
from orchestrator.testing.rendering import render
from orchestrator.testing.simulation import Execution, Simulation
from sequences.document import parse_definition
from sequences.signals import parse_signal


class RunState(str):
    """The state of a run; compares as the word it is, and knows the tree to show when a comparison fails."""

    __slots__ = ("tree",)
    tree: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An output row; `ref` is `__error__` for one that tells of a failure."""

    block_id: str
    output: Any
    attempt: int
    iteration: tuple[int, ...]
    ref: str | None
    at: datetime


class Run:
    """One instance in a simulation. Everything is read anew, so it stays true while the run goes on."""

    def __init__(self, simulation: Simulation, instance_id: UUID, plan: Plan) -> None:
        self.id = instance_id
        self.plan = plan
        self._simulation = simulation

    # -- what became of it -----------------------------------------------------------------------------------------

    @property
    def stored(self) -> Rows:
        """The rows of the instance, as the store holds them."""
        return self._simulation.store.tables.instances[self.id]

    @property
    def instance(self) -> Instance:
        """The instance as the engine knows it."""
        return self.stored.instance[None]

    @property
    def state(self) -> RunState:
        """`completed`, `failed`, `cancelled`; or `waiting`, `scheduled`, `paused` for a run that is at rest."""
        state = RunState(self.instance.state.value)
        state.tree = self.tree
        return state

    @property
    def has_ended(self) -> bool:
        """Whether the instance is in a final state."""
        return self.instance.state.is_terminal

    @property
    def data(self) -> Any:
        """The section `data` of the context."""
        return from_text(self.stored.context[None].data)

    @property
    def config(self) -> Any:
        """The section `config` of the context."""
        return from_text(self.stored.context[None].config)

    @property
    def context(self) -> dict[str, Any]:
        """The context: `data`, `config`, `audit`."""
        return {"data": self.data, "config": self.config, "audit": from_text(self.stored.context[None].audit)}

    @property
    def kv(self) -> dict[str, Any]:
        """The key-value state."""
        return {name: from_text(text) for name, text in self.stored.state.items()}

    @property
    def session(self) -> Any:
        """The data of the session that the instance is bound to; None without one."""
        session_id = self.instance.session_id
        return None if session_id is None else from_text(self._simulation.store.tables.sessions[session_id])

    @property
    def metadata(self) -> Any:
        """The metadata, with the engine's own keys."""
        return from_text(self.stored.context[None].metadata)

    @property
    def rows(self) -> list[Row]:
        """All output rows, in the order they were written."""
        return [
            Row(
                block_id=row.change.key.block_id,
                output=row.output,
                attempt=row.change.attempt,
                iteration=row.change.key.iteration,
                ref=row.change.ref,
                at=row.change.created_at,
            )
            for _, row in sorted(self.stored.outputs.items())
        ]

    @property
    def outputs(self) -> dict[str, Any]:
        """The newest output of each block that has one; rows of failures are left out."""
        return {row.block_id: row.output for row in self.rows if row.ref is None}

    @property
    def executions(self) -> list[Execution]:
        """Every call of a handler, in order, those that a crash has made void too; of all instances of the run."""
        return list(self._simulation.executions)

    @property
    def attempts(self) -> list[AttemptRecorded]:
        """The history of attempts, in order."""
        return [attempt for _, attempt in sorted(self.stored.attempts.items())]

    @property
    def history(self) -> list[tuple[str | None, str | None]]:
        """The moves of the instance from state to state."""
        moves = [move for _, move in sorted(self.stored.transitions.items())]
        return [(move.from_state, move.to_state) for move in moves if move.event == "state_transition"]

    @property
    def events(self) -> list[str]:
        """The kinds of all audit rows, in order."""
        return [row.event for _, row in sorted(self.stored.transitions.items())]

    @property
    def logs(self) -> list[tuple[str, str, Any]]:
        """What steps have logged: block id, level, message."""
        return list(self._simulation.logs)

    @property
    def standing(self) -> dict[str, StepState]:
        """Where each open step stands, by block id."""
        return {step.key.block_id: step.state for step in self._open_steps()}

    def _open_steps(self) -> list[Step]:
        return [row.read() for row in self.stored.steps.values()]

    @property
    def children(self) -> list["Run"]:
        """The other instances of this simulation, in the order they were started."""
        tables = self._simulation.store.tables
        others = sorted(i for i in tables.instances if i != self.id)
        stored = {i: tables.definitions[tables.instances[i].instance[None].sequence_id] for i in others}
        return [Run(self._simulation, i, Plan(parse_definition(stored[i].document))) for i in others]

    @property
    def clock(self) -> datetime:
        """The time it is."""
        return self._simulation.clock.now()

    @property
    def elapsed(self) -> timedelta:
        """The time that has passed since the start, in whole milliseconds: the engine itself sets events of one
        instance a microsecond apart."""
        passed = self.clock - self._simulation.started_at
        return timedelta(milliseconds=passed // timedelta(milliseconds=1))

    @property
    def passed(self) -> list[Passing]:
        """The points at which the run could have crashed, in order."""
        return list(self._simulation.passed)

    @property
    def crashes(self) -> list[str]:
        """The crashes that have happened."""
        return list(self._simulation.crashed)

    @property
    def tree(self) -> str:
        """The tree of blocks with states, for people."""
        return render(self)

    def entered(self) -> dict[str, NodeState | StepState]:
        """Give the blocks that were entered, with the state of the newest iteration."""
        found: dict[str, NodeState | StepState] = {key.block_id: node.state for key, node in self.stored.nodes.items()}
        return found | {step.key.block_id: step.state for step in self._open_steps()}

    def errors(self) -> dict[str, str]:
        """Give the message of the last failed attempt of each block that has one."""
        return {
            attempt.key.block_id: str(attempt.error.get("message", attempt.error))
            for attempt in self.attempts
            if attempt.error is not None
        }

    # -- what can be done to it ------------------------------------------------------------------------------------

    def signal(self, signal_type: Any, payload: Any = None) -> "Run":
        """Send a signal: `"pause"`, `"resume"`, `"cancel"`, `"update_context"`, `{"custom": name}`."""
        self._simulation.engine.interventions.signal(self.id, parse_signal({"signal_type": signal_type}), payload)
        return self

    def answer(self, block_id: str, value: Any = "yes", **payload: Any) -> "Run":
        """Answer a human gate, and go on."""
        answer(block_id, value, **payload)(self)
        return self.go()

    def pause(self) -> "Run":
        """Pause, and go on until nothing moves."""
        return self.signal("pause").go()

    def resume(self) -> "Run":
        """Resume, and go on."""
        return self.signal("resume").go()

    def cancel(self) -> "Run":
        """Cancel, and go on with what a cancel lets run."""
        return self.signal("cancel").go()

    def retry(self) -> "Run":
        """Reopen a failed instance; it goes on with the next `go`."""
        self._simulation.engine.interventions.retry(self.id)
        return self

    def migrate(self, sequence_id: UUID) -> "Run":
        """Let the instance go over to another definition, one of `sub_sequences`; it goes on with the next `go`."""
        self._simulation.engine.interventions.migrate(self.id, sequence_id)
        stored = self._simulation.store.tables.definitions[sequence_id]
        self.plan = Plan(parse_definition(stored.document))
        return self

    def complete(self, block_id: str, output: Any = None) -> "Run":
        """Do a task as an external worker does, and go on."""
        claim = self._simulation.claim(self.id, block_id)
        self._simulation.report(claim, Completed(output={} if output is None else output, merges=True))
        return self.go()

    def fail(self, block_id: str, message: str = "failed by the test", *, retryable: bool = False) -> "Run":
        """Fail a task as an external worker does, and go on."""
        claim = self._simulation.claim(self.id, block_id)
        self._simulation.report(claim, Failed(message=message, retryable=retryable))
        return self.go()

    def go(self, until: timedelta | str | datetime | None = None) -> "Run":
        """Go on until nothing moves any more, or until a moment: a time, or a duration from now."""
        moment = until if isinstance(until, datetime) or until is None else self.clock + length_of(until)
        self._simulation.go(moment)
        return self

    # -- what a test expects of it ---------------------------------------------------------------------------------

    def expect(
        self,
        state: str | None = None,
        *,
        outputs: Mapping[str, Any] | None = None,
        data: Mapping[str, Any] | None = None,
        ran: Sequence[str] | None = None,
        not_ran: Iterable[str] = (),
        standing: Mapping[str, str] | None = None,
    ) -> "Run":
        """Compare with what a test expects; the failure tells all differences, and the tree.

        Args:
            outputs: Of these blocks; others may have some too.
            data: These members of `context.data`; there may be others.
            ran: All steps whose handlers were called, in order.
            not_ran: Steps whose handlers were not called.
            standing: Where these open steps stand.

        Raises:
            AssertionError: Something differs.
        """
        ids = [execution.block_id for execution in self.executions]
        differences = [
            *_difference("state", state, None if state is None else str(self.state)),
            *_members("output of", outputs, self.outputs),
            *_members("data", data, self.data if isinstance(self.data, dict) else {}),
            *_difference("ran", None if ran is None else list(ran), ids),
            *(f"`{block_id}` ran" for block_id in not_ran if block_id in ids),
            *_members("standing of", standing, {name: str(state) for name, state in self.standing.items()}),
        ]
        if differences:
            raise AssertionError("\n".join(["the run is not as expected:", *differences, "", self.tree]))
        return self

    def __repr__(self) -> str:
        return f"<Run {self.plan.definition.name!r} {self.instance.state}>"


def _difference(what: str, expected: Any, found: Any) -> list[str]:
    return [] if expected is None or expected == found else [f"  {what}: expected {expected!r}, found {found!r}"]


def _members(what: str, expected: Mapping[str, Any] | None, found: Mapping[str, Any]) -> list[str]:
    differences = []
    for name, value in (expected or {}).items():
        if name not in found:
            differences.append(f"  {what} `{name}`: expected {value!r}, found none")
        elif found[name] != value:
            differences.append(f"  {what} `{name}`: expected {value!r}, found {found[name]!r}")
    return differences
