"""Where the servers live: folders, the account they run under, remembered settings and the record of what runs.

Two folders have a name here. The *directory* is the one the user chose: settings, record, lock and logs, readable by
that user alone. The *ground* holds the data of the servers. They are the same folder, except for root: PostgreSQL
refuses to run as root, so the servers run as `postgres` or `nobody`, and such an account cannot reach a directory
below, say, /root. Modes of folders that are not ours are never changed; instead the ground is a folder of our own in
/var/lib/orchestrator (or the temporary folder), and its path is remembered in `settings.json`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from orchestrator.embedded.processes import Process, ServersError

ACCOUNTS = ("postgres", "nobody")
"""Accounts the servers run under when we are root, best first."""

SOCKET_PATH_LIMIT = 103
"""Bytes a socket path may have: 108 on Linux, 104 on macOS, with its closing zero."""

PORTS = range(20000, 32000)
"""Below the range outgoing connections are given (32768 on Linux, 49152 elsewhere): while a server restarts, a client
that keeps calling could otherwise be given the very port, connect to itself and keep the server out."""

FOLDERS = ("postgres", "postgres.new", "redis", "sockets", "logs")
FILES = ("settings.json", "running.json", "lock", "postgres.lock", "redis.lock")
"""What is made in the directory."""

LOG_LIMIT = 16 * 1024 * 1024
"""Bytes after which a log is moved to `.1` at the next start."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user of the operating system."""

    name: str
    uid: int
    gid: int

    @classmethod
    def of(cls, entry: pwd.struct_passwd) -> Account:
        """Read one line of the password file."""
        return cls(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is chosen once and kept over restarts, so that an address or password printed yesterday is still right.

    `ground` and `sockets` are None while they are folders inside the directory, which may then be moved or copied.
    """

    ground: str | None = None
    sockets: str | None = None
    postgres_port: int = 0
    redis_port: int = 0
    database_password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    redis_password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What runs now. It may be stale: each process is checked before it is believed.

    `owners` holds a process once for every `start` it made; `is_detached` says that the servers outlive them all.
    """

    postgres: Process | None = None
    redis: Process | None = None
    keeper: Process | None = None
    owners: tuple[Process, ...] = ()
    is_detached: bool = False

    def current(self) -> Record:
        """Return the part of the record that is still true."""
        return replace(
            self,
            postgres=_if_alive(self.postgres),
            redis=_if_alive(self.redis),
            keeper=_if_alive(self.keeper),
            owners=tuple(owner for owner in self.owners if owner.is_alive),
        )


def _if_alive(process: Process | None) -> Process | None:
    return process if process is not None and process.is_alive else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The folders of one installation. `account` is None when the servers run as the caller."""

    directory: Path
    ground: Path
    sockets: Path
    account: Account | None

    @property
    def lock(self) -> Path:
        """Held while servers are started, stopped or restarted."""
        return start_lock(self.directory)

    @property
    def postgres_data(self) -> Path:
        """Data folder of PostgreSQL."""
        return self.ground / "postgres"

    @property
    def redis_data(self) -> Path:
        """Data folder of Redis."""
        return self.ground / "redis"

    def log(self, name: str) -> Path:
        """Path of one server's log."""
        return logs(self.directory) / f"{name}.log"


def default_directory() -> Path:
    """Return `$ORCHESTRATOR_HOME`, else `orchestrator` in the user's data folder."""
    chosen = os.environ.get("ORCHESTRATOR_HOME")
    if chosen:
        return Path(chosen)
    data = os.environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "orchestrator"


def start_lock(directory: Path) -> Path:
    """Path of the lock that starts and stops take."""
    return directory / "lock"


def logs(directory: Path) -> Path:
    """Folder of the logs."""
    return directory / "logs"


def create_directory(directory: Path) -> None:
    """Create the directory and its logs folder, private to the user; one that exists keeps its mode.

    As root the directory is made passable (0711), so that the servers' account reaches its own folders inside.
    """
    try:
        if not directory.exists():
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o711 if os.geteuid() == 0 else 0o700)
        logs(directory).mkdir(mode=0o700, exist_ok=True)
    except OSError as problem:
        raise ServersError(f"cannot use {str(directory)!r} as data directory: {problem.strerror}") from problem


def open_home(directory: Path) -> tuple[Home, Settings]:
    """Find or make the folders and settings of a directory. The caller holds the lock.

    Raises:
        ServersError: no folder can be shared with an account that may run the servers.
    """
    settings = read_settings(directory) or Settings()
    account = None
    ground = Path(settings.ground) if settings.ground else directory
    if os.geteuid() == 0:
        account = server_account(ground / "postgres")
        if not may_enter(account, ground):
            ground = _new_ground(account)
            settings = replace(settings, ground=str(ground))
    sockets = _socket_folder(ground, settings, account)
    settings = replace(
        settings,
        sockets=None if sockets.parent == ground else str(sockets),
        postgres_port=settings.postgres_port or free_port(),
        redis_port=settings.redis_port or free_port(),
    )
    write_settings(directory, settings)
    return Home(directory=directory, ground=ground, sockets=sockets, account=account), settings


def known_home(directory: Path) -> tuple[Home, Settings] | None:
    """Find the folders of a directory that was started before, changing nothing; None if it never was."""
    settings = read_settings(directory)
    if settings is None:
        return None
    ground = Path(settings.ground) if settings.ground else directory
    sockets = Path(settings.sockets) if settings.sockets else ground / "sockets"
    return Home(directory=directory, ground=ground, sockets=sockets, account=None), settings


def server_account(data: Path) -> Account:
    """Choose the account that runs the servers for root: the owner of the data, else `postgres`, else `nobody`."""
    if data.exists() and (owner := data.stat().st_uid) != 0:
        return Account.of(pwd.getpwuid(owner))
    for name in ACCOUNTS:
        try:
            return Account.of(pwd.getpwnam(name))
        except KeyError:
            continue
    raise ServersError(
        "PostgreSQL does not run as root, and there is no account 'postgres' or 'nobody' to run it: add one"
    )


def identity(account: Account | None) -> dict[str, Any]:
    """Arguments for `subprocess` that make a child run under the account; none for our own."""
    return {} if account is None else {"user": account.uid, "group": account.gid, "extra_groups": []}


def may_enter(account: Account, folder: Path) -> bool:
    """Try as that account: no reading of mode bits knows about access lists and mount options."""
    done = subprocess.run(["test", "-x", str(folder)], cwd="/", check=False, **identity(account))  # noqa: S603, S607
    return done.returncode == 0


def shared_folders() -> Iterator[Path]:
    """Yield folders of root's own that other accounts can pass, best first; each is created when it is asked for."""
    candidates = (Path("/var/lib/orchestrator"), Path(tempfile.gettempdir()) / "orchestrator-root")
    return (path for path in candidates if _is_own_folder(path))


def _is_own_folder(path: Path) -> bool:
    """Create the folder if it is missing; False if it cannot be made or somebody else could write to it."""
    try:
        path.mkdir(mode=0o711, exist_ok=True)
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _new_ground(account: Account) -> Path:
    for parent in shared_folders():
        ground = Path(tempfile.mkdtemp(prefix="data-", dir=parent))
        ground.chmod(0o711)
        if may_enter(account, ground):
            return ground
        ground.rmdir()
    raise ServersError(
        f"account {account.name!r}, which runs the servers for root, can reach neither the data directory nor"
        " /var/lib/orchestrator nor the temporary folder: choose a data directory it can reach"
    )


def _socket_folder(ground: Path, settings: Settings, account: Account | None) -> Path:
    """Return a folder only the servers' account (and root) can enter, with a path short enough for a socket."""
    if settings.sockets and _is_private(Path(settings.sockets), account):
        return Path(settings.sockets)
    folder = ground / "sockets"
    if len(os.fsencode(folder / ".s.PGSQL.65535.lock")) > SOCKET_PATH_LIMIT:
        folder = Path(tempfile.mkdtemp(prefix="orchestrator-", dir=_short_temporary_folder()))
    give_folder(folder, account)
    return folder


def _short_temporary_folder() -> str:
    chosen = tempfile.gettempdir()
    return chosen if len(os.fsencode(chosen)) < SOCKET_PATH_LIMIT - 45 else "/tmp"  # noqa: S108 - mkdtemp makes the name


def _is_private(folder: Path, account: Account | None) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    owner = os.geteuid() if account is None else account.uid
    return stat.S_ISDIR(found.st_mode) and found.st_uid == owner and stat.S_IMODE(found.st_mode) == 0o700


def give_folder(folder: Path, account: Account | None) -> None:
    """Create a folder, private to the account that runs the servers."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if account is not None:
        os.chown(folder, account.uid, account.gid)
    folder.chmod(0o700)


def give_file(path: Path, text: str, account: Account | None) -> None:
    """Write a private file of the account that runs the servers, whole or not at all."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        if account is not None:
            os.fchown(descriptor, account.uid, account.gid)
    fresh.replace(path)


def free_port() -> int:
    """Return a free port of 127.0.0.1; it is only likely to be free still when a server asks for it."""
    for port in secrets.SystemRandom().sample(PORTS, k=200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the servers set it too
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServersError(f"no free port between {PORTS.start} and {PORTS.stop} on 127.0.0.1")


def rotate_log(path: Path) -> None:
    """Move a log that has grown too long to `.log.1`."""
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))


def read_settings(directory: Path) -> Settings | None:
    """Read the settings; None if the directory was never used."""
    found = _read(directory / "settings.json")
    return None if found is None else Settings(**found)


def write_settings(directory: Path, settings: Settings) -> None:
    """Remember the settings."""
    give_file(directory / "settings.json", json.dumps(asdict(settings), indent=2), None)


def read_record(directory: Path) -> Record:
    """Read what is still true of the record of running processes."""
    found = _read(directory / "running.json")
    return Record() if found is None else _record(found).current()


def write_record(directory: Path, record: Record) -> None:
    """Store the record; one of nothing removes the file."""
    path = directory / "running.json"
    if record == Record():
        path.unlink(missing_ok=True)
    else:
        give_file(path, dump_record(record), None)


def dump_record(record: Record) -> str:
    """Return the record as JSON."""
    return json.dumps(asdict(record))


def load_record(text: str) -> Record:
    """Read what `dump_record` returned."""
    return _record(json.loads(text))


def _record(found: dict[str, Any]) -> Record:
    named = {name: Process(**found[name]) if found[name] else None for name in ("postgres", "redis", "keeper")}
    owners = tuple(Process(**owner) for owner in found["owners"])
    return Record(**named, owners=owners, is_detached=found["is_detached"])


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise ServersError(
            f"cannot read {str(path)!r}: {problem.strerror}; does it belong to another user?"
        ) from problem
    except ValueError as problem:
        raise ServersError(f"{str(path)!r} is damaged; restore it, or remove the data directory") from problem
    return found


def remove_folders(directory: Path) -> None:
    """Delete everything that was made for a directory, and nothing else that lies in it."""
    settings = read_settings(directory)
    if settings is None:
        return
    for folder in (settings.sockets, settings.ground, *(directory / name for name in FOLDERS)):
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
    for name in FILES:
        (directory / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something of the user's lies in it
        directory.rmdir()
