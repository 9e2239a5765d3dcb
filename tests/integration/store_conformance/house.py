"""A store with the few things that its verbs cannot do: define sequences, open sessions, let time pass."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

from orchestrator.catalogue import stored_form
from orchestrator.core.changes import Change, InstancePut, OutputAdded, StepPut
from orchestrator.core.ids import IdMaker
from orchestrator.core.model import Instance, NodeKey, OutputKey, Step
from orchestrator.core.plan import Plan
from orchestrator.core.slice import Needs, Slice
from orchestrator.core.states import Activity, InstanceState, StepState
from orchestrator.store import definitions, sessions
from orchestrator.store.claiming import Worker
from orchestrator.store.definitions import Head
from orchestrator.store.instances import Profile
from orchestrator.store.interface import Store
from orchestrator.store.memory import MemoryStore
from orchestrator.store.memory.tables import to_text
from orchestrator.store.postgres import PostgresStore
from tests.support.drive import definition_of, step

KEY = NodeKey("a")
NEWEST = OutputKey("a", ())
ALL = ["noop"]
"""All handlers that a worker of the cases knows."""
_ids = IdMaker(Random(7))


class House:
    """A store and what cases do with it."""

    store: Store

    def define(self, definition: Any) -> None:
        raise NotImplementedError

    def open_session(self, session_id: UUID, data: Any) -> None:
        raise NotImplementedError

    def elapse(self, by: timedelta) -> None:
        raise NotImplementedError

    def new_id(self) -> UUID:
        """Make an id that sorts by time."""
        return _ids(self.now())

    def new_id_at(self, now: datetime) -> Callable[[], UUID]:
        """Give a maker of ids of one moment, for use inside a transaction."""
        return lambda: _ids(now)

    def now(self) -> datetime:
        with self.store.transaction() as tx:
            return tx.now()

    def instance(self, **fields: Any) -> Instance:
        """Store a new instance of a sequence with one step."""
        definition = definition_of([step("a")])
        self.define(definition)
        profile = fields.pop("profile", Profile(data={"n": 1}, config={"c": True}))
        now = self.now()
        made = Instance(
            id=_ids(now),
            tenant_id="t",
            namespace="n",
            sequence_id=definition.id,
            state=InstanceState.RUNNING,
            created_at=now,
            updated_at=now,
            **fields,
        )
        with self.store.transaction() as tx:
            tx.insert_instances([(made, profile)])
        return made

    def head(self, instance: Instance) -> Head:
        """Give what a start has to know of the sequence of an instance."""
        with self.store.transaction() as tx:
            return tx.load_definitions([instance.sequence_id])[instance.sequence_id]

    def write(self, instance: Instance, *changes: Change) -> None:
        with self.store.transaction() as tx:
            tx.write([(instance, changes)])

    def step(self, instance: Instance, key: NodeKey = KEY, **fields: Any) -> Step:
        """Store an open step, ready on a queue of its instance's own."""
        now = self.now()
        made = Step(
            key=key,
            id=uuid4(),
            **{
                "state": StepState.READY,
                "activity": Activity.RUNNING,
                "handler": "noop",
                "queue": str(instance.id),
                "tenant_id": "t",
                "priority": 1,
                "entered_at": now,
                "ready_at": now,
                **fields,
            },
        )
        self.write(instance, StepPut(step=made))
        return made

    def slice(self, instance: Instance, needs: Needs) -> Slice:
        """Load a new slice."""
        with self.store.transaction() as tx:
            plan = Plan(definition_of([step("a")]))
            found = Slice(plan=plan, instance=tx.load_instances([instance.id])[instance.id])
            tx.fill([(found, needs)])
        return found

    def read_step(self, instance: Instance, key: NodeKey = KEY) -> Step | None:
        return self.slice(instance, Needs(steps=frozenset({key}))).steps[key]

    def output(self, instance: Instance, key: OutputKey) -> Any:
        return self.slice(instance, Needs(outputs=frozenset({key}))).outputs[key]

    def worker(self, **fields: Any) -> Worker:
        """Register a worker process."""
        made = Worker(id=uuid4(), name=f"w-{uuid4()}", **fields)
        with self.store.transaction() as tx:
            tx.register_worker(made.id, name=made.name, kind="celery", queues=["q"], handlers=["noop"], slots=1)
        return made


class InMemory(House):
    """The store in memory."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = self._memory = store

    def define(self, definition: Any) -> None:
        self._memory.tables.definitions[definition.id] = stored_form(definition)

    def open_session(self, session_id: UUID, data: Any) -> None:
        self._memory.tables.sessions[session_id] = to_text(data)

    def elapse(self, by: timedelta) -> None:
        self._memory.clock.move_by(by)


class InPostgres(House):
    """PostgreSQL."""

    def __init__(self, store: PostgresStore) -> None:
        self.store = self._postgres = store

    def define(self, definition: Any) -> None:
        with self._postgres.transaction() as tx:
            assert definitions.insert(tx, stored_form(definition))

    def open_session(self, session_id: UUID, data: Any) -> None:
        with self._postgres.transaction() as tx:
            sessions.insert(tx, session_id, "t", str(session_id), data, None)

    def elapse(self, by: timedelta) -> None:
        with self._postgres.transaction() as tx:
            tx.execute("UPDATE timers SET due_at = due_at - %s", (by,))
            tx.execute("UPDATE letters SET due_at = due_at - %s", (by,))
            tx.execute("UPDATE steps SET heartbeat_at = heartbeat_at - %s, hinted_at = hinted_at - %s", (by, by))
            tx.execute("UPDATE workers SET heartbeat_at = heartbeat_at - %s", (by,))


def put(instance: Instance, **fields: Any) -> InstancePut:
    """The instance as its next version."""
    return InstancePut(instance=replace(instance, version=instance.version + 1, **fields))


def output(value: Any, *, at: datetime, key: NodeKey = KEY, lane: Iterable[int] = (), **fields: Any) -> OutputAdded:
    return OutputAdded(id=_ids(at), key=key, lane=tuple(lane), output=value, attempt=0, created_at=at, **fields)
