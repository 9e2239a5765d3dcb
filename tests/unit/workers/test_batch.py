"""Steps that are run one after another and committed together."""

import threading
from collections.abc import Sequence
from typing import Any, cast

from orchestrator.exchange import Report, Work
from workers.batch import Batch, Bystander

PATIENT = 10


def batch_of(*names: str) -> Batch:
    return Batch(cast("list[Work]", list(names)))


class Settled:
    """What a bystander has settled."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[Any], list[Any]]] = []
        self.came = threading.Event()

    def __call__(self, reports: Sequence[Report], waiting: Sequence[Work]) -> None:
        self.calls.append((list(reports), list(waiting)))
        self.came.set()


def test_a_batch_that_stalls_is_settled_without_the_running_step() -> None:
    settled, batch = Settled(), batch_of("a", "b", "c")
    with Bystander(settled).watching(batch):
        assert batch.take() == "a"
        batch.add(cast("Report", "a is done"))
        assert batch.take() == "b"
        assert settled.came.wait(PATIENT)
        assert batch.take() is None
        batch.add(cast("Report", "b is done"))
    assert settled.calls == [(["a is done"], ["c"])]
    assert batch.withdraw() == (["b is done"], [])


def test_a_batch_that_goes_on_is_left_alone() -> None:
    settled = Settled()
    bystander = Bystander(settled)
    for _ in range(50):
        batch = batch_of("a", "b")
        with bystander.watching(batch):
            while (work := batch.take()) is not None:
                batch.add(cast("Report", work))
        assert batch.withdraw() == (["a", "b"], [])
    assert not settled.calls


def test_each_stalled_batch_is_settled_once() -> None:
    settled = Settled()
    bystander = Bystander(settled)
    for _ in range(3):
        settled.came.clear()
        batch = batch_of("a", "b")
        with bystander.watching(batch):
            batch.take()
            assert settled.came.wait(PATIENT)
    assert settled.calls == [([], ["b"])] * 3


def test_one_step_alone_is_not_watched() -> None:
    settled = Settled()
    bystander = Bystander(settled)
    with bystander.watching(batch_of("a")):
        assert bystander._thread is None


def test_a_failure_to_settle_does_not_end_the_watch() -> None:
    settled = Settled()

    def settle(reports: Sequence[Report], waiting: Sequence[Work]) -> None:
        settled(reports, waiting)
        raise RuntimeError("the store is away")

    bystander = Bystander(settle)
    for _ in range(2):
        settled.came.clear()
        with bystander.watching(batch_of("a", "b")):
            assert settled.came.wait(PATIENT)
    assert len(settled.calls) == 2
