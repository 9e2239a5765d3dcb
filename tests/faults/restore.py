"""A base backup and a restore to a moment in the middle of the load after it (`make restore-rehearsal`).

PostgreSQL archives its log. Under load a base backup is taken, then a moment is noted, then work goes on for a while:
that time will be lost. The moment is restored into another folder, beside a Redis that still holds the hints of the
lost time, and an installation is started on it. What was accepted before the moment must run to its end; what had
finished then is not run again.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import psycopg2

from orchestrator import embedded
from orchestrator.embedded import home, without_driver
from orchestrator.embedded.binaries import find_postgres
from orchestrator.embedded.postgres import environment
from tests.faults import checkers
from tests.faults.checkers import Found
from tests.faults.journey import STEPS, Fault, Run, record
from tests.faults.nightly.judge import judge
from tests.faults.nightly.load import Load
from tests.faults.upgrade import WORKERS, Rehearsal
from tests.support.stack import REPOSITORY
from tests.support.waiting import wait_until

PER_SECOND = 60.0
"""More than the workers keep up with: at the moment steps must be open that are claimed soon after it."""
OPEN_STEPS = 10
GRACE_SECONDS = 30.0
"""Until so long after the start claims of before the moment are taken from workers that are gone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """What is restored.

    Args:
        at: By the clock of the database.
        accepted: Instances whose acceptance had been answered.
        keys: How many requests had been answered, of the load.
        before: What was known of them.
    """

    at: datetime
    accepted: tuple[UUID, ...]
    before: Run


def rehearse(directory: Path, instances: int) -> Found:
    """Back up, lose the last part, restore, go on; returns what was broken."""
    directory.chmod(0o711)
    archive = directory / "archive"
    archive.mkdir()
    former = embedded.start(directory / "former", environment={})
    try:
        _own_by_server(former, archive)
        _archive_log(former, archive)
        site = Rehearsal(directory, REPOSITORY, former, former.database_url, "former")
        try:
            moment, lost, epochs = _work_and_lose(site, former, directory, instances)
        finally:
            for fleet in site.fleets.values():
                fleet.stop_hard()
                fleet.stop()
        _crash(former)
        restored = _restore(former, directory, archive, moment.at)
        try:
            return _go_on(directory, former, restored, moment, lost, epochs)
        finally:
            embedded.remove(restored.directory)
    finally:
        embedded.remove(former.directory)


def _crash(servers: embedded.Servers) -> None:
    """End PostgreSQL as a loss of its machine does; Redis goes on."""
    found = embedded.status(servers.directory, environment={})
    assert found is not None
    assert found.postgres_pid is not None
    os.kill(found.postgres_pid, signal.SIGQUIT)


def _admin(servers: embedded.Servers, *statements: str) -> list[tuple[object, ...]]:
    with closing(psycopg2.connect(without_driver(str(servers.admin_url)))) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def _own_by_server(servers: embedded.Servers, path: Path) -> None:
    """Give a file or folder to the account that runs the server."""
    assert servers.data_directory is not None
    owner = (servers.data_directory / "postgres").stat()
    for each in (path, *path.rglob("*")):
        os.chown(each, owner.st_uid, owner.st_gid)


def _archive_log(servers: embedded.Servers, archive: Path) -> None:
    _admin(
        servers,
        "ALTER SYSTEM SET archive_mode = 'on'",
        f"ALTER SYSTEM SET archive_command = 'test ! -f {archive}/%f && cp %p {archive}/%f'",
    )
    embedded.restart_postgres(servers, immediate=False)


def _base_backup(servers: embedded.Servers, target: Path) -> None:
    """Run pg_basebackup over the socket, as the superuser of the server."""
    assert servers.data_directory is not None
    address = parse_qs(urlsplit(without_driver(str(servers.admin_url))).query)
    program = find_postgres(None, major=None).path.with_name("pg_basebackup")
    command = [program, "-h", address["host"][0], "-p", address["port"][0], "-U", "postgres", "-D", target]
    subprocess.run([*command, "--checkpoint=fast", "-X", "none"], env=environment(), check=True, capture_output=True)


def _work_and_lose(
    site: Rehearsal, servers: embedded.Servers, directory: Path, instances: int
) -> tuple[Moment, Load, dict[UUID, int]]:
    """Work, back up, work, note the moment, work on; returns the moment, the clients, and the claims made after it."""
    site.command("new", "migrate")
    site.start("new")
    load = Load(site.urls[1:], site.define(site.urls[1]), per_second=PER_SECOND, count_open=site.count_open)
    load.start()
    try:
        site.wait_for_ended(load, instances)
        _base_backup(servers, directory / "base")
        site.wait_for_ended(load, instances)
        wait_until(lambda: _ready(site) >= OPEN_STEPS, "steps to wait for workers")
        accepted = tuple(load.accepted)
        before = record(site.query, site.effects.executions(), accepted)
        [[at]] = site.query("SELECT clock_timestamp()")
        moment = Moment(at=at, accepted=accepted, before=before)
        site.wait_for_ended(load, instances)
    finally:
        load.stop()
    epochs = dict(site.query("SELECT step_id, max(claim_epoch) FROM attempts WHERE claimed_at > %s GROUP BY 1", (at,)))
    [[last]] = _admin(servers, "SELECT pg_walfile_name(pg_switch_wal())")

    def is_archived() -> bool:
        [[newest]] = _admin(servers, "SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver")
        return str(newest) >= str(last)

    wait_until(is_archived, "the log to be archived")
    return moment, load, epochs


def _ready(site: Rehearsal) -> int:
    [[count]] = site.query("SELECT count(*) FROM steps WHERE state = 'ready'")
    return int(count)


def _restore(former: embedded.Servers, directory: Path, archive: Path, at: datetime) -> embedded.Servers:
    """Put the base backup where another server will find it, tell it up to where to read the log, and start it."""
    target = directory / "restored"
    home.create_directory(target)
    known = home.read_settings(former.directory)
    assert known is not None
    home.write_settings(target, home.Settings(database_password=known.database_password))
    place, _ = home.open_home(target)
    shutil.copytree(directory / "base", place.postgres_data)
    (place.postgres_data / "recovery.signal").touch()
    with (place.postgres_data / "postgresql.auto.conf").open("a") as settings:
        settings.write(
            f"archive_mode = off\nrestore_command = 'cp {archive}/%f %p'\n"
            f"recovery_target_time = '{at.isoformat()}'\nrecovery_target_action = 'promote'\n"
        )
    place.postgres_data.chmod(0o700)
    owner = (former.data_directory or target) / "postgres"
    for each in (place.postgres_data, *place.postgres_data.rglob("*")):
        os.chown(each, owner.stat().st_uid, owner.stat().st_gid)
    return embedded.start(target, environment={"REDIS_URL": former.redis_url, "BROKER_URL": former.broker_url})


def _go_on(
    directory: Path,
    former: embedded.Servers,
    restored: embedded.Servers,
    moment: Moment,
    load: Load,
    epochs: dict[UUID, int],
) -> Found:
    """Start an installation on what was restored, and judge it."""
    restored = replace(restored, redis_url=former.redis_url, broker_url=former.broker_url)
    site = Rehearsal(directory, REPOSITORY, restored, restored.database_url, "restored")
    started_at = time.time()
    wait_until(lambda: site.query("SELECT NOT pg_is_in_recovery()") == [(True,)], "the server to take writes")
    # Restored so soon, the heartbeats of the former processes are still fresh.
    wait_until(lambda: _begin_anew(site), "the former processes to count as dead", within=60)
    try:
        site.start("new")
        clients = load.going_on(site.urls[1:], site.count_open)
        clients.start()
        site.wait_for_ended(clients, 5)
        clients.stop()
        ids = moment.accepted
        wait_until(lambda: site.count_open() == 0, lambda: f"everything to end\n{site.log_tail()}", within=150)
        return _judged(site, moment, ids, clients, epochs, started_at)
    finally:
        for fleet in site.fleets.values():
            fleet.stop()


def _begin_anew(site: Rehearsal) -> bool:
    try:
        print(site.command("new", "restored").strip())
    except AssertionError as refused:
        if "end them first" not in str(refused):
            raise
        return False
    return True


def _judged(
    site: Rehearsal, moment: Moment, ids: Sequence[UUID], clients: Load, epochs: dict[UUID, int], started_at: float
) -> Found:
    cut = moment.at.timestamp()
    executions = [each for each in site.effects.executions() if not cut < each.started_at < started_at]
    run = record(site.query, executions, ids)
    lost = Fault(name="the restore", began_at=cut, ended_at=started_at + GRACE_SECONDS, may_run_again=len(WORKERS))
    found = [f"the API: {each}" for each in clients.wrong]
    for promise, verdict in judge(run, (lost,), moment.before.outputs).items():
        print(f"{promise}: checked on {verdict.checked}, {len(verdict.broken)} broken")
        found += [f"{promise}: {each}" for each in verdict.broken]
    done = {output.key.text for output in moment.before.outputs}
    again = [each.key for each in executions if each.started_at >= started_at and each.key in done]
    found += [f"{key} had finished before the moment, and ran again" for key in again]
    twice = {e.key for e in site.effects.executions() if cut < e.started_at < started_at} & {
        e.key for e in executions if e.started_at >= started_at
    }
    renewed = site.query(
        "SELECT step_id, claim_epoch FROM attempts WHERE claimed_at > to_timestamp(%s) AND step_id = ANY(%s::uuid[])",
        (started_at, list(epochs)),
    )
    found += [
        f"claim {epoch} of {step} is not above those of the lost time"
        for step, epoch in renewed
        if epoch <= epochs[step]
    ]
    found += checkers.enough_was_done(run, outputs=len(ids) * STEPS, executions=len(moment.before.executions))
    if not renewed or not done or not twice:
        found.append(
            f"nothing was lost: {len(renewed)} claims renewed, {len(done)} outputs kept, {len(twice)} effects twice"
        )
    print(
        f"{len(ids)} instances and {len(done)} outputs were there at the moment; {len(twice)} steps of the time "
        f"after it ran a second time; {len(renewed)} claims were renewed"
    )
    return found


def main() -> int:
    """Rehearse; returns 1 if anything was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.restore", description=__doc__)
    parser.add_argument("--instances", type=int, default=20, help="that must complete in each part")
    directory = Path(tempfile.mkdtemp(prefix="restore-"))
    try:
        found = rehearse(directory, parser.parse_args().instances)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    print("\n".join(found[:50]) or "nothing was broken")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
