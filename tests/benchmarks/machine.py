"""What the figures depend on: the machine, the versions, and the settings that make a commit durable."""

import contextlib
import os
import platform
import statistics
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg2
from redis import Redis

from orchestrator.embedded import Servers, without_driver

DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
VOLATILE_FILESYSTEMS = frozenset({"tmpfs", "ramfs"})


class NotDurable(Exception):
    """A commit would not survive a crash of the machine, so that no figure would mean anything."""


def check_durability(database_url: str) -> None:
    """Ask a new connection of the engine's own role and database for the settings that make a commit durable.

    Raises:
        NotDurable: One of them is not on.
    """
    for name, wanted in DURABLE.items():
        found = _show(database_url, name)
        if found != wanted:
            raise NotDurable(f"PostgreSQL runs with {name} = {found}, and the figures are about {wanted}")


def check_filesystem(directory: Path) -> None:
    """Refuse a directory that is kept in memory, where a flush costs nothing.

    Raises:
        NotDurable: It is.
    """
    found = filesystem(directory)
    if found in VOLATILE_FILESYSTEMS:
        raise NotDurable(f"the data of PostgreSQL would lie on {found}, which no crash survives")


def filesystem(directory: Path) -> str:
    """Name the type of file system a directory lies on."""
    best, name = "", "unknown"
    for line in _lines("/proc/mounts"):
        _, mount, kind = line.split()[:3]
        if str(directory.resolve()).startswith(mount) and len(mount) >= len(best):
            best, name = mount, kind
    return name


def flush_ms(directory: Path, times: int = 100) -> float:
    """Measure what one small durable write costs here: the median of 8 KiB and `fdatasync`, in milliseconds."""
    path = directory / "flush-probe"
    found = []
    with path.open("wb", buffering=0) as file:
        for _ in range(times):
            file.write(b"\0" * 8192)
            began = time.perf_counter()
            os.fdatasync(file.fileno())
            found.append((time.perf_counter() - began) * 1000)
    path.unlink()
    return round(statistics.median(found), 3)


def facts(servers: Servers) -> dict[str, Any]:
    """Describe machine and versions by plain values.

    `load` is the machine's at the beginning. File system and flush are those of the embedded PostgreSQL's data, None
    for a server that was given by its URL.
    """
    data = servers.data_directory if servers.postgres_pid is not None else None
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _first("/proc/cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "filesystem": data and filesystem(data),
        "flush_ms": data and flush_ms(data),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "postgres": _show(servers.database_url, "server_version"),
        **_redis_version(servers.broker_url),
        **{name: version(name) for name in ("celery", "psycopg2-binary", "dbos") if _is_installed(name)},
    }


def _show(url: str, setting: str) -> str:
    with contextlib.closing(psycopg2.connect(without_driver(url))) as connection, connection.cursor() as cursor:
        cursor.execute(f"SHOW {setting}")
        return str((cursor.fetchone() or ("",))[0])


def _redis_version(url: str) -> dict[str, str]:
    with Redis.from_url(url) as redis:
        server: Mapping[str, Any] = redis.info("server")
    name = "valkey" if "valkey_version" in server else "redis"
    return {name: str(server[f"{name}_version"])}


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except ImportError:
        return False
    return True


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def _first(path: str, field: str) -> str | None:
    return next((line.partition(":")[2].strip() for line in _lines(path) if line.startswith(field)), None)
