"""The processes of a world: workers with their children, services with their loops. What they run is production's."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING
from uuid import UUID

from orchestrator.carry import CarryOn
from orchestrator.dispatcher import Dispatcher
from orchestrator.engine import Engine
from orchestrator.errors import StoreUnavailable
from orchestrator.exchange import Finished, Report
from orchestrator.loops import Loop, LoopRunner
from orchestrator.postman import Postman
from orchestrator.reconciler import Reconciler
from orchestrator.slices import Plans
from orchestrator.store.claiming import Worker
from orchestrator.timers import Timers
from tests.simulation.hands import Bystander, time_limit
from tests.simulation.scheduler import Process
from tests.simulation.shaky_store import ShakyStore
from workers.executor import Executor
from workers.lease import Lease
from workers.overtime import Deadlines, Overtime
from workers.runtime import Identity
from workers.step_events import StepEvents
from workers.supervisor import WATCH_SECONDS, Children, Supervisor

if TYPE_CHECKING:
    from tests.simulation.world import World

QUEUES = ("default",)
_PLANS = Plans()
"""Compiled once for all worlds: a plan never changes."""
LAZIEST = 4.0
"""Seconds that a loop waits at most between two looks at a world in which nothing happens."""


class _NobodyIsStuck(Deadlines):
    """Says that no child is stuck in a handler: here none swallows the end of its time."""

    def __init__(self) -> None:
        pass

    def overdue(self, grace: float) -> list[int]:
        """Name nobody."""
        del grace
        return []


@dataclass(slots=True, kw_only=True)
class Child:
    """One child of a worker."""

    pid: int
    process: Process
    executor: Executor


class SimulatedWorker:
    """A worker process: a parent that watches, and children that run steps. They die together, or a child alone."""

    def __init__(self, world: "World", name: str, slots: int) -> None:
        self.world = world
        self.name = name
        self.parent = world.process(name)
        self.identity = Identity(
            id=world.new_uuid(),
            name=name,
            queues=QUEUES,
            deadlines=_NobodyIsStuck(),
            lease=Lease(self.parent.machine.monotonic),
        )
        self.children: dict[int, Child] = {}
        self._slots = slots
        self._lazy = Lazy(world)
        engine = world.engine(self.parent, ring=False)
        self.supervisor = Supervisor(
            engine,
            self.identity,
            world.handlers.names(),
            slots,
            world.settings,
            machine=self.parent.machine,
            children=Children(is_alive=self._lives, kill=self._kill),
        )
        self.parent.run("parent", self._watch)
        for _ in range(slots):
            self._fork()

    def is_busy(self) -> bool:
        """Tell whether a child is answering a hint."""
        return any(task.is_busy for task in self.world.scheduler.tasks if task.process.name.startswith(self.name))

    def _fork(self) -> None:
        world, pid = self.world, self.world.new_pid()
        process = world.process(f"{self.name}/{pid}")
        child = Child(pid=pid, process=process, executor=self._executor(process, pid))
        self.children[pid] = child
        process.run("main", lambda: self._answer(child))

    def _executor(self, process: Process, pid: int) -> Executor:
        world = self.world
        return Executor(
            world.engine(process, ring=True),
            Worker(id=self.identity.id, name=self.name, slot=pid),
            world.handlers,
            QUEUES,
            world.settings,
            StepEvents(None, self.name, is_enabled=False),  # type: ignore[arg-type]
            Overtime(None),
            machine=process.machine,
            randomness=Random(world.random.getrandbits(64)),
            bystander=lambda settle: Bystander(process, world.chaos, settle),
            limit=time_limit(world.scheduler),
            term=self.identity.lease.term,
        )

    def _answer(self, child: Child) -> None:
        task = self.world.scheduler.current
        assert task is not None
        while True:
            hint = self.world.broker.take(QUEUES)
            task.is_busy = True
            try:
                child.executor.answer(hint.queue, hint.step_id)
            except StoreUnavailable as error:  # Celery logs what a task raises, and goes on
                self.world.note(f"  {task.name} gives up its hint: {error}")
            finally:
                task.is_busy = False

    def _watch(self) -> None:
        task = self.world.scheduler.current
        assert task is not None
        while True:
            try:
                self.supervisor.register()
                break
            except StoreUnavailable:
                self.world.scheduler.sleep(1)
        while True:
            self.world.scheduler.sleep(self._lazy.after(WATCH_SECONDS, most=1.9))
            self._bear()
            task.is_fresh = True
            self.supervisor.tick()

    def _bear(self) -> None:
        """Fork a child for each that has died."""
        for child in [child for child in self.children.values() if not child.process.is_alive]:
            if child.pid not in self.world.buried:
                self.world.buried.add(child.pid)
                self._fork()

    def _lives(self, pid: int) -> bool:
        return pid in self.children and self.children[pid].process.is_alive

    def _kill(self, pid: int) -> None:
        self.world.note(f"  {self.name} kills its child {pid}")
        self.children[pid].process.kill()


class SimulatedService:
    """A service process: all loops, over one engine."""

    def __init__(self, world: "World", name: str) -> None:
        self.world = world
        self.process = world.process(name)
        engine = world.engine(self.process, ring=True)
        loops: tuple[Loop, ...] = (
            Dispatcher(engine.store, world.broker.ring, world.broker, world.settings, self.process.machine),
            Timers(engine),
            Postman(engine),
            Reconciler(engine, world.settings, self.process.machine),
        )
        for loop in loops:
            self.process.run(loop.name, self._runs(LoopRunner(loop)), after=world.chaos.between(0, 0.3))

    def _runs(self, runner: LoopRunner) -> Callable[[], None]:
        lazy = Lazy(self.world)

        def run() -> None:
            task = self.world.scheduler.current
            assert task is not None
            while True:
                task.is_fresh = True
                wait = runner.tick().wait
                self.world.scheduler.sleep(lazy.after(wait) if wait else 0)

        return run


class Lazy:
    """Lets a loop wait longer and longer while nothing is written: seconds are free in this world, ticks are not."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._seen = -1
        self._factor = 1.0

    def after(self, seconds: float, *, most: float = LAZIEST) -> float:
        """Give how long to wait where production waits so many seconds."""
        happened = self._world.happened
        self._factor = min(self._factor * 2, 40) if happened == self._seen else 1.0
        self._seen = happened
        return min(seconds * self._factor, most) * self._world.chaos.between(0.5, 1.5)


class RememberingEngine(Engine):
    """An engine whose reports may be made once more, by nobody knows whom, when they are long since done."""

    world: "World"

    def finish(self, reports: Sequence[Report], carry_on: CarryOn | None = None) -> Finished:
        """Commit outcomes, as ever."""
        finished = super().finish(reports, carry_on)
        if self.world.chaos.happens("report_repeated"):
            self.world.repeat(reports)
        return finished


def engine_of(world: "World", process: Process, *, ring: bool) -> Engine:
    """Give a process an engine of its own."""
    store = ShakyStore(world.database, process, world)
    randomness = Random(world.random.getrandbits(64))
    engine = RememberingEngine(
        store,
        world.broker.ring if ring else None,
        world.settings,
        randomness=randomness,
        machine=process.machine,
        plans=_PLANS,
    )
    engine.world = world
    return engine


def new_uuid(random: Random) -> UUID:
    """Make a random id."""
    return UUID(int=random.getrandbits(128), version=4)
