"""A world: one store, one broker, some processes, some clients, and the history of a case played in it."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from functools import lru_cache
from random import Random
from typing import Any
from uuid import UUID

from orchestrator.catalogue import stored_form
from orchestrator.core.model import NodeKey
from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.exchange import Report
from orchestrator.settings import Settings
from orchestrator.store.memory import VirtualClock
from orchestrator.store.memory.clock import START
from orchestrator.testing.documents import read_sequence
from tests.simulation.broker import Broker
from tests.simulation.cases import Case
from tests.simulation.chaos import Chaos
from tests.simulation.clients import Client
from tests.simulation.hands import handlers
from tests.simulation.invariants import Violated, Watcher, outputs_of
from tests.simulation.processes import SimulatedService, SimulatedWorker, engine_of, new_uuid
from tests.simulation.programs import Block, lists_in
from tests.simulation.scheduler import Killed, Process, Scheduler, Stuck
from tests.simulation.shaky_store import Database
from tests.simulation.troubles import Troubles
from workers.context import StepContext

PATIENCE = 400.0
"""Seconds in which a flow must have ended once nothing goes wrong any more."""
MOST_TURNS = 60_000
LAST_LOOK = 30.0
"""Seconds for which a world is watched after its flows have ended: whatever is still under way must change nothing."""


@lru_cache(maxsize=16)
def _settings(batch: int, carry_on: int) -> Settings:
    return Settings(
        batch_size=batch,
        carry_on_steps=carry_on,
        step_events=False,
        max_losses=1000,
        time_slice=timedelta(seconds=2),
    )


@dataclass(slots=True, kw_only=True)
class Played:
    """What came of a case.

    Attributes:
        wrong: The invariant that does not hold, None if all do.
        ends: State and outputs of each instance, in the order they were started; children by the block that called.
        history: Line by line, if it was asked for.
        digest: Hash of the history.
    """

    wrong: str | None
    ends: list[Any] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    digest: str = ""
    faults: dict[str, int] = field(default_factory=dict)
    turns: int = 0
    seconds: float = 0.0


class World:
    """Everything there is.

    Args:
        is_noted: Whether the history is written down.
    """

    def __init__(self, case: Case, *, is_noted: bool) -> None:
        self.case = case
        self.is_noted = is_noted
        self.history: list[str] = []
        self.random = Random(f"world {case.schedule}")
        self.clock = VirtualClock()
        self.scheduler = Scheduler(Random(f"turns {case.schedule}"), self._time_has_passed)
        self.chaos = Chaos(case, Random(f"chaos {case.schedule}"), lambda: self.scheduler.now, self.note)
        self.settings = _settings(case.batch, case.carry_on)
        self.broker = Broker(self.chaos, self.scheduler, self.note)
        self.names: dict[UUID, str] = {}
        self.runs: dict[tuple[UUID, str, str, int], int] = {}
        self.late: list[str] = []
        self.buried: set[int] = set()
        self._pids = 100
        self.database: Database
        self._set_up_store()
        self.handlers = handlers(self.scheduler, self.chaos, self._begun, self._ended)
        self.workers: dict[str, SimulatedWorker] = {}
        self.services: dict[str, SimulatedService] = {}
        self.clients: list[Client] = []

    def _set_up_store(self) -> None:
        program = self.case.program
        bounds, bodies = _bounds(program.blocks)
        for blocks in program.others.values():
            more_bounds, more_bodies = _bounds(blocks)
            bounds, bodies = bounds | more_bounds, bodies | more_bodies
        watcher = Watcher(bounds, bodies, self.note, self.name_of)
        self.database = Database(self.clock, self.chaos, self.scheduler, watcher)
        watcher.tables = self.tables = self.database.memory.tables
        self.watcher = watcher
        self.sequence_id = self._define("main", program.blocks)
        for name, blocks in program.others.items():
            self._define(name, blocks)

    def _define(self, name: str, blocks: list[Block]) -> UUID:
        definition = _definition(name, repr(blocks), blocks)
        self.tables.definitions[definition.id] = definition
        return definition.id

    # -- for those who are in it -----------------------------------------------------------------------------------

    @property
    def happened(self) -> int:
        """A number that rises whenever something is written that matters."""
        return self.watcher.matters

    def process(self, name: str, *, is_mortal: bool = True) -> Process:
        return Process(self.scheduler, name, self.random.random() * 1000, is_mortal=is_mortal)

    def engine(self, process: Process, *, ring: bool) -> Engine:
        return engine_of(self, process, ring=ring)

    def new_uuid(self) -> UUID:
        return new_uuid(self.random)

    def id_of(self, number: int) -> UUID:
        """Give the id of the instance that a client starts; after the last one comes the first."""
        return UUID(int=0x01900000_0000_7000_8000_000000000000 + number % self.case.program.instances)

    def new_pid(self) -> int:
        self._pids += 1
        return self._pids

    def repeat(self, reports: Sequence[Report]) -> None:
        """Let somebody make some reports once more, later, who has nothing else to do with it."""
        ghost = self.process("ghost", is_mortal=False)
        engine = engine_of(self, ghost, ring=False)

        def report() -> None:
            with suppress(StoreUnavailable):
                if engine.finish(reports).claims:
                    raise Violated("a repeated report was given claims")

        ghost.run("report", report, after=self.chaos.between(0, 8))

    def note(self, line: str) -> None:
        if self.is_noted:
            self.history.append(f"{self.scheduler.now:8.3f}  {line}")

    def name_of(self, instance_id: UUID) -> str:
        name = self.names.get(instance_id)
        if name is None:
            name = self.names[instance_id] = f"i{len(self.names)}"
        return name

    def _time_has_passed(self, now: float) -> None:
        self.clock.move_to(START + timedelta(seconds=now))

    # -- fate (`shaky_store.Fate`) ---------------------------------------------------------------------------------

    def kill(self, process: Process) -> None:
        """Kill a process; a child takes its whole worker with it half of the time."""
        family = self._family(process)
        if len(family) > 1 and (process is family[0] or self.chaos.random.random() < 0.5):
            for member in family:
                member.is_alive = False
            self.scheduler.has_dead = True
            self.note(f"  {family[0].name} dies with all its children")
            raise Killed
        process.kill()

    def pause(self, process: Process, until: float) -> None:
        """Let a process stand still; a worker with all its children."""
        for member in self._family(process):
            member.paused_until = until

    def _family(self, process: Process) -> list[Process]:
        for worker in self.workers.values():
            family = [worker.parent, *(child.process for child in worker.children.values())]
            if process in family:
                return family
        return [process]

    def _begun(self, ctx: StepContext) -> None:
        task = self.scheduler.current
        assert task is not None
        self.note(f"{task.name} begins {self.name_of(ctx.instance_id)}.{ctx.block_id}/{ctx.iteration} #{ctx.attempt}")
        name = (ctx.instance_id, ctx.block_id, ctx.iteration, ctx.attempt)
        self.runs[name] = self.runs.get(name, 0) + 1
        key = NodeKey(ctx.block_id, tuple(map(int, filter(None, ctx.iteration.split(".")))))
        if self.watcher.has_completed(ctx.instance_id, key):
            called = f"{self.name_of(ctx.instance_id)}.{ctx.block_id}/{ctx.iteration}"
            self.late.append(f"the handler of {called} has begun although its output was stored")

    def _ended(self, ctx: StepContext) -> None:
        task = self.scheduler.current
        assert task is not None
        self.note(f"{task.name} ends   {self.name_of(ctx.instance_id)}.{ctx.block_id}/{ctx.iteration} #{ctx.attempt}")

    # -- playing ---------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Play the case; raises `Violated` or `Stuck`."""
        try:
            self._hire()
            self._go_on(lambda: not self._is_over())
            until = self.scheduler.now + LAST_LOOK
            self._go_on(lambda: self.scheduler.now < until and self._is_anything_under_way())
            self.watcher.check_end()
            self._check_runs()
        finally:
            self.scheduler.close()

    def _hire(self) -> None:
        case = self.case
        for number in range(case.services):
            self.services[f"service{number}"] = SimulatedService(self, f"service{number}")
        for number in range(case.workers):
            self.workers[f"worker{number}"] = SimulatedWorker(self, f"worker{number}", case.slots)
        self.clients = [Client(self, number) for number in range(case.program.instances)]

    def _go_on(self, is_wanted: Callable[[], bool]) -> None:
        scheduler, database = self.scheduler, self.database
        limit = self.case.heals_at + PATIENCE
        looked = -1
        while True:
            scheduler.turn()
            if scheduler.turns > MOST_TURNS:
                raise Stuck(f"not over after {MOST_TURNS} turns, {scheduler.now:.0f} seconds")
            if scheduler.now > limit:
                raise Violated(f"not over {PATIENCE:.0f} seconds after everything has healed: {self._open()}")
            if scheduler.has_dead:
                self._raise_the_dead()
            if database.write_count != looked or scheduler.turns % 16 == 0:
                looked = database.write_count
                if not is_wanted():
                    return

    def _raise_the_dead(self) -> None:
        """Start processes that have died anew, as a supervisor of processes does."""
        for name, worker in list(self.workers.items()):
            if not worker.parent.is_alive:
                for child in worker.children.values():
                    child.process.is_alive = False
                self.scheduler.has_dead = True
                self.note(f"  {name} is started again")
                self.workers[name] = SimulatedWorker(self, name, self.case.slots)
        for name, service in list(self.services.items()):
            if not service.process.is_alive:
                self.note(f"  {name} is started again")
                self.services[name] = SimulatedService(self, name)

    def _is_over(self) -> bool:
        if any(not client.has_started for client in self.clients) or self.tables.letters:
            return False
        return all(rows.instance[None].state.is_terminal for rows in self.tables.instances.values())

    def _is_anything_under_way(self) -> bool:
        return any(task.is_busy for task in self.scheduler.tasks) or bool(self.broker.waiting())

    def _open(self) -> str:
        found = []
        for instance_id, rows in self.tables.instances.items():
            if not (state := rows.instance[None].state).is_terminal:
                steps = [f"{key.block_id}{list(key.iteration)} {row.step.state}" for key, row in rows.steps.items()]
                found.append(f"{self.name_of(instance_id)} {state} {steps}")
        return "; ".join(found) or f"{len(self.tables.letters)} letters"

    def _check_runs(self) -> None:
        """Check that no handler has run more often than claims were lost."""
        if self.late:
            raise Violated(self.late[0])
        lost: dict[tuple[UUID, str, str, int], int] = {}
        for (owner, key, attempt), times in self.watcher.lost.items():
            lost[owner, key.block_id, ".".join(map(str, key.iteration)), attempt] = times
        for name, times in self.runs.items():
            if times > 1 + lost.get(name, 0):
                owner, block_id, iteration, _ = name
                raise Violated(
                    f"the handler of {self.name_of(owner)}.{block_id}/{iteration} has run {times} times; "
                    f"{lost.get(name, 0)} claims were lost"
                )

    def ends(self) -> list[Any]:
        """Give how every instance has ended; children by who has called them."""
        parents = [client.instance_id for client in self.clients]
        return [self._end(instance_id) for instance_id in parents if instance_id in self.tables.instances]

    def _end(self, instance_id: UUID) -> Any:
        rows = self.tables.instances[instance_id]
        return [rows.instance[None].state.value, outputs_of(rows)]


def play(case: Case, *, is_noted: bool = False) -> Played:
    """Play a case; a history that goes wrong is told, not raised."""
    world = World(case, is_noted=is_noted)
    wrong = None
    with Troubles() as troubles:
        try:
            world.play()
        except Violated as violated:
            wrong = str(violated)
        except Stuck as stuck:
            wrong = f"stuck: {stuck}; {world._open()}"
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"
    wrong = wrong or next(iter(troubles.found), None)
    world.note(f"wrong: {wrong}" if wrong else "all is well")
    text = "\n".join(world.history)
    return Played(
        wrong=wrong,
        ends=[] if wrong else world.ends(),
        history=world.history,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        faults=dict(world.chaos.happened),
        turns=world.scheduler.turns,
        seconds=world.scheduler.now,
    )


_definitions: dict[tuple[str, str], Any] = {}


def _definition(name: str, text: str, blocks: list[Block]) -> Any:
    known = _definitions.get((name, text))
    if known is None:
        seed = int.from_bytes(hashlib.sha256(f"{name} {text}".encode()).digest()[:16])
        document = {"id": str(UUID(int=seed, version=4)), "name": name, "blocks": blocks}
        known = stored_form(read_sequence(document, START))
        if len(_definitions) > 200:
            _definitions.clear()
        _definitions[name, text] = known
    return known


def _bounds(blocks: list[Block]) -> tuple[dict[str, int], dict[str, tuple[str, int]]]:
    """Find the for_eachs, and for each block the outermost one around it with the number of loops around that."""
    bounds: dict[str, int] = {}
    bodies: dict[str, tuple[str, int]] = {}

    def look(inner: list[Block], depth: int, around: tuple[str, int] | None) -> None:
        for block in inner:
            if around is not None:
                bodies[block["id"]] = around
            is_repeated = block["type"] in {"for_each", "loop"}
            here = around
            if block["type"] == "for_each":
                bounds[block["id"]] = block.get("concurrency", 1)
                here = around or (block["id"], depth)
            for each in lists_in(block):
                look(each, depth + is_repeated, here)

    look(blocks, 0, None)
    return bounds, bodies
