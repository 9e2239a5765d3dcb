"""People and programs outside: they start flows, answer gates, cancel and pause, and ask again when in doubt."""

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from uuid import UUID

from orchestrator.core.states import InstanceState, StepState
from orchestrator.errors import InvalidArgument, NotFound, StoreUnavailable
from orchestrator.exchange import NewInstance
from orchestrator.store.instances import Profile
from orchestrator.store.memory.tables import Broken
from orchestrator.testing.documents import NAMESPACE, TENANT
from sequences.signals import parse_signal_type
from tests.simulation.shaky_store import Deadlock

if TYPE_CHECKING:
    from tests.simulation.world import World

RETRY_SECONDS = 0.4
LOOK_SECONDS = 0.7


class Client:
    """The client of one instance, with a server of its own to talk to. Neither ever dies."""

    def __init__(self, world: "World", number: int) -> None:
        self.world = world
        self.number = number
        self.instance_id: UUID = UUID(int=0)
        self.has_started = False
        self._engine = world.engine(world.process(f"client{number}", is_mortal=False), ring=True)
        self._process = self._engine.store.process  # type: ignore[attr-defined]
        self._process.run("start", self._start, after=world.chaos.between(0, 0.5))

    def _start(self) -> None:
        # Who is to be written to must have an id that is known beforehand; all others have a key.
        if self.world.case.program.writes_to_peers:
            self.instance_id = self.world.id_of(self.number)
            with suppress(Broken):
                self._insist(lambda: self._engine.start_many([self._request(Profile(data=self._data()))]))
        else:
            self.instance_id = self._start_by_key()
        self.has_started = True
        for act in self.world.case.acts:
            if act.instance == self.number:
                self._process.run(act.what, self._act(act.what), after=act.at)
        self._process.run("gates", self._answer_gates)

    def _start_by_key(self) -> UUID:
        request = self._request(Profile(data=self._data(), idempotency_key=f"client {self.number}"))
        started = self._insist(lambda: self._engine.start_many([request])[0])
        if self.world.chaos.happens("request_repeated"):
            again = self._insist(lambda: self._engine.start_many([request])[0])
            if again.id != started.id:
                raise AssertionError("one idempotency key has started two flows")
        started_id: UUID = started.id
        return started_id

    def _data(self) -> dict[str, Any]:
        return {**self.world.case.program.data, "peer": str(self.world.id_of(self.number + 1))}

    def _request(self, profile: Profile) -> NewInstance:
        return NewInstance(
            id=self.instance_id if self.instance_id.int else None,
            sequence_id=self.world.sequence_id,
            tenant_id=TENANT,
            namespace=NAMESPACE,
            profile=profile,
        )

    def _act(self, what: str) -> Callable[[], None]:
        def act() -> None:
            self._signal(self.instance_id, what, None)
            if what == "pause":
                # Whoever has paused a flow lets it go on in the end.
                self.world.scheduler.sleep(30)
                self._signal(self.instance_id, "resume", None)

        return act

    def _answer_gates(self) -> None:
        """Answer what is open, in this flow or in those it has called, until all is over."""
        world = self.world
        answered: set[tuple[UUID, Any]] = set()
        while True:
            for instance_id, key, state in self._gates():
                if (instance_id, key) in answered or state is not StepState.GATE:
                    continue
                answered.add((instance_id, key))
                world.scheduler.sleep(world.chaos.between(0, 0.3))
                times = 1 + world.chaos.happens("request_repeated")
                for _ in range(times):
                    self._answer(instance_id, key.block_id)
            world.scheduler.sleep(LOOK_SECONDS if self._is_waiting() else 2.5)

    def _gates(self) -> list[tuple[UUID, Any, StepState]]:
        tables = self.world.tables
        return [
            (instance_id, key, row.step.state)
            for instance_id, rows in tables.instances.items()
            for key, row in rows.steps.items()
            if self._is_mine(instance_id) and row.step.state is StepState.GATE
        ]

    def _is_mine(self, instance_id: UUID) -> bool:
        instances = self.world.tables.instances
        current = instances[instance_id].instance[None]
        while current.parent is not None:
            current = instances[current.parent.instance_id].instance[None]
        return current.id == self.instance_id

    def _is_waiting(self) -> bool:
        rows = self.world.tables.instances.get(self.instance_id)
        return rows is not None and rows.instance[None].state in {InstanceState.WAITING, InstanceState.PAUSED}

    def _answer(self, instance_id: UUID, block_id: str) -> None:
        self._signal(instance_id, {"custom": f"human_input:{block_id}"}, {"value": "yes"})

    def _signal(self, instance_id: UUID, kind: Any, payload: Any) -> None:
        self.world.note(f"{self._process.name} signals {kind} to {self.world.name_of(instance_id)}")
        try:
            self._insist(lambda: self._engine.interventions.signal(instance_id, parse_signal_type(kind), payload))
        except (InvalidArgument, NotFound) as refused:
            self.world.note(f"{self._process.name} is refused: {type(refused).__name__}")

    def _insist(self, ask: Callable[[], Any]) -> Any:
        """Ask until there is an answer."""
        while True:
            try:
                return ask()
            except (StoreUnavailable, Deadlock):
                self.world.scheduler.sleep(RETRY_SECONDS)
