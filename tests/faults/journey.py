"""The run that every fault hits: a sequence with a bit of everything, and the record of what became of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from tests.support.effects import Execution

Query = Callable[[str, Sequence[Any]], list[tuple[Any, ...]]]

INSTANCES = 200
ITEMS = ("x", "y", "z")
BACKOFF_SECONDS = 0.1
SLEEP_SECONDS = 0.1
DELAY_SECONDS = 0.15


def _step(block_id: str, handler: str = "effect", *, sees: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    seen = {"params": {"seen": {name: f"{{{{ outputs.{name}.nonce }}}}" for name in sees}}} if sees else {}
    return {"type": "step", "id": block_id, "handler": handler, **seen, **fields}


BLOCKS: tuple[dict[str, Any], ...] = (
    _step("first"),
    _step("second", sees=("first",)),
    {
        "type": "parallel",
        "id": "fork",
        "branches": [[_step("left", sees=("second",))], [_step("right_1"), _step("right_2", sees=("right_1",))]],
    },
    {"type": "for_each", "id": "each", "collection": "items", "concurrency": 2, "body": [_step("body")]},
    _step(
        "again",
        "fails_first",
        retry={"max_attempts": 3, "initial_backoff": round(BACKOFF_SECONDS * 1000), "max_backoff": 5000},
    ),
    _step("asleep", "sleep", params={"duration_ms": round(SLEEP_SECONDS * 1000)}),
    _step("late", delay={"duration": round(DELAY_SECONDS * 1000)}),
    _step("last", sees=("again", "left")),
)


class StepKey(NamedTuple):
    """One step of one instance."""

    instance_id: UUID
    block_id: str
    iteration: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """Return the idempotency key that its handler is given."""
        path = ".".join(map(str, self.iteration))
        return f"{self.instance_id}:{self.block_id}" + (f":{path}" if path else "")


PLAIN = ("first", "second", "left", "right_1", "right_2", "again", "asleep", "late", "last")
STEPS = len(PLAIN) + len(ITEMS)
EFFECTS = STEPS - 1 + 1
"""Executions of one instance in which nothing is lost: all but the sleep, and one failure before a retry."""


def steps_of(instance_id: UUID) -> tuple[StepKey, ...]:
    """Name all steps that an instance must complete."""
    body = (StepKey(instance_id, "body", (index,)) for index in range(len(ITEMS)))
    return (*(StepKey(instance_id, block_id) for block_id in PLAIN), *body)


def ordered_steps(instance_id: UUID) -> tuple[tuple[StepKey, StepKey], ...]:
    """Pair steps of an instance with those that may begin only after them."""
    bodies = [key for key in steps_of(instance_id) if key.block_id == "body"]
    chain = [
        *(("first", "second"), ("second", "left"), ("second", "right_1"), ("right_1", "right_2")),
        *(("again", "late"), ("late", "last")),
    ]
    pairs = [(StepKey(instance_id, before), StepKey(instance_id, after)) for before, after in chain]
    for body in bodies:
        pairs += [(StepKey(instance_id, before), body) for before in ("left", "right_2")]
        pairs.append((body, StepKey(instance_id, "again")))
    return tuple(pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """A stored output."""

    key: StepKey
    id: UUID
    digest: str
    nonce: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """A row of the history."""

    key: StepKey
    attempt: int
    outcome: str
    token: UUID | None
    claimed_at: datetime | None
    ended_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """What is known of some instances: from the database, and from outside of it.

    Args:
        expected: The steps that each must complete.
        began: When the nodes of the steps were first reached.
    """

    expected: tuple[StepKey, ...]
    accepted: tuple[UUID, ...]
    states: dict[UUID, str]
    parked: dict[UUID, str | None]
    outputs: tuple[Output, ...]
    attempts: tuple[Attempt, ...]
    executions: tuple[Execution, ...]
    began: dict[StepKey, datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What was done to a run, and when (seconds since 1970): only what was in flight then may run again."""

    name: str
    began_at: float
    ended_at: float
    may_run_again: int = 0


def record(
    query: Query,
    executions: Iterable[Execution],
    accepted: Sequence[UUID],
    steps: Callable[[UUID], tuple[StepKey, ...]] = steps_of,
) -> Run:
    """Read everything that is known of some instances."""
    ids = (list(accepted),)
    instances = query("SELECT id, state, parked_reason FROM instances WHERE id = ANY(%s::uuid[])", ids)
    texts = {str(instance_id) for instance_id in accepted}
    expected = tuple(key for instance_id in accepted for key in steps(instance_id))
    blocks = {key.block_id for key in expected}
    return Run(
        expected=expected,
        accepted=tuple(accepted),
        states={row[0]: row[1] for row in instances},
        parked={row[0]: row[2] for row in instances},
        outputs=tuple(
            _output(row)
            for row in query(
                "SELECT instance_id, block_id, iteration, id, output, created_at FROM outputs "
                "WHERE instance_id = ANY(%s::uuid[]) ORDER BY instance_id, id",
                ids,
            )
            if row[1] in blocks
        ),
        attempts=tuple(
            Attempt(
                key=StepKey(row[0], row[1], tuple(row[2])),
                attempt=row[3],
                outcome=row[4],
                token=row[5],
                claimed_at=row[6],
                ended_at=row[7],
            )
            for row in query(
                "SELECT instance_id, block_id, iteration, attempt, outcome, token, claimed_at, ended_at FROM attempts "
                "WHERE instance_id = ANY(%s::uuid[]) ORDER BY ended_at, id",
                ids,
            )
        ),
        executions=tuple(each for each in executions if each.key.partition(":")[0] in texts),
        began={
            StepKey(row[0], row[1], tuple(row[2])): row[3]
            for row in query(
                "SELECT instance_id, block_id, iteration, started_at FROM nodes "
                "WHERE instance_id = ANY(%s::uuid[]) AND started_at IS NOT NULL",
                ids,
            )
        },
    )


def _output(row: Sequence[Any]) -> Output:
    value = row[4]
    return Output(
        key=StepKey(row[0], row[1], tuple(row[2])),
        id=row[3],
        digest=sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).hexdigest(),
        nonce=value.get("nonce") if isinstance(value, dict) else None,
        created_at=row[5],
    )
