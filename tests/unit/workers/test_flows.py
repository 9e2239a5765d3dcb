"""Other flows, as handlers reach them."""

from random import Random
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from orchestrator.clock import MACHINE_TIME
from orchestrator.emitting import Emitted
from orchestrator.errors import StoreUnavailable
from workers.flows import FlowsOfStep


class Flaky:
    """An engine whose store answers the second time."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.machine = MACHINE_TIME
        self.randomness = Random(1)
        self.asked: list[Any] = []

    def emit(self, emission: Any) -> Any:
        self.asked.append(emission)
        if len(self.asked) == 1:
            raise StoreUnavailable("away")
        return self.answer


def test_an_outage_is_waited_out_and_the_same_is_asked_again() -> None:
    answer = Emitted(instance_id=uuid4(), sequence_name="s", deduped=False)
    engine: Any = Flaky(answer)
    work: Any = SimpleNamespace(instance=object(), claim=SimpleNamespace(key="k", attempt=0))
    assert FlowsOfStep(work, engine).emit("slug", {}, {}, dedupe_key=None, is_tenant_wide=False) == answer
    assert engine.asked[0] is engine.asked[1]
