"""The acceptance: whatever dies in the middle of 200 instances, every one of them ends, and each output is stored once.

Every test starts the same run (see `journey`), waits until a part of it is committed, breaks something, and judges what
is left. The part is drawn at random; the seed is printed and can be given in FAULT_SEED.
"""

import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import orjson
import pytest

from orchestrator.core.model import Claim
from orchestrator.store import leases
from tests.faults import checkers
from tests.faults.journey import BLOCKS, EFFECTS, INSTANCES, ITEMS, STEPS, Fault, Run, StepKey, record
from tests.faults.slowness import Slowness, measured
from tests.faults.stopped import stop_with_claim
from tests.support.stack import NAMESPACE, TENANT, Stack
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.fault, pytest.mark.timeout(400)]

SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(2**32))
SILENCE, RECOVERY = timedelta(seconds=6), timedelta(seconds=2)
"""A killed worker's steps run again within 8 s on a quiet machine: it is silent for six, then there is work to do."""
IN_FLIGHT = 2
"""Two workers with one child each: so many steps at the most are being executed."""


class Journey:
    """One run of 200 instances through one fault."""

    def __init__(self, stack: Stack, name: str) -> None:
        self.stack = stack
        self.name = name
        self.random = random.Random(f"{SEED}/{name}")
        self.sequence_id = stack.define(BLOCKS)
        self.ids: list[UUID] = []
        self.slowness = Slowness()
        self.fault = Fault(name=name, began_at=0, ended_at=0)

    def start(self) -> None:
        """Start all instances."""
        self.ids = self.stack.start_instances(self.sequence_id, INSTANCES, {"items": list(ITEMS)})

    def wait_for_part(self) -> None:
        """Wait until between a fifth and a half of all outputs are committed."""
        share = self.random.uniform(0.2, 0.5)
        wanted = round(share * INSTANCES * STEPS)
        print(f"\n{self.name}: seed {SEED}, fault after {wanted} of {INSTANCES * STEPS} outputs")
        wait_until(lambda: self._committed() >= wanted, f"{wanted} outputs", within=180)

    def _committed(self) -> int:
        statement = "SELECT count(*) FROM attempts WHERE outcome = 'completed' AND instance_id = ANY(%s::uuid[])"
        count: int = self.stack.query(statement, (self.ids,))[0][0]
        return count

    def record(self) -> Run:
        """Read what is known so far."""
        return record(self.stack.query, self.stack.effects.executions(), self.ids)

    @contextmanager
    def hit(self, *, may_run_again: int = 0) -> Iterator[None]:
        """Note the time around the fault."""
        self.before = self.record()
        began_at = time.time()
        yield
        self.fault = Fault(name=self.name, began_at=began_at, ended_at=time.time(), may_run_again=may_run_again)

    def must_go_on(
        self, waiting: timedelta, working: timedelta, run: Run, held: Sequence[StepKey], died_at: float
    ) -> None:
        """Check that what a dead worker held was done again in time, by the measure of this machine."""
        seconds = [round(each, 2) for each in checkers.recovery_seconds(run, held, died_at).values()]
        limit = self.slowness.stretched(waiting, working)
        print(f"recovery: {seconds} s, of {limit.total_seconds():.1f} (machine {self.slowness.factor:.1f} x slower)")
        assert not checkers.work_goes_on_within(limit, run, held, died_at)

    def judge(self, within: float = 180.0) -> Run:
        """Wait for the end, and hold the run against every promise."""
        began = time.monotonic()
        self.stack.wait_for_end(self.ids, within)
        run = self.record()
        print(f"{self.name}: done {time.monotonic() - began:.1f} s after the fault, {len(run.executions)} executions")
        found = {
            "I1": checkers.every_accepted_instance_has_ended(run),
            "I2 one outcome": checkers.every_step_has_one_outcome(run),
            "I2 constant": checkers.outputs_never_change(self.before.outputs, run.outputs),
            "I2 memo": checkers.what_was_seen_is_what_is_stored(run),
            "I3 after commit": checkers.nothing_runs_after_its_commit(run),
            "I3 in flight": checkers.only_what_was_in_flight_runs_again(run, self.fault),
            "I4 tokens": checkers.tokens_are_used_once(run),
            "I5": checkers.steps_run_in_order(run),
            "I8": checkers.timers_are_never_early(run),
            "enough": checkers.enough_was_done(run, outputs=INSTANCES * STEPS, executions=INSTANCES * EFFECTS),
        }
        broken = {promise: wrong[:5] for promise, wrong in found.items() if wrong}
        assert not broken, f"{broken}\n{self.stack.log_tail()}"
        assert 0 < len(self.before.outputs) < INSTANCES * STEPS, "the fault must hit a run that is going on"
        return run


@pytest.fixture
def journey(stack: Stack, request: pytest.FixtureRequest) -> Iterator[Journey]:
    """A run that has come a part of its way."""
    made = Journey(stack, request.node.name.removeprefix("test_"))
    made.start()
    made.wait_for_part()
    with measured() as made.slowness:
        yield made


def test_a_killed_worker_is_replaced_within_8_seconds(journey: Journey) -> None:
    stack = journey.stack
    with journey.hit(may_run_again=IN_FLIGHT):
        held = stop_with_claim(stack, "worker-1", lambda: [stack.pid("worker-1"), *stack.children("worker-1")])
        died_at = time.time()
        stack.kill("worker-1")
    run = journey.judge()
    journey.must_go_on(SILENCE, RECOVERY, run, held, died_at)


def test_a_killed_child_is_replaced_at_once(journey: Journey) -> None:
    stack = journey.stack
    with journey.hit(may_run_again=IN_FLIGHT):
        held = stop_with_claim(stack, "worker-1", lambda: stack.children("worker-1"))
        died_at = time.time()
        stack.kill_child("worker-1")
    run = journey.judge()
    journey.must_go_on(timedelta(0), timedelta(seconds=4), run, held, died_at)


def test_a_killed_service_is_started_again(journey: Journey) -> None:
    with journey.hit():
        journey.stack.kill("service")
        journey.stack.start("service")
    journey.judge()


def test_redis_is_flushed(journey: Journey) -> None:
    with journey.hit():
        journey.stack.flush_redis()
    journey.judge()


def test_redis_comes_back_empty(journey: Journey) -> None:
    with journey.hit():
        journey.stack.restart_redis()
    journey.judge()


def test_postgres_is_restarted_at_once(journey: Journey) -> None:
    with journey.hit(may_run_again=IN_FLIGHT):
        journey.stack.restart_postgres()
    journey.judge()


def test_a_killed_api_loses_nothing_it_has_accepted(stack: Stack) -> None:
    """Clients that repeat a request with its idempotency key get one instance, whatever died in between."""
    journey = Journey(stack, "a killed api")
    client = threading.Thread(target=_start_through_api, args=(journey,), daemon=True)
    client.start()
    wait_until(lambda: len(journey.ids) >= INSTANCES * 0.3, "30 % of the instances to be accepted", within=180)
    with journey.hit():
        stack.kill("api")
        stack.start("api")
    client.join(180)
    assert len(journey.ids) == len(set(journey.ids)) == INSTANCES
    journey.judge()
    accepted = stack.query("SELECT count(*) FROM instances WHERE sequence_id = %s", (journey.sequence_id,))
    assert accepted == [(INSTANCES,)], "a repeated request made a second instance"


def _start_through_api(journey: Journey) -> None:
    for number in range(INSTANCES):
        body = {
            "sequence_id": str(journey.sequence_id),
            "tenant_id": TENANT,
            "namespace": NAMESPACE,
            "context": {"data": {"items": list(ITEMS)}, "config": {}},
            "idempotency_key": f"{journey.sequence_id}/{number}",
        }
        journey.ids.append(
            wait_until(lambda body=body: _post(f"{journey.stack.api_url}/instances", body), "the API to answer")  # type: ignore[misc]
        )


def _post(url: str, body: object) -> UUID | None:
    request = urllib.request.Request(url, orjson.dumps(body), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return UUID(orjson.loads(response.read())["id"])
    except urllib.error.HTTPError as error:
        if error.code < 500:
            raise AssertionError(error.read().decode()) from error
        return None
    except OSError:
        return None


def test_claims_of_the_dead_are_refused(journey: Journey) -> None:
    """I4 against the running installation: what was claimed and given away is reported late, and dropped."""
    stack = journey.stack
    worker_id = stack.query("SELECT id FROM workers WHERE name LIKE 'worker-1@%%' ORDER BY started_at DESC LIMIT 1")[0][
        0
    ]
    with journey.hit(may_run_again=4 * IN_FLIGHT):
        stale = wait_until(lambda: taken_away(stack, worker_id), "claims to be taken away from a killed child")
    ended = {claim.instance_id for claim in stale}

    def outputs() -> int:
        statement = "SELECT count(*) FROM outputs WHERE instance_id = ANY(%s::uuid[]) AND output->>'nonce' = 'stale'"
        count: int = stack.query(statement, (list(ended),))[0][0]
        return count

    assert stale
    assert not checkers.stale_reports_are_refused(stack.engine, stale, outputs)
    journey.judge()
    assert not checkers.stale_reports_are_refused(stack.engine, stale, outputs)


def taken_away(stack: Stack, worker_id: UUID) -> list[Claim]:
    """Kill a child that holds claims, and give those that it lost by that.

    PostgreSQL may still have been committing outcomes when the child was stopped: those claims had a good end.
    """
    stop_with_claim(stack, "worker-1", lambda: stack.children("worker-1"))
    with stack.store.transaction() as tx:
        held = leases.claims_of(tx, worker_id)
    stack.kill_child("worker-1")
    wait_until(lambda: not held_tokens(stack) & {claim.token for claim in held}, "the claims to be taken away")
    with stack.store.transaction() as tx:
        return [claim for claim in held if not leases.has_committed(tx, claim)]


def held_tokens(stack: Stack) -> set[UUID]:
    """Give the tokens of all claims."""
    return {row[0] for row in stack.query("SELECT token FROM steps WHERE state = 'claimed'")}
