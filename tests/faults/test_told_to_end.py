"""A signal that ends a process is no failure of the step whose handler it was in: others run that again."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from tests.support.drive import step
from tests.support.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]


@contextmanager
def running_step(stack: Stack, directory: Path) -> Iterator[UUID]:
    """Have a step that may not be tried again run until the block ends; gives its instance."""
    release = directory / "release"
    sequence = stack.define([step("a", handler="until_released", params={"path": str(release)})])
    [instance_id] = stack.start_instances(sequence)
    wait_until(lambda: processes_of(stack, instance_id), "the handler to run")
    yield instance_id
    wait_until(lambda: len(processes_of(stack, instance_id)) > 1, "another process to run the step")
    release.touch()


def processes_of(stack: Stack, instance_id: UUID) -> list[int]:
    """Give the processes in which its handler has begun, in order."""
    return [each.pid for each in stack.effects.executions() if str(instance_id) in each.key]


def history(stack: Stack, instance_id: UUID) -> list[str]:
    """Give the outcomes of the attempts, in order."""
    rows = stack.query("SELECT outcome FROM attempts WHERE instance_id = %s ORDER BY id", (instance_id,))
    return [row[0] for row in rows]


def test_a_child_is_told_to_end(stack: Stack, tmp_path: Path) -> None:
    with running_step(stack, tmp_path) as instance_id:
        os.kill(processes_of(stack, instance_id)[0], signal.SIGTERM)
    assert stack.wait_for_end([instance_id]) == {instance_id: "completed"}
    assert history(stack, instance_id) == ["lost", "completed"]
