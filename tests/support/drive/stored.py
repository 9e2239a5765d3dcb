"""The real engine over a real PostgreSQL; time passes by moving what waits for it."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from orchestrator.carry import CarryOn
from orchestrator.catalogue import check_blocks
from orchestrator.core.model import (
    Claim,
    Instance,
    Node,
    NodeKey,
    Step,
    is_beside,
)
from orchestrator.core.outcomes import Outcome
from orchestrator.core.slice import Needs, Slice
from orchestrator.core.states import Activity, InstanceState
from orchestrator.engine import Engine
from orchestrator.exchange import NewInstance, Report, Restart, Wish, Work
from orchestrator.postman import Postman
from orchestrator.settings import Settings
from orchestrator.slices import Plans
from orchestrator.store import checkpoints, claiming, instances, sessions
from orchestrator.store import definitions as stored_definitions
from orchestrator.store.claiming import Worker
from orchestrator.store.definitions import StoredDefinition
from orchestrator.store.instances import Profile
from orchestrator.store.reading import fill
from orchestrator.store.rows import NODE_COLUMNS, STEP_COLUMNS, node_of, step_of
from orchestrator.store.session import Store
from orchestrator.store.timers import Due
from orchestrator.timers import Timers
from sequences.document import SequenceDefinition, to_document
from sequences.signals import parse_signal
from tests.support.drive.flow import START, Flow, Row, definition_of, handlers_with, outcome_of, shown_tree
from workers.handlers.builtin import EFFECTLESS_HANDLERS


class StoredWorld:
    """The real engine; time is moved by moving back what is due."""

    runs_ahead = False
    """Whether `finish` with `carry` runs steps without effects in the commit of the step before, as workers do."""

    def __init__(
        self, store: Store, settings: Settings, handlers: Mapping[str, Callable[..., Any]] | None = None
    ) -> None:
        self.store = store
        self.settings = settings
        self.handlers = handlers_with(handlers)
        self.executed: list[tuple[str, tuple[int, ...], int]] = []
        self.worker = Worker(id=uuid4(), name="w", slot=1)
        self.rung: list[Any] = []
        self.tenant = f"t-{uuid4()}"
        """A tenant of this world's own: names of sequences do not meet those of other worlds."""
        self.restart()

    def restart(self) -> None:
        """Make a new engine, as a new process does: nothing is left in memory."""
        self.engine = Engine(self.store, self.rung.extend, self.settings)

    def start(self, blocks: Sequence[Mapping[str, Any]], **request: Any) -> Flow:
        return Flow(self, self.create(blocks, **request))

    def create(
        self,
        blocks: Sequence[Mapping[str, Any]],
        *,
        data: Any = None,
        config: Any = None,
        members: Mapping[str, Any] | None = None,
        audit: Any = None,
        **request: Any,
    ) -> UUID:
        new = NewInstance(
            sequence_id=self._define(definition_of(blocks, **(members or {}))),
            tenant_id=self.tenant,
            namespace="n",
            profile=Profile(data=data if data is not None else {}, config=config, audit=audit),
            **request,
        )
        return self.engine.start_many([new])[0].id

    def define(self, name: str, blocks: Sequence[Mapping[str, Any]], **members: Any) -> UUID:
        return self._define(definition_of(blocks, **{"name": name, **members}))

    def _define(self, definition: SequenceDefinition) -> UUID:
        with self.store.transaction() as tx:
            stored = StoredDefinition(
                id=definition.id,
                tenant_id=self.tenant,
                namespace="n",
                name=definition.name,
                version=definition.version,
                deprecated=False,
                document=to_document(definition),
                content_hash="",
            )
            assert stored_definitions.insert(tx, stored)
        return definition.id

    def children(self, instance_id: UUID) -> list[UUID]:
        with self.store.transaction() as tx:
            return [record.instance.id for record in instances.children(tx, instance_id)]

    def hold_mail(self) -> None:
        """Die after each commit: what it leaves to be done waits for the loops."""
        self.engine.passage._messenger.run = lambda _errands: None

    def deliver_mail(self) -> None:
        """Let the timers and the postman do what was left, in a process of their own, until nothing is."""
        self.restart()
        while self._tick_for_mail():
            pass

    def _tick_for_mail(self) -> bool:
        with self.store.transaction() as tx:
            tx.execute(
                "UPDATE letters SET due_at = clock_timestamp() WHERE recipient_id IN "
                "(SELECT id FROM instances WHERE tenant_id = %s)",
                (self.tenant,),
            )
        timers = Timers(self.engine).tick().done
        return bool(timers + Postman(self.engine).tick().done)

    def instance(self, instance_id: UUID) -> Instance:
        return self._record(instance_id).instance

    def _record(self, instance_id: UUID) -> instances.Record:
        with self.store.transaction() as tx:
            found = instances.get(tx, instance_id)
        assert found is not None
        return found

    def context(self, instance_id: UUID) -> tuple[Any, Any]:
        profile = self._record(instance_id).profile
        return profile.data, profile.config

    def rows(self, instance_id: UUID) -> list[Row]:
        with self.store.transaction() as tx:
            found = instances.outputs(tx, instance_id)
        return [Row(row[1], row[2], row[5], tuple(row[7]), row[3]) for row in found]

    def _read(self, instance_id: UUID, columns: str, table: str) -> list[tuple[Any, ...]]:
        with self.store.transaction() as tx:
            return tx.query(f"SELECT {columns} FROM {table} WHERE instance_id = %s", (instance_id,))

    def steps(self, instance_id: UUID) -> list[Step]:
        return [step for step in self._open(instance_id) if step.activity is not Activity.ASIDE]

    def asides(self, instance_id: UUID) -> list[Step]:
        return [step for step in self._open(instance_id) if step.activity is Activity.ASIDE]

    def _open(self, instance_id: UUID) -> list[Step]:
        return [step_of(row) for row in self._read(instance_id, STEP_COLUMNS, "steps")]

    def nodes(self, instance_id: UUID) -> list[Node]:
        return [node_of(row) for row in self._read(instance_id, NODE_COLUMNS, "nodes")]

    def tree(self, instance_id: UUID) -> dict[str, str]:
        instance = self.instance(instance_id)
        with self.store.transaction() as tx:
            plan = Plans().of_instances(tx, [instance])[instance_id]
        return shown_tree(plan, instance, self.nodes(instance_id), self.steps(instance_id))

    def timers(self, instance_id: UUID) -> dict[NodeKey, datetime]:
        return {key: due for key, due in self._all_timers(instance_id).items() if not is_beside(key)}

    def alarms(self, instance_id: UUID) -> dict[NodeKey, datetime]:
        return {key: due for key, due in self._all_timers(instance_id).items() if is_beside(key)}

    def _all_timers(self, instance_id: UUID) -> dict[NodeKey, datetime]:
        rows = self._read(instance_id, "block_id, iteration, due_at", "timers")
        return {NodeKey(row[0], tuple(row[1])): row[2] for row in rows}

    def kv(self, instance_id: UUID) -> dict[str, Any]:
        return self.engine.state_values(instance_id)

    def attempts(self, instance_id: UUID) -> list[tuple[str, int, str]]:
        with self.store.transaction() as tx:
            return [(row[0], row[2], row[5]) for row in instances.attempts(tx, instance_id)]

    def moves(self, instance_id: UUID) -> list[tuple[str, str]]:
        with self.store.transaction() as tx:
            rows = instances.transitions(tx, instance_id, 1000)
        return [(row[3], row[4]) for row in reversed(rows) if row[2] == "state_transition"]

    def events(self, instance_id: UUID) -> list[tuple[str, Any]]:
        with self.store.transaction() as tx:
            rows = instances.transitions(tx, instance_id, 1000)
        return [(row[2], row[6]) for row in reversed(rows) if row[2] != "state_transition"]

    def metadata(self, instance_id: UUID) -> Any:
        return self._record(instance_id).profile.metadata

    def open_session(self, data: Any) -> UUID:
        with self.store.transaction() as tx:
            made = sessions.insert(tx, uuid4(), self.tenant, str(uuid4()), data, None)
        assert made is not None
        return made.id

    def session_data(self, session_id: UUID) -> Any:
        with self.store.transaction() as tx:
            return sessions.data_of(tx, [session_id])[session_id]

    def checkpoints(self, instance_id: UUID) -> list[Any]:
        with self.store.transaction() as tx:
            return [row[1] for row in checkpoints.newest(tx, instance_id, 100)]

    def now(self) -> datetime:
        with self.store.transaction() as tx:
            return tx.now()

    def claim(self, instance_id: UUID, step: Step) -> Claim | None:
        with self.store.transaction() as tx:
            claim = claiming.claim_one(tx, step.id, [step.handler], self.worker)
        if claim is not None:
            self.engine._forget([claim])
        return claim

    def claim_many(self, queue: str = "default", limit: int = 32) -> list[Claim]:
        """Claim as a worker does: several steps at once if all of them are of instant handlers."""
        names = self.handlers.names()
        return self.engine.claim(
            self.worker, Wish(queue=queue, handlers=names, together=frozenset(self._instant()), limit=limit)
        )

    def _instant(self) -> list[str]:
        found = {name: self.handlers.find(name) for name in self.handlers.names()}
        return [name for name, known in found.items() if known is not None and known.is_instant]

    def work(self, claim: Claim) -> Work:
        return self.engine.inputs([claim])[0]

    def outcome(self, work: Work) -> Outcome:
        return outcome_of(self, work, self.engine)

    def finish(self, reports: Sequence[tuple[Claim, Outcome]], *, carry: bool = False) -> list[Claim]:
        carry_on = None
        if carry:
            carry_on = CarryOn(
                worker=self.worker,
                queues=frozenset({"default"}),
                handlers=frozenset(self.handlers.names()),
                instant=frozenset(self._instant()),
                limit=32,
                rounds_left=lambda _instance_id: 100,
                effectless=EFFECTLESS_HANDLERS if self.runs_ahead else frozenset(),
                run=lambda work: outcome_of(self, work, self.engine),
            )
        done = self.engine.finish([Report(claim=claim, outcome=outcome) for claim, outcome in reports], carry_on)
        return list(done.claims)

    def lose(self, claim: Claim) -> bool:
        return bool(self.engine.lose([claim], "gone"))

    def signal(self, instance_id: UUID, body: Mapping[str, Any]) -> None:
        self.engine.interventions.signal(instance_id, parse_signal(body), body.get("payload"))

    def retry(self, instance_id: UUID) -> None:
        self.engine.interventions.retry(instance_id)

    def resume_from(self, instance_id: UUID, restart: Restart) -> int:
        return self.engine.interventions.resume_from(instance_id, restart).outputs_deleted

    def fork(self, instance_id: UUID, restart: Restart, *, dry_run: bool) -> UUID:
        return self.engine.interventions.fork(instance_id, restart, dry_run=dry_run).instance.id

    def force(self, instance_id: UUID, state: str, not_before: datetime | None = None) -> None:
        self.engine.interventions.set_state(instance_id, InstanceState(state), not_before)

    def force_many(self, instance_id: UUID, state: str) -> None:
        self.engine.interventions.set_state_of_many([instance_id], InstanceState(state))

    def reschedule(self, instance_id: UUID, by: timedelta) -> int:
        return self.engine.interventions.reschedule_many([instance_id], by)

    def replace_context(self, instance_id: UUID, data: Any, config: Any) -> None:
        self.engine.interventions.replace_context(instance_id, data, config)

    def inject(self, instance_id: UUID, blocks: Sequence[Mapping[str, Any]], position: int | None = None) -> None:
        self.engine.interventions.inject(instance_id, check_blocks(list(blocks)), position)

    def migrate(self, instance_id: UUID, blocks: Sequence[Mapping[str, Any]]) -> None:
        definition, former = definition_of(blocks), self.instance(instance_id).sequence_id
        self._define(definition)
        self.engine.interventions.migrate(instance_id, definition.id)
        with self.store.transaction() as tx:
            tx.execute("DELETE FROM sequences WHERE id = %s", (former,))
        self.restart()

    def elapse(self, instance_id: UUID, by: timedelta) -> None:
        """Move everything this instance waits for back by some time, as if that time had passed."""
        with self.store.transaction() as tx:
            tx.execute("UPDATE timers SET due_at = due_at - %s WHERE instance_id = %s", (by, instance_id))
            tx.execute(
                "UPDATE steps SET wake_at = wake_at - %s, expires_at = expires_at - %s, claimed_at = claimed_at - %s, "
                "started_at = started_at - %s, deadline_at = deadline_at - %s WHERE instance_id = %s",
                (by, by, by, by, by, instance_id),
            )
            tx.execute(
                "UPDATE instances SET created_at = created_at - %s WHERE id = %s",
                (by, instance_id),
            )
        self.engine._turnstile.take(instance_id)

    def fire(self, instance_id: UUID, key: NodeKey) -> bool:
        due_at = self._all_timers(instance_id).get(key, START)
        return bool(self.engine.fire([Due(instance_id=instance_id, key=key, due_at=due_at)]))

    def fill(self, current: Slice, needs: Needs) -> None:
        with self.store.transaction() as tx:
            fill(tx, [(current, needs)])
