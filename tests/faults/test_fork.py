"""T15: a child uses no connection that its parent opened before the fork, although it inherits all of them."""

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from tests.faults.journey import BLOCKS, ITEMS
from tests.faults.stopped import is_stopped
from tests.support.stack import Stack, WorkerSpec
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

MORE = 20
"""Executions in which a child would have used what it has inherited."""


def ports_of(pid: int) -> set[int]:
    """Give the local TCP ports of the sockets that a process holds."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since it was listed
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    lines = [line.split() for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]]
    return {int(line[1].partition(":")[2], 16) for line in lines if line[9] in inodes}


def use_of(stack: Stack, ports: set[int]) -> Mapping[int, Any]:
    """Tell what the servers have seen on some connections so far."""
    seen: dict[int, Any] = {
        row[0]: row[1:]
        for row in stack.query(
            "SELECT client_port, state_change, query_start FROM pg_stat_activity WHERE client_port = ANY(%s)",
            (list(ports),),
        )
    }
    redis = Redis.from_url(stack.servers.broker_url)
    for client in redis.client_list():
        port = int(client["addr"].rpartition(":")[2])
        if port in ports:
            seen[port] = client["tot-net-in"]
    redis.close()
    return seen


def test_a_child_uses_no_connection_of_its_parent(installation: Stack, tmp_path: Path) -> None:
    with Stack.running(
        tmp_path / "stack",
        workers={"worker": WorkerSpec()},
        servers=installation.servers,
        env={"ORCHESTRATOR_TIME_SLICE": "60"},  # the child works on while its parent stands still
        env_of=lambda _name, servers: {"DATABASE_URL": str(servers.database_tcp_url)},
    ) as stack:
        former = stack.kill_child("worker")
        wait_until(lambda: stack.children("worker") not in ([], [former]), "another child to be forked")
        [child] = stack.children("worker")
        parent = stack.pid("worker")
        sequence_id = stack.define(BLOCKS)
        ids = stack.start_instances(sequence_id, 100, {"items": list(ITEMS)})
        wait_until(lambda: _executions(stack, child) > 0, "the new child to work")
        os.kill(parent, signal.SIGSTOP)
        try:
            wait_until(lambda: is_stopped(parent), "the parent to stand still")
            inherited = ports_of(parent) & ports_of(child)
            own = ports_of(child) - inherited
            _wait_for_more(stack, child, 1)
            before = use_of(stack, inherited | own)
            _wait_for_more(stack, child, MORE)
            after = use_of(stack, inherited | own)
        finally:
            os.kill(parent, signal.SIGCONT)
        assert inherited & before.keys(), "nothing was inherited: the test shows nothing"
        assert any(before[port] != after[port] for port in own & before.keys()), "use is not seen"
        assert {port for port in inherited if before.get(port) != after.get(port)} == set()
        stack.wait_for_end(ids)


def _executions(stack: Stack, pid: int) -> int:
    return sum(execution.pid == pid for execution in stack.effects.executions())


def _wait_for_more(stack: Stack, pid: int, count: int) -> None:
    least = _executions(stack, pid) + count
    wait_until(lambda: _executions(stack, pid) >= least, f"{count} more executions", within=30)
