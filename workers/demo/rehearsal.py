"""The story of the demo: index a library, lose a worker and all of Redis half-way, ask a person, publish, count."""

import sysconfig
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from orchestrator.client import Approval, Client, InstanceState, StartOptions
from sequences import library
from workers.demo import facts
from workers.demo.facts import Facts, Promise
from workers.demo.screen import Bar, Screen
from workers.demo.stage import Stage, stage

TENANT = "demo"
VICTIM = "worker-gpu"
LOOK_SECONDS = 0.5
PATIENCE_SECONDS = 600.0
"""Without any progress for so long, something is broken; a module takes milliseconds."""


class Stuck(Exception):
    """Raised when what the story waits for does not come."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What to index, and where to do it."""

    directory: Path = Path("build/demo")
    source: Path = field(default_factory=lambda: Path(sysconfig.get_path("stdlib")))


def rehearse(options: Options, screen: Screen) -> bool:
    """Run the demo; returns whether every promise was kept."""
    directory = options.directory.resolve()
    screen.say(f"starting PostgreSQL, Redis, API, service and two workers in {options.directory}")
    with stage(directory) as playing, Client(playing.address, tenant=TENANT) as client:
        screen.say(f"ready: {playing.address}, logs in {playing.logs}")
        instance_id = _start(client, playing.address, options.source.resolve(), directory / "report")
        screen.say(f"the sequence library_index is posted and instance {instance_id} has begun")
        act = _Act(playing, client, instance_id, screen)
        act.index_and_survive()
        act.approve()
        act.wait_for_end()
        found = facts.read(playing.store, instance_id)
    promises = facts.judge(found)
    tell(found, promises, screen)
    return all(promise.is_kept for promise in promises)


def _start(client: Client, address: str, source: Path, report: Path) -> UUID:
    client.create_sequence(library.load("library_index"))
    data = {"source": str(source), "directory": str(report)}
    options = StartOptions(config={"api": address, "tenant": TENANT})
    return client.start("library_index", data, options=options).id


class _Act:
    """One instance on the stage."""

    def __init__(self, playing: Stage, client: Client, instance_id: UUID, screen: Screen) -> None:
        self._stage = playing
        self._client = client
        self._id = instance_id
        self._screen = screen

    def index_and_survive(self) -> None:
        """Watch the modules being indexed, and do the harm half-way."""
        with self._screen.bar("modules") as bar:
            self._watch(bar, lambda done, total: 2 * done >= total and bool(self._in_flight()))
            self._harm()
            self._watch(bar, lambda done, total: done == total)

    def _watch(self, bar: Bar, is_over: Callable[[int, int], bool]) -> None:
        last, since = -1, time.monotonic()
        while True:
            done, total = facts.progress(self._stage.store, self._id)
            bar.update(done, total)
            if total and (is_over(done, total) or done == total):
                return
            last, since = (done, time.monotonic()) if done != last else (last, since)
            self._check(since)
            time.sleep(LOOK_SECONDS)

    def _check(self, since: float) -> None:
        if time.monotonic() - since > PATIENCE_SECONDS:
            raise Stuck(f"nothing has moved for {PATIENCE_SECONDS:g} s; see {self._stage.logs}")
        if (state := self._state()) in {InstanceState.FAILED, InstanceState.CANCELLED, InstanceState.PAUSED}:
            raise Stuck(f"the instance is {state}; see {self._stage.logs}")

    def _in_flight(self) -> tuple[facts.Place, ...]:
        return facts.in_flight(self._stage.store, self._id)

    def _harm(self) -> None:
        self._stage.kill(VICTIM)
        self._screen.say(f"killed {VICTIM} and its processes with SIGKILL, {len(self._in_flight())} step(s) in flight")
        keys = self._stage.empty_redis()
        self._screen.say(f"emptied Redis with FLUSHALL: {keys} key(s) gone, every message in the queues with them")
        self._stage.replace(VICTIM)
        self._screen.say("started a replacement worker")

    def approve(self) -> None:
        """Give the answer a person would give."""
        since = time.monotonic()
        while (gate := self._open_gate()) is None:
            self._check(since)
            time.sleep(LOOK_SECONDS)
        self._screen.say(f"the instance waits for a person: {gate.prompt!r}")
        self._client.answer(self._id, gate.block_id, "publish", "answered by the demo")
        self._screen.say("answered 'publish' through the API, in the place of a person")

    def wait_for_end(self) -> None:
        """Wait until the instance has completed."""
        since = time.monotonic()
        while self._state() is not InstanceState.COMPLETED:
            self._check(since)
            time.sleep(LOOK_SECONDS)

    def _open_gate(self) -> Approval | None:
        return next((gate for gate in self._client.approvals() if gate.instance_id == self._id), None)

    def _state(self) -> InstanceState:
        return self._client.get(self._id).state


def tell(found: Facts, promises: tuple[Promise, ...], screen: Screen) -> None:
    """Print what the store says, and which promises were kept."""
    screen.show()
    screen.show("What the store says", style="bold")
    for name, value in _lines(found):
        screen.show(f"  {name:<22} {value}")
    screen.show()
    for promise in promises:
        if promise.is_kept:
            screen.show(f"  true      {promise.text}", style="green")
        else:
            screen.show(f"  NOT TRUE  {promise.text}: {promise.found}", style="bold red")


def _lines(found: Facts) -> list[tuple[str, str]]:
    lines = [
        ("documents indexed", f"{len(found.indexed):,}"),
        ("quarantined", f"{len(found.quarantined):,}" if found.quarantined else "0: all of them parse"),
        ("handler executions", f"{len(found.attempts):,}"),
        ("committed outputs", f"{len(found.outputs):,}"),
        ("failed for good", f"{len(found.failed):,}, those in quarantine" if found.failed else "0"),
        ("lost to the kill", f"{len(found.lost):,}, executed again:" if found.lost else "0"),
        *(("", found.name(attempt.place)) for attempt in found.lost),
        (
            "time lost to the kill",
            "–" if found.seconds_lost is None else f"{found.seconds_lost:.1f} s on the queue gpu",
        ),
        ("steps per second", f"{found.steps_per_second:,.0f} over {found.seconds:.1f} s, the kill included"),
    ]
    if found.report is not None:
        lines += [("report", found.report["html"]), ("", found.report["json"])]
    return lines
