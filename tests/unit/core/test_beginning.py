"""What is decided once for many new instances is what each of them would have decided for itself."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID, uuid4

import pytest

from orchestrator.core.beginning import Beginning, common
from orchestrator.core.changes import Change, InstancePut, StepPut, TimerPut, TransitionRecorded
from orchestrator.core.decider import Decision, decide
from orchestrator.core.events import Created
from orchestrator.core.facts import Facts
from orchestrator.core.ids import IdMaker
from orchestrator.core.model import Instance
from orchestrator.core.plan import Plan
from orchestrator.core.slice import Slice
from orchestrator.core.states import InstanceState
from tests.model.generate import program_of
from tests.support.drive import definition_of, gate, parallel, split, step

NOW = datetime(2026, 3, 2, 9, tzinfo=UTC)
NOBODY = UUID(int=0)
CONTEXTS: tuple[Any, ...] = (None, {}, {"x": 1, "items": [1, 2]}, {"x": "{{ data.x }}", "flag": True}, "text")


def facts() -> Facts:
    return Facts(now=NOW, new_id=IdMaker(Random(5)), random=Random(5), known_handlers={"plain"})


def instance(plan: Plan, **fields: Any) -> Instance:
    return Instance(
        **{
            "id": uuid4(),
            "tenant_id": "t",
            "namespace": "n",
            "sequence_id": plan.definition.id,
            "state": InstanceState.SCHEDULED,
            "run_id": uuid4(),
            "created_at": NOW,
            "updated_at": NOW,
            **fields,
        }
    )


def plan_of(*blocks: Any, **members: Any) -> Plan:
    return Plan(definition_of(list(blocks), **members))


def decided(plan: Plan, new: Instance, data: Any, not_before: datetime | None = None) -> Sequence[Change]:
    current = Slice.of_new(plan, new, data, {"holidays": ["2026-03-03"]}, [], {"m": data})
    decision = decide(current, Created(not_before=not_before), facts())
    assert isinstance(decision, Decision)
    return decision.changes


def written(beginning: Beginning) -> list[Change]:
    changes: list[Change] = [InstancePut(instance=beginning.instance)]
    if beginning.step is not None:
        changes.append(StepPut(step=beginning.step))
    return [*changes, *beginning.timers, *beginning.transitions]


def nameless(changes: Sequence[Change]) -> list[Change]:
    """Take the ids off that each instance has for itself."""
    taken: list[Change] = []
    for change in changes:
        match change:
            case InstancePut(instance=put):
                taken.append(InstancePut(instance=replace(put, id=NOBODY, run_id=NOBODY)))
            case StepPut(step=put_step):
                taken.append(StepPut(step=replace(put_step, id=NOBODY)))
            case TransitionRecorded():
                taken.append(replace(change, id=NOBODY))
            case _:
                taken.append(change)
    return taken


def check(plan: Plan, not_before: datetime | None = None, **fields: Any) -> Beginning | None:
    """Compare what is common with what instances of other ids and contexts decide for themselves."""
    found = common(plan, instance(plan, **fields), not_before, facts())
    if found is not None:
        for data in CONTEXTS:
            own = decided(plan, instance(plan, **fields), data, not_before)
            assert nameless(own) == nameless(written(found))
    return found


DAY = {"duration": 86_400_000}
WINDOW = {"days": [0], "start_hour": 12, "end_hour": 13}


@pytest.mark.parametrize(
    "block",
    [
        step("a"),
        step("a", "noop", {"n": "{{ data.x }}"}),
        step("a", "plain", {"n": 1}, timeout=5000, deadline=9000),
        step("a", "external", {"n": [1, {"m": 2}]}, queue_name="q", timeout=5000),
        step("a", "noop", delay=DAY),
        step("a", "noop", send_window=WINDOW),
        gate("a", gate={"prompt": "go on?", "timeout": 5000}),
    ],
)
def test_begins_alike(block: dict[str, Any]) -> None:
    found = check(plan_of(block, step("b")))
    assert found is not None
    assert found.step is not None


@pytest.mark.parametrize(
    "block",
    [
        step("a", when="data.x == 1"),
        step("a", when="true"),
        step("a", "external", {"n": "{{ data.x }}"}),
        step("a", cache_key="{{ data.x }}"),
        step("a", delay={**DAY, "jitter": 5000}),
        step("a", delay={**DAY, "business_days_only": True}),
        split("a", ("left", 1, [step("l")]), ("right", 1, [step("r")])),
        parallel("a", [step("l")], [step("r")]),
        gate("a", params={"notify_url": "https://example.com"}),
    ],
)
def test_is_left_to_each(block: dict[str, Any]) -> None:
    assert check(plan_of(block, step("b"))) is None


def test_interceptors_see_ids() -> None:
    hook = {"handler": "log", "params": {"message": "{{ instance.id }}"}}
    assert check(plan_of(step("a"), interceptors={"before_step": hook})) is None


@pytest.mark.parametrize("session_id", [None, uuid4()])
def test_start_in_the_future_is_a_timer(session_id: UUID | None) -> None:
    later = NOW + timedelta(hours=1)
    found = check(plan_of(step("a", when="data.x"), sla={"max_runtime": 5000}), later, session_id=session_id)
    assert found is not None
    assert found.step is None
    assert [type(each) for each in found.timers] == [TimerPut, TimerPut]
    assert found.instance.state is InstanceState.SCHEDULED


@pytest.mark.parametrize("fields", [{"dry_run": True}, {"budget": {"max_steps": 1}}, {"budget": {"max_steps": -1}}])
def test_whatever_an_instance_was_given(fields: dict[str, Any]) -> None:
    assert check(plan_of(step("a")), **fields) is not None


def test_generated_sequences() -> None:
    found = []
    for seed in range(400):
        program = program_of(seed)
        document = definition_of(program.blocks, **program.members)
        found.append(check(Plan(document), timezone=program.timezone))
    alike = sum(each is not None for each in found)
    assert 40 < alike < 360
