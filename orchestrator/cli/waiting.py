"""Waiting for an instance, with its progress on standard error."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.exits import ExitCode
from orchestrator.cli.printing import compact, note

if TYPE_CHECKING:
    from orchestrator.client import Client, Instance


def wait_for(client: "Client", instance_id: str, timeout: float | None) -> "Instance":
    """Wait until an instance has settled; a spinner on a terminal, a line for each state elsewhere."""
    with _progress() as show:
        return client.wait(instance_id, timeout, watch=show)


def exit_by_state(client: "Client", instance: "Instance") -> None:
    """End with the code for work that failed, and say why, unless the instance has completed."""
    if instance.state == "completed":
        return
    if instance.parked_reason is not None and not instance.state.is_terminal:
        note(
            f"orchestrator: instance {instance.id} was parked: {instance.parked_reason}; when that is mended: "
            f"orchestrator instances resume {instance.id}"
        )
    elif instance.state == "failed":
        note(
            f"orchestrator: instance {instance.id} failed{_reason(client, instance)}; when that is mended: "
            f"orchestrator instances retry {instance.id}"
        )
    else:
        note(f"orchestrator: instance {instance.id} was {instance.state}")
    raise typer.Exit(ExitCode.WORK_FAILED)


def _reason(client: "Client", instance: "Instance") -> str:
    failed = [attempt for attempt in client.attempts(instance.id) if attempt.error is not None]
    if not failed:
        return ""
    last = failed[-1]
    message = last.error.get("message", last.error) if isinstance(last.error, dict) else last.error
    return f" at block {last.block_id!r}, attempt {last.attempt}: {compact(message)[:500]}"


@contextmanager
def _progress() -> Iterator[Callable[["Instance"], None]]:
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console  # noqa: PLC0415 - on a terminal only
    from rich.text import Text  # noqa: PLC0415 - on a terminal only

    began = time.monotonic()
    with Console(stderr=True).status("looking") as status:
        yield lambda instance: status.update(Text(f"{_line(instance)}, {time.monotonic() - began:.0f} s"))


def _lines() -> Callable[["Instance"], None]:
    last = ""

    def show(instance: "Instance") -> None:
        nonlocal last
        if instance.state != last:
            last = instance.state
            note(_line(instance))

    return show


def _line(instance: "Instance") -> str:
    runtime = instance.context.runtime
    where = f" at {runtime.current_step}" if runtime.current_step and not instance.state.is_terminal else ""
    steps = f"{runtime.total_steps_executed} step{'' if runtime.total_steps_executed == 1 else 's'} done"
    return f"{instance.id} {instance.state}{where}, {steps}"
