"""The real engine over the store in memory, under a clock of its own."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

from orchestrator.catalogue import stored_form
from orchestrator.core.model import ROOT_KEY, Claim, Instance, Node, NodeKey, Step, is_beside
from orchestrator.core.states import Activity
from orchestrator.engine import Engine
from orchestrator.exchange import NewInstance, Wish
from orchestrator.settings import Settings
from orchestrator.slices import Plans
from orchestrator.store.claiming import Worker
from orchestrator.store.instances import Profile
from orchestrator.store.memory import MemoryStore, VirtualClock
from orchestrator.store.memory.tables import Rows, from_text, to_text
from orchestrator.store.timers import Due
from sequences.document import SequenceDefinition
from tests.support.drive.flow import START, TENANT, Row, definition_of, handlers_with, shown_tree
from tests.support.drive.stored import StoredWorld


class MemoryWorld(StoredWorld):
    """The real engine over `MemoryStore`; what it does to an instance is inherited, what is seen is read here."""

    def __init__(self, handlers: Mapping[str, Callable[..., Any]] | None = None) -> None:
        self.memory = MemoryStore(VirtualClock(START))
        self.store = self.memory  # type: ignore[assignment]  # it has no SQL, and nothing inherited here asks for any
        self.settings = Settings.model_construct()
        self.handlers = handlers_with(handlers)
        self.executed = []
        self.rung = []
        self.tenant = TENANT
        self.worker = Worker(id=uuid4(), name="w", slot=1)
        self._random = Random(0)
        self.restart()

    def restart(self) -> None:
        self.engine = Engine(self.memory, None, self.settings, randomness=self._random)
        assert self.worker.id is not None
        with self.memory.transaction() as tx:
            tx.register_worker(self.worker.id, name="w", kind="celery", queues=[], handlers=[], slots=1)

    def create(self, blocks: Any, *, data: Any = None, config: Any = None, members: Any = None, **request: Any) -> UUID:
        new = NewInstance(
            sequence_id=self._define(definition_of(blocks, **(members or {}))),
            tenant_id=self.tenant,
            namespace="n",
            profile=Profile(data=data if data is not None else {}, config=config),
            **request,
        )
        return self.engine.start_many([new])[0].id

    def _define(self, definition: SequenceDefinition) -> UUID:
        self.memory.tables.definitions[definition.id] = stored_form(definition)
        return definition.id

    def open_session(self, data: Any) -> UUID:
        session_id = uuid4()
        self.memory.tables.sessions[session_id] = to_text(data)
        return session_id

    def session_data(self, session_id: UUID) -> Any:
        return from_text(self.memory.tables.sessions[session_id])

    def children(self, instance_id: UUID) -> list[UUID]:
        found = [rows.instance[None] for rows in self.memory.tables.instances.values()]
        return sorted(each.id for each in found if each.parent is not None and each.parent.instance_id == instance_id)

    def deliver_mail(self) -> None:
        """Let new children start and letters be delivered, in a process of their own, until nothing is left."""
        self.restart()
        while self._start_children() or self._deliver():
            pass

    def _start_children(self) -> bool:
        found = self.memory.tables.instances.items()
        due = [(key, rows.timers[ROOT_KEY]) for key, rows in found if ROOT_KEY in rows.timers]
        return bool(self.engine.fire([Due(instance_id=key, key=ROOT_KEY, due_at=at) for key, at in due]))

    def _deliver(self) -> bool:
        recipients = {letter.recipient for letter in self.memory.tables.letters.values()}
        self.engine.deliver(sorted(recipients))
        return bool(recipients)

    def _rows(self, instance_id: UUID) -> Rows:
        return self.memory.tables.instances[instance_id]

    def instance(self, instance_id: UUID) -> Instance:
        return self._rows(instance_id).instance[None]

    def context(self, instance_id: UUID) -> tuple[Any, Any]:
        row = self._rows(instance_id).context[None]
        return from_text(row.data), from_text(row.config)

    def rows(self, instance_id: UUID) -> list[Row]:
        written = [row for _, row in sorted(self._rows(instance_id).outputs.items())]
        return [
            Row(r.change.key.block_id, r.output, r.change.attempt, r.change.key.iteration, r.change.ref)
            for r in written
        ]

    def _open(self, instance_id: UUID) -> list[Step]:
        return [row.read() for row in self._rows(instance_id).steps.values()]

    def nodes(self, instance_id: UUID) -> list[Node]:
        return list(self._rows(instance_id).nodes.values())

    def tree(self, instance_id: UUID) -> dict[str, str]:
        instance = self.instance(instance_id)
        with self.memory.transaction() as tx:
            plan = Plans().of_instances(tx, [instance])[instance_id]
        steps = [step for step in self._open(instance_id) if step.activity is not Activity.ASIDE]
        return shown_tree(plan, instance, self.nodes(instance_id), steps)

    def _all_timers(self, instance_id: UUID) -> dict[NodeKey, datetime]:
        return dict(self._rows(instance_id).timers)

    def timers(self, instance_id: UUID) -> dict[NodeKey, datetime]:
        return {key: due for key, due in self._all_timers(instance_id).items() if not is_beside(key)}

    def now(self) -> datetime:
        return self.memory.now()

    def elapse(self, instance_id: UUID, by: timedelta) -> None:
        self.memory.clock.move_by(by)

    def claim(self, instance_id: UUID, step: Step) -> Claim | None:
        wish = Wish(queue=step.queue, handlers=(step.handler,))
        return next(iter(self.engine.claim(self.worker, wish, step_id=step.id)), None)
