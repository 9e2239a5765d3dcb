"""Programs of the model's generator on the real engine over PostgreSQL, compared with the reference interpreter."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from orchestrator import embedded
from orchestrator.core.model import ROOT_KEY
from orchestrator.settings import Settings
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.session import Store
from orchestrator.store.timers import Due
from tests.model.campaign import crash_points
from tests.model.generate import program_of
from tests.model.match import Match
from tests.model.program import Program
from tests.model.reference.places import everything_in
from tests.support.drive import StoredWorld

PROGRAMS = 16
SMALL = 6
"""Blocks of a program, about."""
CRASHES = 3
"""Crash points of each program, spread over its run and other ones for each: in memory every one is tried."""
ON_THE_CLOCK = ("timeout", "deadline", "send_window", "delay")
"""Members whose meaning depends on what the clock on the wall says; all that only waits is left in."""


class _World(StoredWorld):
    """The engine over PostgreSQL, where after a crash only that is delivered which has nothing to do with time."""

    def deliver_mail(self) -> None:
        self.restart()
        while self._start_children() or self._deliver():
            pass

    def _start_children(self) -> bool:
        sql = (
            "SELECT t.instance_id, t.due_at FROM timers t JOIN instances i ON i.id = t.instance_id "
            "WHERE i.tenant_id = %s AND t.block_id = %s"
        )
        with self.store.transaction() as tx:
            due = tx.query(sql, (self.tenant, ROOT_KEY.block_id))
        return bool(self.engine.fire([Due(instance_id=row[0], key=ROOT_KEY, due_at=row[1]) for row in due]))

    def _deliver(self) -> bool:
        sql = (
            "SELECT DISTINCT l.recipient_id FROM letters l JOIN instances i ON i.id = l.recipient_id "
            "WHERE i.tenant_id = %s"
        )
        with self.store.transaction() as tx:
            recipients = [row[0] for row in tx.query(sql, (self.tenant,))]
        self.engine.deliver(recipients)
        return bool(recipients)


@pytest.fixture(scope="module")
def programs_store(servers: embedded.Servers, migrated_template: str) -> Iterator[Store]:
    opened = PostgresStore(embedded.fresh_database(servers, "programs", template=migrated_template), pool_size=3)
    yield opened
    opened.close()


def timeless(program: Program) -> Program:
    """Leave out what depends on the moment at which a program is played."""
    for block in everything_in([*program.blocks, *(b for child in program.children.values() for b in child)]):
        fields: dict[str, Any] = block  # type: ignore[assignment]  # made for this program alone
        for member in ON_THE_CLOCK:
            fields.pop(member, None)
        for gate in ("wait_for_input", "wait_for_signal"):
            if isinstance(fields.get(gate), dict):
                fields[gate].pop("timeout", None)
    for signal in [*program.signals, *program.afterwards]:
        if signal["type"] == "inject":
            timeless(Program(blocks=signal["payload"]["blocks"]))
    return program


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_s5_9_the_engine_agrees_with_the_reference_interpreter_under_crashes(programs_store: Store, seed: int) -> None:
    program = timeless(program_of(2_000_000 + seed, SMALL))

    def play(played: Program) -> Match:
        return Match(played, _World(programs_store, Settings()), is_real_time=True).play()

    points = crash_points(play(program).commits)
    for number in range(CRASHES):
        play(replace(program, crash=points[(seed + number * len(points) // CRASHES) % len(points)]))
