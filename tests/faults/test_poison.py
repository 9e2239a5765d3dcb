"""I10: steps that kill, block or fill whoever runs them are put aside, with the reason; all others get on."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from redis import Redis

from queues.broker import key_prefix
from tests.faults import checkers
from tests.faults.journey import BLOCKS, EFFECTS, ITEMS, STEPS, record
from tests.faults.long import only_long
from tests.support.stack import Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(600)]

FULL_SPEED = 0.9


@dataclass(frozen=True, slots=True, kw_only=True)
class Poison:
    """A step that should not be.

    Args:
        state: In which its instance ends, or stays.
        reason: Part of what a person can read about it.
    """

    handler: str
    state: str
    reason: str
    params: dict[str, Any] | None = None
    timeout: int | None = None


KILLING = tuple(
    Poison(handler=handler, state="paused", reason="lost its worker 3 times") for handler in ("exits", "crashes")
)
POISONS = (
    *KILLING,
    *(
        Poison(handler="raises", params={"kind": kind}, state="failed", reason=reason)
        for kind, reason in (
            ("MemoryError", "ran out of memory"),
            ("SystemExit", "exited with status 3"),
            ("RecursionError", "failed "),
        )
    ),
    *(
        Poison(handler="bad_output", params={"kind": kind}, state="failed", reason=reason)
        for kind, reason in (
            ("100 MB", "bytes"),
            ("nan", "output"),
            ("nul", "output"),
            ("lone surrogate", "output"),
        )
    ),
    Poison(handler="hangs_in_c", timeout=500, state="failed", reason="timed"),
    Poison(handler="nobody_knows_it", state="waiting", reason=""),
)
NONSENSE = (
    b"",
    b"\xff\xfe\x00 no JSON",
    b"[1, 2",
    b"[]",
    b"{}",
    b'{"body": "!!!", "headers": {}, "properties": {}}',
    *(
        orjson.dumps(
            {
                "body": body,
                "content-type": "application/json",
                "content-encoding": "utf-8",
                "headers": headers,
                "properties": {
                    "delivery_tag": f"nonsense-{number}",
                    "delivery_info": {"exchange": "", "routing_key": "default"},
                    "body_encoding": "base64",
                },
            }
        )
        for number, (body, headers) in enumerate(
            (
                ("!!!", {"task": "orchestrator.hint", "id": "1"}),
                ("e30=", {"task": "orchestrator.hint", "id": "2"}),
                ("W1tdLHt9LHt9XQ==", {"task": "orchestrator.hint", "id": "3"}),
                ("W1tdLHt9LHt9XQ==", {"task": "nobody.knows", "id": "4"}),
                ("W1tdLHt9LHt9XQ==", None),
            )
        )
    ),
)
"""Messages that no worker can decode."""


def _start(stack: Stack, poison: Poison) -> UUID:
    step: dict[str, Any] = {"type": "step", "id": "bad", "handler": poison.handler, "params": poison.params or {}}
    if poison.timeout is not None:
        step["timeout"] = poison.timeout
    return stack.start_instances(stack.define([step], f"poison-{uuid4()}"))[0]


def _reason(stack: Stack, instance_id: UUID) -> str:
    [[parked]] = stack.query("SELECT parked_reason FROM instances WHERE id = %s", (instance_id,))
    errors = stack.query(
        "SELECT concat_ws(' ', outcome, error->>'message') FROM attempts WHERE instance_id = %s ORDER BY id",
        (instance_id,),
    )
    return parked or (errors[-1][0] if errors else "")


def _is_aside(stack: Stack, instance_id: UUID, poison: Poison) -> bool:
    return stack.states([instance_id])[instance_id] == poison.state


def _work(stack: Stack, count: int, poisons: Sequence[Poison]) -> tuple[float, list[UUID], dict[UUID, Poison]]:
    """Run healthy instances beside poison; returns how many of their steps are completed in a second."""
    sequence_id = stack.define(BLOCKS)
    began = time.monotonic()
    healthy = stack.start_instances(sequence_id, count // 2, {"items": list(ITEMS)})
    poisoned = {_start(stack, poison): poison for poison in poisons}
    healthy += stack.start_instances(sequence_id, count - count // 2, {"items": list(ITEMS)})
    stack.wait_for_end(healthy, within=400)
    return count * STEPS / (time.monotonic() - began), healthy, poisoned


def _queue(stack: Stack) -> str:
    """Give the key of the queue in Redis."""
    return key_prefix(stack.store.installation()) + "default"


def _send_nonsense(stack: Stack) -> None:
    redis = Redis.from_url(stack.servers.broker_url)
    for body in NONSENSE:
        redis.lpush(_queue(stack), body)
    redis.close()


def _check_healthy(stack: Stack, healthy: Sequence[UUID]) -> None:
    run = record(stack.query, stack.effects.executions(), healthy)
    assert not checkers.every_accepted_instance_has_ended(run)
    assert not checkers.every_step_has_one_outcome(run)
    assert not checkers.what_was_seen_is_what_is_stored(run)
    assert not checkers.enough_was_done(run, outputs=len(healthy) * STEPS, executions=len(healthy) * EFFECTS)


def _check_poisoned(stack: Stack, poisoned: dict[UUID, Poison]) -> None:
    said = {}
    for instance_id, poison in poisoned.items():
        wait_until(
            lambda i=instance_id, p=poison: _is_aside(stack, i, p),  # type: ignore[misc]
            lambda i=instance_id, p=poison: f"{p} to be {p.state}, is {stack.states([i])}: {_reason(stack, i)}",  # type: ignore[misc]
        )
        said[instance_id] = _reason(stack, instance_id)
    assert not [(poison, said[i]) for i, poison in poisoned.items() if poison.reason not in said[i]]


def test_poison_is_put_aside_and_the_others_get_on(stack: Stack) -> None:
    _, healthy, poisoned = _work(stack, 20, POISONS)
    _check_healthy(stack, healthy)
    _check_poisoned(stack, poisoned)
    losses = stack.query(
        "SELECT count(*) FROM attempts WHERE outcome = 'lost' AND instance_id = ANY(%s::uuid[])", (list(poisoned),)
    )
    assert losses == [(3 * len(KILLING),)]


def test_messages_that_nobody_can_decode_are_dropped(stack: Stack) -> None:
    workers = [stack.pid(name) for name in stack.workers]
    _send_nonsense(stack)
    _, healthy, _ = _work(stack, 10, ())
    _check_healthy(stack, healthy)
    redis = Redis.from_url(stack.servers.broker_url)
    wait_until(lambda: redis.llen(_queue(stack)) == 0, "the messages to be taken")
    redis.close()
    assert [stack.pid(name) for name in stack.workers] == workers


@only_long
def test_poison_of_every_kind_costs_others_less_than_a_tenth(stack: Stack) -> None:
    _work(stack, 100, ())
    alone, _, _ = _work(stack, 1500, ())
    beside, healthy, poisoned = _work(stack, 1500, POISONS)
    print(f"{alone:.0f} steps a second alone, {beside:.0f} beside {len(poisoned)} poisons")
    _check_healthy(stack, healthy)
    _check_poisoned(stack, poisoned)
    assert beside >= FULL_SPEED * alone
