"""How fast the core decides: `python -m tests.benchmarks.core`.

No store, no broker: one process, one instance at a time, a slice that is kept from decision to decision as a worker
keeps it. What the slice lacks is given to it as the store does, in portions. Timed is what a worker does for each
finished step besides SQL: decide, take the changes over, forget what has ended. CPU time, garbage collection counts.

Each work is told in decisions per second, as the mean µs of a decision over its first and its last tenth (the work of a
step does not grow with what came before), and as the values that the slice held at most between two decisions.

The two works of 100,000 are measured once more for how a step grows. A machine that others use is never the same at the
beginning and at the end of a run, so the last tenth of one run is driven in turn with the first tenth of another one,
100 decisions each, and the medians of these are compared. Beside that stands how many blocks of memory Python has
allocated after 10,000, 50,000 and all steps.
"""

import gc
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random
from statistics import median
from typing import Any
from uuid import uuid4

from orchestrator.carry import claimed
from orchestrator.core.changes import ItemsCaptured
from orchestrator.core.decider import Decision, decide
from orchestrator.core.events import AttemptFinished, Created, Event, TimerFired
from orchestrator.core.facts import Facts
from orchestrator.core.ids import IdMaker
from orchestrator.core.model import Instance, ItemKey
from orchestrator.core.outcomes import Completed
from orchestrator.core.plan import Plan
from orchestrator.core.slice import ABSENT, Needs, Slice
from orchestrator.core.states import InstanceState, StepState
from orchestrator.store.claiming import Worker
from orchestrator.store.reading import ITEMS_AHEAD
from orchestrator.store.rows import claim_of
from sequences.document import parse_definition

BARS = {"flat": 20_000, "six levels deep": 10_000}
"""Decisions per second and core that must be reached."""

STRETCH = 100
"""Decisions in a row of one run, before another has its turn."""

ME = Worker(id=uuid4(), name="core", slot=1)
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What one work took."""

    name: str
    steps: int
    per_second: float
    first_us: float
    last_us: float
    held: int


@dataclass(slots=True)
class Run:
    """One instance, driven to its end."""

    blocks: list[dict[str, Any]]
    data: Any = None
    took: "array[float]" = field(default_factory=lambda: array("d"))
    held: int = 0
    _items: dict[ItemKey, Any] = field(default_factory=dict)
    _random: Random = field(default_factory=lambda: Random(0))
    _clock: datetime = START

    def drive(self) -> None:
        """Start the instance and complete every step."""
        for _ in self.decisions():
            pass

    def decisions(self) -> Iterator[None]:
        """Start the instance and complete every step, one decision at a time."""
        ids = IdMaker(self._random)
        facts = Facts(now=START, new_id=ids, random=self._random)
        current = self._new(ids)
        self._pass(current, Created(), facts)
        yield
        while not current.instance.state.is_terminal:
            ready = next((s for s in current.steps.values() if s is not None and s.state is StepState.READY), None)
            if ready is None:
                polling = next(n for n in current.nodes.values() if n is not None and n.memory.get("polling"))
                event: Event = TimerFired(key=polling.key)
            else:
                current.steps[ready.key] = mine = claimed(ready, ME, self._clock)
                event = AttemptFinished(claim=claim_of(current.instance.id, mine), outcome=Completed(output={}))
            self._clock += timedelta(microseconds=200)
            self._pass(current, event, Facts(now=self._clock, new_id=ids, random=self._random))
            yield

    def _new(self, ids: IdMaker) -> Slice:
        definition = parse_definition(
            {
                "id": str(uuid4()),
                "tenant_id": "bench",
                "namespace": "n",
                "name": "core",
                "version": 1,
                "blocks": self.blocks,
                "created_at": "2026-01-01T00:00:00Z",
            }
        )
        instance = Instance(
            id=ids(START),
            tenant_id="bench",
            namespace="n",
            sequence_id=definition.id,
            state=InstanceState.SCHEDULED,
            created_at=START,
            updated_at=START,
        )
        return Slice.of_new(Plan(definition), instance, self.data or {}, {})

    def _pass(self, current: Slice, event: Event, facts: Facts) -> None:
        began = time.process_time()
        while isinstance(decision := decide(current, event, facts), Needs):
            self._fill(current, decision)
        current.take(decision.changes)
        current.forget_ended()
        self.took.append(time.process_time() - began)
        parts = (current.nodes, current.steps, current.outputs, current.items, current.state)
        self.held = max(self.held, sum(len(part) for part in parts))
        self._keep(decision)

    def _keep(self, decision: Decision) -> None:
        for change in decision.changes:
            if isinstance(change, ItemsCaptured):
                self._items.update({ItemKey(change.key, n): item for n, item in enumerate(change.items)})

    def _fill(self, current: Slice, needs: Needs) -> None:
        current.nodes.update(dict.fromkeys(needs.nodes))
        current.steps.update(dict.fromkeys(needs.steps))
        current.outputs.update(dict.fromkeys(needs.outputs, ABSENT))
        for key in needs.items:
            ahead = (ItemKey(key.node, key.position + n) for n in range(ITEMS_AHEAD))
            current.items.update({each: self._items[each] for each in ahead if each in self._items})


def _step(number: int | str, **fields: Any) -> dict[str, Any]:
    return {"type": "step", "id": f"s{number}", "handler": "noop", **fields}


def flat(steps: int) -> list[dict[str, Any]]:
    """Steps in a row."""
    return [_step(number) for number in range(steps)]


def deep(steps: int) -> list[dict[str, Any]]:
    """Steps in a row below six composites, each of another kind."""
    inside = flat(steps)
    inside = [{"type": "try_catch", "id": "c1", "try_block": inside, "catch_block": []}]
    inside = [{"type": "loop", "id": "c2", "condition": "iteration < 1", "body": inside}]
    inside = [{"type": "router", "id": "c3", "routes": [{"condition": "true", "blocks": inside}]}]
    inside = [{"type": "race", "id": "c4", "branches": [inside]}]
    inside = [{"type": "for_each", "id": "c5", "collection": "one", "body": inside}]
    return [{"type": "parallel", "id": "c6", "branches": [inside], "failure_policy": "fail_fast"}]


def opened(steps: int) -> list[dict[str, Any]]:
    """Composites in a row, six levels deep, a step in the middle of each: every end settles six and opens six."""
    return [block for number in range(steps) for block in _around(number)]


def _around(number: int) -> list[dict[str, Any]]:
    inside = [_step(number)]
    for level, kind in enumerate(("parallel", "race", "parallel", "race", "parallel", "race")):
        inside = [{"type": kind, "id": f"{kind}{level}_{number}", "branches": [inside]}]
    return inside


def loop(iterations: int) -> list[dict[str, Any]]:
    """A loop of one step."""
    body = [_step("l")]
    return [{"type": "loop", "id": "l", "condition": "true", "body": body, "max_iterations": iterations}]


def for_each(items: int) -> list[dict[str, Any]]:
    """A for_each of one step that reads its item."""
    body = [_step("e", when="item >= 0")]
    return [{"type": "for_each", "id": "e", "collection": "items", "body": body, "max_iterations": items}]


def works(scale: int = 1) -> Iterator[tuple[str, Run]]:
    """Give each work by name; `scale` divides the number of steps."""
    yield "flat", Run(flat(4_000 // scale))
    yield "six levels deep", Run(deep(4_000 // scale), {"one": [1]})
    yield "six levels per step", Run(opened(800 // scale))
    yield "loop of 100,000", Run(loop(100_000 // scale))
    yield "for_each of 100,000", Run(for_each(100_000 // scale), {"items": list(range(100_000 // scale))})


def measure(name: str, run: Run) -> Measured:
    """Drive a work and tell what it took."""
    gc.collect()
    run.drive()
    tenth = max(1, len(run.took) // 10)
    middle = run.took[1:]
    return Measured(
        name=name,
        steps=len(middle),
        per_second=len(middle) / sum(middle),
        first_us=sum(middle[:tenth]) / tenth * 1e6,
        last_us=sum(middle[-tenth:]) / tenth * 1e6,
        held=run.held,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How the last steps of a work differ from the first ones; `blocks` by the number of steps done."""

    early_us: float
    late_us: float
    blocks: dict[int, int]


def growth(young: Run, old: Run, steps: int) -> Growth:
    """Drive the last tenth of one run in turn with the first tenth of another one."""
    early, late = young.decisions(), old.decisions()
    next(early), next(late)
    blocks = {}
    for done in (steps // 10, steps // 2, steps - steps // 10):
        _go(late, done - (len(old.took) - 1))
        gc.collect()
        blocks[done] = sys.getallocatedblocks()
    for _ in range(steps // 10 // STRETCH):
        _go(early, STRETCH)
        _go(late, STRETCH)
    gc.collect()
    blocks[steps] = sys.getallocatedblocks()
    tenth = steps // 10
    return Growth(early_us=_typical_us(young.took[1:]), late_us=_typical_us(old.took[-tenth:]), blocks=blocks)


def _go(decisions: Iterator[None], number: int) -> None:
    for _ in islice(decisions, number):
        pass


def _typical_us(took: "array[float]") -> float:
    """Give the median of the means of all stretches, in µs."""
    stretches = [took[at : at + STRETCH] for at in range(0, len(took), STRETCH)]
    return median(sum(each) / len(each) for each in stretches) * 1e6


def main() -> None:
    """Measure every work and print a table; the bars stand beside those that have one."""
    for each in works(scale=20):
        measure(*each)
    for name, run in works():
        found = measure(name, run)
        bar = f"(bar: {BARS[name]:,})" if name in BARS else ""
        print(
            f"{name:22s} {found.steps:7,d} decisions {found.per_second:9,.0f} /s "
            f"first tenth {found.first_us:6.1f} µs, last {found.last_us:6.1f} µs, "
            f"{found.held:5,d} values held {bar}"
        )
    for (name, young), (_, old) in zip(works(), works(), strict=True):
        if not name.endswith("100,000"):
            continue
        grown = growth(young, old, 100_000)
        shown = ", ".join(f"{number:,} at {done:,}" for done, number in grown.blocks.items())
        print(
            f"{name:22s} in turn: first tenth {grown.early_us:6.1f} µs, last {grown.late_us:6.1f} µs "
            f"({grown.late_us / grown.early_us - 1:+.1%}); blocks allocated: {shown}"
        )


if __name__ == "__main__":
    main()
