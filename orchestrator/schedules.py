"""The door for cron schedules: storing them, changing them, starting what they name when they are due (api §14)."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, Final
from uuid import UUID

import structlog

from orchestrator.catalogue import check_name
from orchestrator.core.calendars import zone_names, zone_of
from orchestrator.core.cron import CronError, parse
from orchestrator.core.sections import rfc3339
from orchestrator.engine import Engine
from orchestrator.errors import Forbidden, InvalidArgument, NotFound
from orchestrator.exchange import Begun, NewInstance
from orchestrator.store import counters, definitions, schedules
from orchestrator.store.definitions import StoredDefinition
from orchestrator.store.instances import Profile
from orchestrator.store.postgres import PostgresStore, PostgresTransaction
from orchestrator.store.schedules import OverlapPolicy, Schedule
from sequences.schemas import compile_schema
from sequences.signals import Control

log = structlog.get_logger()

TRIGGERED: Final = "orch8_cron_triggered"
SKIPPED: Final = "orch8_cron_skipped"
_OF_TIME: Final = frozenset({"cron_expr", "timezone", "enabled"})
"""What decides when a schedule fires."""


class Schedules:
    """Stored schedules. A `tenant` argument is the scope of the caller: None sees all tenants."""

    def __init__(self, store: PostgresStore, engine: Engine) -> None:
        self._store = store
        self._engine = engine

    def create(self, schedule: Schedule) -> Schedule:
        """Store a schedule; it fires for moments after this one.

        Raises:
            InvalidArgument: A name, the expression or the zone is none, or the expression names no moment to come.
            NotFound: There is no such sequence.
            Forbidden: The sequence belongs to another tenant.
        """
        for name in ("tenant_id", "namespace"):
            check_name(name, getattr(schedule, name))
        with self._store.transaction() as tx:
            schedule = replace(schedule, next_fire_at=_first_fire(schedule, tx.now()))
            found = definitions.heads(tx, [schedule.sequence_id]).get(schedule.sequence_id)
            if found is None:
                raise NotFound(f"sequence {schedule.sequence_id}")
            if found.tenant_id != schedule.tenant_id:
                raise Forbidden(f"sequence {schedule.sequence_id} belongs to another tenant")
            definitions.hold(tx, [found.id])
            schedules.insert(tx, schedule)
        return schedule

    def get(self, schedule_id: UUID, *, tenant: str | None) -> Schedule:
        """Read a schedule; NotFound if the caller has none of that id."""
        with self._store.reading(tenant) as tx:
            return _owned(schedules.get(tx, schedule_id, tenant), schedule_id)

    def find(self, *, tenant: str | None, limit: int) -> list[Schedule]:
        """List schedules, the oldest first."""
        with self._store.reading(tenant) as tx:
            return schedules.find(tx, tenant, limit)

    def change(self, schedule_id: UUID, changes: Mapping[str, Any], *, tenant: str | None) -> Schedule:
        """Change what is named: `cron_expr`, `timezone`, `enabled`, `metadata`, `overlap_policy`.

        Other times begin now. A schedule that is due and whose times stay fires all the same.
        """
        self.get(schedule_id, tenant=tenant)
        with self._store.transaction() as tx:
            found = _owned(schedules.get(tx, schedule_id, tenant, lock=True), schedule_id)
            changed = replace(found, **changes)
            if changes.keys() & {"cron_expr", "timezone"}:
                changed = replace(changed, next_fire_at=_first_fire(changed, tx.now()))
            elif "enabled" in changes:
                changed = replace(changed, next_fire_at=_next_fire(changed, tx.now()))
            schedules.update(tx, changed, is_moved=bool(changes.keys() & _OF_TIME))
            return _owned(schedules.get(tx, schedule_id), schedule_id)

    def delete(self, schedule_id: UUID, *, tenant: str | None) -> None:
        """Remove a schedule; flows that it has started go on."""
        self.get(schedule_id, tenant=tenant)
        with self._store.transaction() as tx:
            _owned(schedules.get(tx, schedule_id, tenant, lock=True), schedule_id)
            schedules.delete(tx, schedule_id)

    def next_fires(self, schedule: Schedule, count: int) -> list[datetime]:
        """List the next moments that a schedule's expression names."""
        with self._store.reading(schedule.tenant_id) as tx:
            now = tx.now()
        return list(islice(parse(schedule.cron_expr).fires(now, zone_of(schedule.timezone)), count))

    # -- firing --------------------------------------------------------------------------------------------------

    def fire(self, due: Schedule, *, look_again: timedelta) -> bool:
        """Start the flow of a schedule that is due; False if nothing was to be done.

        The flow, its key and the next moment are one transaction under the lock of the schedule: whatever happens, and
        however many processes see it due, a moment is fired for once. What was missed while nobody looked is fired for
        once, with the oldest moment.

        Args:
            look_again: When a schedule that waits for the end of its last flow is looked at again.
        """
        if due.overlap_policy is OverlapPolicy.CANCEL_PREVIOUS:
            self._cancel_runs(due)
        self._engine.know_handlers()
        begun: Begun | None = None
        with self._store.transaction() as tx:
            schedule = schedules.take_due(tx, due.id)
            if schedule is None:
                return False
            schedules.forget_ended_runs(tx, schedule.id)
            is_running = bool(schedules.open_runs(tx, schedule.id))
            if is_running and schedule.overlap_policy is OverlapPolicy.BUFFER_ONE:
                schedules.postpone(tx, schedule.id, look_again)
                return False
            if not (is_running and schedule.overlap_policy is OverlapPolicy.SKIP):
                begun = self._begin(tx, schedule)
            next_fire_at = _next_fire(schedule, tx.now())
            if begun is None:
                schedules.mark_skipped(tx, schedule.id, next_fire_at)
            else:
                schedules.mark_fired(tx, schedule.id, next_fire_at)
            counters.add(tx, {SKIPPED if begun is None else TRIGGERED: 1})
        if begun is not None:
            self._engine.see_off(begun)
        return True

    def _cancel_runs(self, due: Schedule) -> None:
        """Cancel what was fired for earlier moments; another process may have fired for this one already."""
        with self._store.transaction() as tx:
            earlier = schedules.open_runs(tx, due.id, due.next_fire_at)
        if earlier:
            self._engine.interventions.signal_many(earlier, Control.CANCEL, None)

    def _begin(self, tx: PostgresTransaction, schedule: Schedule) -> Begun | None:
        """Start a flow in the transaction of the fire; None if its sequence cannot be started."""
        definition = _startable(tx, schedule)
        fire_time = schedule.next_fire_at
        if definition is None or fire_time is None:
            return None
        metadata = schedule.metadata if isinstance(schedule.metadata, dict) else {}
        request = NewInstance(
            sequence_id=definition.id,
            tenant_id=schedule.tenant_id,
            namespace=schedule.namespace,
            timezone=schedule.timezone,
            profile=Profile(
                data={},
                metadata={**metadata, "cron_schedule_id": str(schedule.id)},
                idempotency_key=f"cron:{schedule.id}:{rfc3339(fire_time)}",
            ),
        )
        begun = self._engine.begin(tx, [request])
        if not begun.started[0].is_duplicate:
            schedules.insert_run(tx, schedule.id, begun.started[0].id, fire_time)
        return begun


def _startable(tx: PostgresTransaction, schedule: Schedule) -> StoredDefinition | None:
    """Find the version to start: the one that is named, for a deprecated one the newest of its name.

    None, and a line in the log, if all are deprecated or its input schema refuses empty data.
    """
    named = definitions.get(tx, schedule.sequence_id)
    found = named
    if named is not None and named.deprecated:
        found = definitions.newest(tx, named.tenant_id, named.namespace, named.name)
    if found is None:
        log.warning("schedule_cannot_start", schedule_id=str(schedule.id), reason="no version is left")
        return None
    schema = found.document.get("input_schema")
    if schema is not None and compile_schema(schema).violations({}):
        log.warning("schedule_cannot_start", schedule_id=str(schedule.id), reason="input_schema refuses empty data")
        return None
    return found


def _first_fire(schedule: Schedule, now: datetime) -> datetime:
    """Give the next moment of an expression that a client has written; InvalidArgument if there is none."""
    if schedule.timezone not in zone_names():
        raise InvalidArgument(f"timezone {schedule.timezone!r} is not known")
    try:
        moment = _next_fire(schedule, now)
    except CronError as error:
        raise InvalidArgument(f"cron_expr: {error}") from error
    if moment is None:
        raise InvalidArgument(f"cron_expr: {schedule.cron_expr!r} names no moment to come")
    return moment


def _next_fire(schedule: Schedule, now: datetime) -> datetime | None:
    return parse(schedule.cron_expr).next_fire(now, zone_of(schedule.timezone))


def _owned(found: Schedule | None, schedule_id: UUID) -> Schedule:
    if found is None:
        raise NotFound(f"cron_schedule {schedule_id}")
    return found
