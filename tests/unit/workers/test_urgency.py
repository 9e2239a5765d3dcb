"""When a worker looks for more urgent work (sequences contract §9.3)."""

from orchestrator.errors import StoreUnavailable
from workers.urgency import LOOK_EVERY_SECONDS, Urgency


def test_s9_3_a_worker_looks_now_and_then_and_keeps_what_it_saw_when_the_store_is_away():
    clock = [0.0]
    answers = [2, StoreUnavailable("away"), 0]
    looks = []

    def look() -> int:
        looks.append(clock[0])
        answer = answers[len(looks) - 1]
        if isinstance(answer, StoreUnavailable):
            raise answer
        return answer

    urgency = Urgency(look, monotonic=lambda: clock[0])
    seen = []
    for _ in range(8):
        seen.append(urgency.now())
        clock[0] += LOOK_EVERY_SECONDS / 2 + 1e-6
    assert seen == [-1, -1, 2, 2, 2, 2, 0, 0]
    assert len(looks) == 3


def test_s9_3_who_has_just_claimed_the_most_urgent_step_need_not_look_at_once():
    clock = [0.0]
    looks = []

    def look() -> int:
        looks.append(clock[0])
        return 5

    urgency = Urgency(look, monotonic=lambda: clock[0])
    clock[0] = 10.0
    urgency.noted()
    assert urgency.now() == -1
    clock[0] = 20.0
    assert urgency.now() == 5
    urgency.noted()
    assert urgency.now() == -1
    assert looks == [20.0]
