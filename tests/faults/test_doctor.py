"""The doctor names what is done to a running installation while it lasts, and says nothing when it is healed."""

import random
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from orchestrator.doctor import Finding, Severity, database, examine
from orchestrator.settings import Settings
from sequences.signals import Control
from tests.faults.long import only_long
from tests.faults.nightly.kinds import POINT_KINDS, Kind, Pace, kinds_of, parked_reason
from tests.faults.nightly.site import SERVICES, TO_API, TO_POSTGRES, TO_REDIS, WORKERS, Plan, Site
from tests.support.proxy import Trouble
from tests.support.stack import ENDED
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]

KINDS = kinds_of(Plan())
LASTS = Pace(pause=(12.0, 12.0), stop=(14.0, 14.0), outage=(14.0, 14.0))
HELD_SECONDS = 5.0
"""A transaction counts as long after a minute; the test does not wait for so long."""
PER_SECOND = 2.0

CUTS = (Trouble.BLACK_HOLE, Trouble.ONE_WAY, Trouble.RESET)

NAMED: dict[str, frozenset[str]] = {
    "SIGSTOP of a worker's parent": frozenset({"silent_worker"}),
    "SIGSTOP of a whole worker": frozenset({"silent_worker"}),
    "SIGSTOP of the API": frozenset({"api_unreachable"}),
    "SIGSTOP of Redis": frozenset({"redis_unreachable"}),
    "CLIENT PAUSE": frozenset({"redis_unreachable"}),
    "memory of Redis full": frozenset({"redis_full"}),
    "PostgreSQL down": frozenset({"postgres_unreachable"}),
    "connections exhausted": frozenset({"connections_exhausted", "connections"}),
    "a table locked": frozenset({"table_locked"}),
    "a snapshot held": frozenset({"long_transaction"}),
    "poison: os._exit": frozenset({"parked"}),
    "poison: segmentation fault": frozenset({"parked"}),
    **{f"{trouble}: {TO_POSTGRES}": frozenset({"silent_worker"}) for trouble in CUTS},
    **{f"{trouble}: {TO_API}": frozenset({"api_unreachable"}) for trouble in CUTS},
}
"""What lasts, and any one of the names that the doctor has for it."""

IN_SHORT = frozenset({"a table locked"})
"""Each of the others takes a quarter of a minute as well."""

_RESTARTED = "it is started again at once, and others do its work meanwhile"
_AT_ONCE = "it is over as soon as it has happened: whoever was hit connects anew"
UNNAMED: dict[str, str] = {
    "kill -9 of a child": "the parent forks another one at once",
    "SIGSTOP of a child": "it looks like a handler that works for long; its time-out ends it",
    **dict.fromkeys(("kill -9 of a worker", "TERM to a worker", "QUIT to a worker"), _RESTARTED),
    **dict.fromkeys(("kill -9 of a service", "TERM to a service"), _RESTARTED),
    "SIGSTOP of a service": "another service does its work; without another one it is `no_loops`",
    **dict.fromkeys(("kill -9 of the API", "TERM to the API"), _RESTARTED),
    **dict.fromkeys((kind.name for kind in POINT_KINDS), _RESTARTED),
    "FLUSHALL": "the dispatcher sends all hints anew within a second; without one it is `broker_mark`",
    "Redis restarted empty": "the same as FLUSHALL",
    **dict.fromkeys(("CLIENT KILL", "backends terminated", "PostgreSQL restarted at once"), _AT_ONCE),
    "hints repeated": "stale hints are dropped",
    **{
        f"{trouble}: {TO_REDIS}": "other workers do the work; where there is none, steps that were hinted and not "
        "claimed for 45 s are `lost_hints`"
        for trouble in Trouble
    },
    **{f"{Trouble.LATENCY}: {link}": "half a second more is no fault" for link in (TO_POSTGRES, TO_API)},
    **{f"{Trouble.LOSS}: {link}": "some answers come a fifth of a second late" for link in (TO_POSTGRES, TO_API)},
}


class Patient:
    """An installation under load, and what the doctor says of it."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.settings = site.stack.settings
        self.api_url = f"http://127.0.0.1:{site.links[TO_API].port}"

    def findings(self, settings: Settings | None = None) -> list[Finding]:
        """Say what is wrong."""
        found = examine(settings or self.settings, self.api_url)
        return [each for each in found if each.severity is not Severity.NOTE]

    def wait_for(self, names: frozenset[str], while_true: Callable[[], bool] = lambda: True) -> None:
        """Wait until one of these is found; the doctor must say what to do about it."""
        last: list[Finding] = []

        def is_named() -> bool:
            last[:] = self.findings()
            return not while_true() or any(each.name in names for each in last)

        wait_until(is_named, lambda: f"one of {set(names)} to be found: {last}")
        named = [each for each in last if each.name in names]
        assert named, f"{set(names)} was not found while it lasted: {last}"
        assert all(each.remedy not in {"", "nothing"} for each in named)

    def wait_until_well(self) -> None:
        """Wait until nothing is found any more."""
        last: list[Finding] = []

        def is_well() -> bool:
            last[:] = self.findings()
            return not last

        wait_until(is_well, lambda: f"nothing to be found: {last}\n{self.site.stack.log_tail()}")


@pytest.fixture(scope="module")
def patient() -> Iterator[Patient]:
    directory = Path(tempfile.mkdtemp(prefix="doctor-"))
    directory.chmod(0o711)
    try:
        with Site.running(directory, per_second=PER_SECOND, seed=1) as site:
            yield Patient(site)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(autouse=True)
def well(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LONG_TRANSACTION", timedelta(seconds=HELD_SECONDS))
    patient.site.mend()
    patient.wait_until_well()


def test_each_kind_of_fault_is_named_or_needs_no_name() -> None:
    assert {kind.name for kind in KINDS} == NAMED.keys() | UNNAMED.keys()
    assert not NAMED.keys() & UNNAMED.keys()


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, id=kind.name, marks=() if kind.name in IN_SHORT else only_long)
        for kind in KINDS
        if kind.name in NAMED
    ],
)
def test_the_doctor_names_a_fault_while_it_lasts(kind: Kind, patient: Patient) -> None:
    with _striking(kind, patient.site) as thread:
        patient.wait_for(NAMED[kind.name], thread.is_alive if kind.group != "poison" else lambda: True)
        thread.join(200)
    patient.site.mend()
    _end_what_is_parked(patient)
    patient.wait_until_well()


@contextmanager
def _striking(kind: Kind, site: Site) -> Iterator[threading.Thread]:
    """Strike beside: the fault lasts as long as the thread lives."""
    failed: list[BaseException] = []

    def strike() -> None:
        try:
            kind.strike(site, random.Random(1), LASTS)
        except BaseException as problem:
            failed.append(problem)

    thread = threading.Thread(target=strike, daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        thread.join(200)
    assert not failed, failed


def _end_what_is_parked(patient: Patient) -> None:
    stack = patient.site.stack
    ids = [
        row[0] for row in stack.query("SELECT id FROM instances WHERE parked_reason IS NOT NULL AND state = 'paused'")
    ]
    for instance_id in ids:
        assert parked_reason(patient.site, instance_id)
        stack.engine.interventions.signal(instance_id, Control.CANCEL, None)
    stack.wait_for_states(ids, ENDED)


@only_long
def test_the_doctor_names_a_worker_that_is_dead_and_a_queue_without_any(patient: Patient) -> None:
    stack = patient.site.stack
    stack.kill(WORKERS[0])
    patient.wait_for(frozenset({"silent_worker"}))
    stack.kill(WORKERS[1])
    patient.wait_for(frozenset({"queue_without_worker"}))


def test_the_doctor_names_loops_that_are_dead_and_a_redis_that_was_emptied_meanwhile(patient: Patient) -> None:
    stack = patient.site.stack
    for name in SERVICES:
        stack.kill(name)
    stack.flush_redis()
    patient.wait_for(frozenset({"broker_mark"}))
    patient.wait_for(frozenset({"no_loops"}))
    patient.wait_for(frozenset({"api_not_ready"}))


def test_the_doctor_names_an_installation_that_is_not_this_one(patient: Patient) -> None:
    other = patient.settings.model_copy(update={"installation": "another"})
    assert {each.name for each in patient.findings(other)} == {"broker_mark"}


def test_what_is_over_at_once_leaves_nothing_to_be_found(patient: Patient) -> None:
    began = time.monotonic()
    for kind in KINDS:
        if kind.name in {"FLUSHALL", "CLIENT KILL", "backends terminated", "hints repeated", "kill -9 of a child"}:
            kind.strike(patient.site, random.Random(1), LASTS)
    patient.wait_until_well()
    assert time.monotonic() - began < 60
