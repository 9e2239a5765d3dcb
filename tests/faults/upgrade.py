"""A rolling upgrade and its roll-back under load, between an older commit and this one (`make upgrade-rehearsal`).

The older code is taken out of the repository and shares the installed packages. Its processes work, the database is
migrated under them, processes of both versions work side by side, then those of this version alone; and the same way
back, with the migrations taken back in the end. Clients start instances all the while. What they started is judged as
after any fault, but nothing may run again: an upgrade is no fault.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg2
import psycopg2.extras

from orchestrator import embedded
from orchestrator.dev import ChildSpec, LinePrinter, Supervisor, answers
from orchestrator.embedded import home, without_driver
from orchestrator.store import migrate
from tests.faults.checkers import Found
from tests.faults.journey import BLOCKS, STEPS, record
from tests.faults.nightly.judge import judge
from tests.faults.nightly.load import Load
from tests.support import effects
from tests.support.effects import EffectLog
from tests.support.stack import NAMESPACE, REPOSITORY, TENANT
from tests.support.waiting import wait_until

WORKERS = ("worker-1", "worker-2")
PER_SECOND = 4.0
STOP_SECONDS = 60.0
STALL_SECONDS = 15.0
"""So long at the most may no step be completed while migrations run, on a quiet machine."""
ENDED = ("completed", "failed", "cancelled")


def newest_with_other_schema() -> str | None:
    """Name the newest commit whose migrations end with another one than those of this version; None without history."""
    folder = "orchestrator/store/migrations/versions"
    commits = _git("log", "--format=%H", "--", folder).split()
    for commit in commits:
        before = _git("rev-parse", "--verify", "--quiet", f"{commit}^").strip()
        if before and head_of(before) != migrate.head():
            return before
    return None


def head_of(ref: str) -> str:
    """Name the newest migration of a commit."""
    names = _git("ls-tree", "--name-only", ref, "orchestrator/store/migrations/versions/").split()
    return max(Path(name).name[:4] for name in names if name.endswith(".py"))


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else ""


def take_out(ref: str, directory: Path) -> None:
    """Write the files of a commit to a folder."""
    with (
        subprocess.Popen(["git", "archive", ref], cwd=REPOSITORY, stdout=subprocess.PIPE) as archive,
        tarfile.open(fileobj=archive.stdout, mode="r|") as files,
    ):
        files.extractall(directory, filter="data")
    if archive.returncode:
        raise SystemExit(f"git archive {ref} has failed")


@dataclass(slots=True)
class Phase:
    """A part of the rehearsal, and what was done in it.

    Args:
        least: By version, the steps that its workers must have completed.
    """

    name: str
    least: Mapping[str, int]
    began_at: float = field(default_factory=time.time)
    ended_at: float = 0.0


class Rehearsal:
    """An installation that is upgraded and rolled back; made by `running`."""

    def __init__(self, directory: Path, old: Path, servers: embedded.Servers, url: str, name: str = "all") -> None:
        self.url = url
        self.trees = {"old": old, "new": REPOSITORY}
        self.effects = EffectLog(directory / "effects")
        self.phases: list[Phase] = []
        self.ports = {version: home.free_port() for version in self.trees}
        self._env = {
            **os.environ,
            **servers.environment,
            "DATABASE_URL": url,
            "ORCHESTRATOR_IMPORT": "tests.support.handlers",
            "ORCH8_REQUIRE_TENANT_HEADER": "false",
            "ORCH8_RUN_MIGRATIONS": "false",
            effects.PATH_VARIABLE: str(directory / "effects"),
        }
        self.fleets: dict[str, Supervisor] = {}
        self._log_file = directory / f"{name}.log"
        self._log = self._log_file.open("w")

    @classmethod
    @contextmanager
    def running(cls, directory: Path, ref: str) -> Iterator["Rehearsal"]:
        """Start servers, and the old version on a database of its schema."""
        directory.chmod(0o711)
        old = directory / "old"
        take_out(ref, old)
        servers = embedded.start(directory / "servers", environment={})
        try:
            made = cls(directory, old, servers, embedded.fresh_database(servers, "upgraded"))
            try:
                made.command("old", "migrate")
                made.start("old")
                yield made
            finally:
                for fleet in made.fleets.values():
                    fleet.stop()
        finally:
            embedded.remove(servers.directory)

    def query(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Read from the database, as neither version does."""
        with closing(psycopg2.connect(without_driver(self.url))) as connection:
            psycopg2.extras.register_uuid(conn_or_curs=connection)  # type: ignore[no-untyped-call]
            with connection, connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return cursor.fetchall()

    def _argv(self, version: str, *arguments: str) -> tuple[str, ...]:
        """Run a command of one version: in its folder, so that all it imports is from there."""
        enter = 'cd "$0" && PYTHONPATH="$0" exec "$@"'
        return ("/bin/sh", "-c", enter, str(self.trees[version]), sys.executable, "-m", "orchestrator.cli", *arguments)

    def command(self, version: str, *arguments: str) -> str:
        """Run a command to its end; returns what it prints."""
        done = subprocess.run(
            self._argv(version, *arguments), env=self._env, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{version} {arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def start(self, version: str) -> None:
        """Start all processes of a version, and wait until they work."""
        specs = [
            *(self._worker(version, name) for name in WORKERS),
            ChildSpec(name=f"{version}-service", argv=self._argv(version, "service"), stop_seconds=STOP_SECONDS),
            self._api(version),
        ]
        printer = LinePrinter(tuple(spec.name for spec in specs), self._log, color=False)
        fleet = Supervisor(specs, env=self._env, printer=printer, restart=False, name=version)
        self.fleets[version] = fleet
        fleet.start()
        fleet.wait_ready(120)
        wait_until(lambda: self._registered(version) == len(WORKERS), lambda: f"workers\n{self.log_tail()}", within=120)

    def _worker(self, version: str, name: str) -> ChildSpec:
        argv = self._argv(version, "worker", "-Q", "default", "-c", "1", "--name", f"{version}-{name}")
        return ChildSpec(name=f"{version}-{name}", argv=argv, stop_seconds=STOP_SECONDS)

    def _api(self, version: str) -> ChildSpec:
        url = f"http://127.0.0.1:{self.ports[version]}/health/live"
        argv = self._argv(version, "api", "--port", str(self.ports[version]), "--insecure")
        return ChildSpec(name=f"{version}-api", argv=argv, ready=lambda: answers(url), stop_seconds=STOP_SECONDS)

    def _registered(self, version: str) -> int:
        [[count]] = self.query(
            "SELECT count(DISTINCT name) FROM workers WHERE name LIKE %s AND heartbeat_at > clock_timestamp() - "
            "interval '6 seconds'",
            (f"{version}-%",),
        )
        return int(count)

    def stop(self, version: str, load: Load) -> None:
        """End the processes of a version one after the other, while work goes on."""
        fleet = self.fleets.pop(version)
        for name in fleet.names:
            fleet.stop_child(name)
            self.wait_for_ended(load, 3)
        fleet.stop()

    def wait_for_ended(self, load: Load, count: int) -> None:
        """Wait until so many of the instances accepted from now on have completed."""
        number = len(load.accepted)

        def is_done() -> bool:
            ids = list(load.since(number))
            [[ended]] = self.query(
                "SELECT count(*) FROM instances WHERE id = ANY(%s::uuid[]) AND state = 'completed'", (ids,)
            )
            return int(ended) >= count

        wait_until(is_done, lambda: f"{count} instances to complete\n{self.log_tail()}", within=150)

    @contextmanager
    def phase(self, name: str, **least: int) -> Iterator[None]:
        """Note when a part began and ended."""
        made = Phase(name=name, least=least)
        print(f"{time.strftime('%H:%M:%S')} {name}", flush=True)
        yield
        made.ended_at = time.time()
        self.phases.append(made)

    def log_tail(self, lines: int = 40) -> str:
        """Give the end of everybody's log."""
        self._log.flush()
        return "\n".join(self._log_file.read_text(errors="replace").splitlines()[-lines:])

    def define(self, url: str) -> UUID:
        """Store the sequence through an API."""
        document = {
            "id": str(uuid4()),
            "tenant_id": TENANT,
            "namespace": NAMESPACE,
            "name": "journey",
            "version": 1,
            "created_at": "2026-01-01T00:00:00Z",
            "blocks": BLOCKS,
        }
        answer = httpx.post(f"{url}/sequences", json=document, timeout=30)
        assert answer.status_code == 201, answer.text
        return UUID(document["id"])  # type: ignore[arg-type]

    @property
    def urls(self) -> list[str]:
        """Addresses of both APIs, whether or not they are up."""
        return [f"http://127.0.0.1:{port}" for port in self.ports.values()]

    def count_open(self) -> int | None:
        """Count the instances that have not ended."""
        try:
            [[count]] = self.query("SELECT count(DISTINCT instance_id) FROM steps")
        except psycopg2.Error:
            return None
        return int(count)

    def grow(self, rows: int) -> None:
        """Have so many instances that have ended long ago: migrations take as long as with a past."""
        columns = [
            row[0]
            for row in self.query(
                "SELECT column_name FROM information_schema.columns WHERE table_name = 'instances' "
                "AND is_generated = 'NEVER' ORDER BY ordinal_position"
            )
        ]
        values = ", ".join("gen_random_uuid()" if name == "id" else f"i.{name}" for name in columns)
        self.query(
            f"INSERT INTO instances ({', '.join(columns)}) SELECT {values} FROM (SELECT * FROM instances "
            "WHERE state = 'completed' LIMIT 1) i, generate_series(1, %s) RETURNING 1",
            (rows,),
        )


def rehearse(directory: Path, ref: str, *, instances: int, rows: int) -> Found:
    """Go up and down once; returns what was broken."""
    with Rehearsal.running(directory, ref) as site:
        load = Load(site.urls, site.define(site.urls[0]), per_second=PER_SECOND, count_open=site.count_open)
        load.start()
        try:
            _up_and_down(site, load, head_of(ref), instances, rows)
        finally:
            load.stop()
        return _judged(site, load)


def _up_and_down(site: Rehearsal, load: Load, old_head: str, instances: int, rows: int) -> None:
    share = instances * STEPS // 10
    with site.phase("the old version alone", old=share):
        site.wait_for_ended(load, instances)
    site.grow(rows)
    with site.phase(f"the database goes from {old_head} to {migrate.head()}", old=1):
        site.command("new", "migrate")
        site.wait_for_ended(load, 3)
    with site.phase("the old version on the new schema", old=share):
        site.wait_for_ended(load, instances)
    site.start("new")
    with site.phase("both versions", old=share, new=share):
        site.wait_for_ended(load, 2 * instances)
    site.stop("old", load)
    with site.phase("the new version alone", new=share):
        site.wait_for_ended(load, instances)
    site.start("old")
    with site.phase("both versions, on the way back", old=share, new=share):
        site.wait_for_ended(load, 2 * instances)
    site.stop("new", load)
    with site.phase(f"the database goes back from {migrate.head()} to {old_head}", old=1):
        site.command("new", "migrate", "--to", old_head)
        site.wait_for_ended(load, 3)
    with site.phase("the old version again", old=share):
        site.wait_for_ended(load, instances)


def _judged(site: Rehearsal, load: Load) -> Found:
    ids = tuple(load.accepted)
    wait_until(lambda: site.count_open() == 0, lambda: f"everything to end\n{site.log_tail()}", within=150)
    run = record(site.query, site.effects.executions(), ids)
    found = [f"the API: {each}" for each in load.wrong]
    for promise, verdict in judge(run, (), ()).items():
        print(f"{promise}: checked on {verdict.checked}, {len(verdict.broken)} broken")
        found += [f"{promise}: {each}" for each in verdict.broken]
    [[started]] = site.query(
        "SELECT count(*) FROM instances WHERE sequence_id = %s AND id = ANY(%s::uuid[])", (load.sequence_id, list(ids))
    )
    if started != len(set(ids)):
        found.append(f"{len(set(ids))} instances were accepted, {started} are there")
    done = [
        (row[0].partition("-")[0], row[1])
        for row in site.query(
            "SELECT worker_name, extract(epoch FROM ended_at)::float8 FROM attempts WHERE outcome = 'completed' "
            "AND worker_name IS NOT NULL ORDER BY ended_at"
        )
    ]
    for phase in site.phases:
        found += of_phase(phase, done)
    print(f"answers: {dict(load.answers)}; {len(ids)} instances accepted")
    return found


def of_phase(phase: Phase, done: Sequence[tuple[str, float]]) -> Found:
    """Say what is wrong with a part: too few steps of a version, or none at all for too long."""
    within = [(version, at) for version, at in done if phase.began_at <= at <= phase.ended_at]
    moments = [phase.began_at, *(at for _, at in within), phase.ended_at]
    stall = max(after - before for before, after in itertools.pairwise(moments))
    counts = {version: sum(each == version for each, _ in within) for version in ("old", "new")}
    print(f"{phase.name}: {counts} steps in {phase.ended_at - phase.began_at:.1f} s, none for {stall:.2f} s")
    found = [
        f"{phase.name}: {counts[version]} steps of the {version} version, expected {least}"
        for version, least in phase.least.items()
        if counts[version] < least
    ]
    if stall > STALL_SECONDS:
        found.append(f"{phase.name}: no step was completed for {stall:.1f} s")
    return found


def main() -> int:
    """Rehearse; returns 1 if anything was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.upgrade", description=__doc__)
    parser.add_argument("--ref", help="the older version; by default the newest commit with another schema")
    parser.add_argument("--instances", type=int, default=25, help="that must complete in each part")
    parser.add_argument("--rows", type=int, default=20_000, help="instances of the past that the migrations find")
    options = parser.parse_args()
    ref = options.ref or newest_with_other_schema()
    if ref is None:
        raise SystemExit("the repository has no older commit with another schema: name one with --ref")
    print(
        f"from {_git('log', '-1', '--format=%h %s', ref).strip()} ({head_of(ref)}) to this version ({migrate.head()})"
    )
    directory = Path(tempfile.mkdtemp(prefix="upgrade-"))
    try:
        found = rehearse(directory, ref, instances=options.instances, rows=options.rows)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print("\n".join(found[:50]) or "nothing was broken")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
