"""Injections that come from other processes than the one that works on the instance."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.catalogue import check_blocks
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from orchestrator.store.interface import Store
from tests.support.drive import StoredWorld, step


@pytest.fixture
def world(store: Store) -> StoredWorld:
    return StoredWorld(store, Settings())


def test_s9_10_worker_with_the_flow_in_memory_sees_what_another_process_injected(world: StoredWorld) -> None:
    flow = world.start([step("a"), step("b")])
    claim = flow.claim("a")
    outcome = world.outcome(world.work(claim))  # loads the slice, and leaves it in memory
    Engine(world.store, None, Settings()).interventions.inject(flow.id, check_blocks([step("x")]), 0)
    carried = world.finish([(claim, outcome)], carry=True)
    assert [claim.key.block_id for claim in carried] == ["x"]
    assert [work.block.id for work in world.engine.inputs(carried)] == ["x"]


def test_s9_10_concurrent_injections_never_lose_each_other(world: StoredWorld) -> None:
    flow = world.start([step("w", "external")])
    engines = [Engine(world.store, None, Settings()) for _ in range(4)]

    def inject(number: int) -> int:
        blocks = check_blocks([step(f"x{number}"), step(f"y{number}")])
        return engines[number % 4].interventions.inject(flow.id, blocks, 0 if number % 2 else None).injected

    with ThreadPoolExecutor(4) as pool:
        totals = list(pool.map(inject, range(12)))
    assert sorted(totals) == list(range(2, 26, 2))
    flow.complete("w")
    flow.run()
    assert sorted(flow.check().row_ids()) == sorted(["w"] + [f"{name}{n}" for name in "xy" for n in range(12)])
