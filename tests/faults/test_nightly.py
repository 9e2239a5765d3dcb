"""The short form of the long run of faults: one of each group, and the controls of what judges it."""

import os
import random
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import cast

import pytest

from tests.faults.long import only_long
from tests.faults.nightly.campaign import Campaign
from tests.faults.nightly.judge import Verdict
from tests.faults.nightly.kinds import POINT_KINDS, SHORT, draw, groups_of, kinds_of, one_of_each_group
from tests.faults.nightly.pulse import Pulse
from tests.faults.nightly.record import Record
from tests.faults.nightly.site import Plan, Site

pytestmark = [pytest.mark.fault, pytest.mark.timeout(900)]

SEED = int(os.environ.get("FAULT_SEED") or random.SystemRandom().randrange(2**32))


@pytest.mark.parametrize(
    "plan",
    [
        pytest.param(Plan(), id="Redis"),
        pytest.param(Plan(rabbitmq=True), id="RabbitMQ", marks=only_long),
        pytest.param(Plan(pooler=True), id="PgBouncer", marks=only_long),
    ],
)
def test_one_fault_of_each_group_and_a_death_at_each_point_under_load(tmp_path: Path, plan: Plan) -> None:
    print(f"\nseed {SEED}")
    kinds = kinds_of(plan)
    kept, drawn = Record(seed=SEED), Random(SEED)
    with Site.running(tmp_path, per_second=5, seed=SEED, plan=plan) as site:
        campaign = Campaign(site, kept, SHORT)
        campaign.play(one_of_each_group(drawn, kinds), drawn)
        campaign.play(POINT_KINDS, drawn)
        campaign.end()
    print(kept.report(("pytest",)))
    assert not kept.verdict()
    assert len(kept.faults) >= len(groups_of(kinds)) - 1 + len(POINT_KINDS)


def test_control_a_run_that_checked_nothing_is_not_sound() -> None:
    kept = Record(seed=1, rounds=1)
    kept.faults["FLUSHALL"] = 1
    assert any("I1" in wrong for wrong in kept.verdict())
    assert "PROMISES WERE BROKEN" in kept.report(("pytest",))


def test_control_a_broken_promise_is_reported() -> None:
    kept = Record(seed=1)
    assert kept.verdict() == []
    kept.add("FLUSHALL", {"I1": Verdict(checked=1, broken=["one is gone"])})
    assert "one is gone" in kept.verdict()[0]
    assert "one is gone" in kept.report(("pytest",))


def test_control_what_grows_is_noticed() -> None:
    kept = Record(seed=1)
    for number in range(100):
        kept.sample({"keys": 7, "dead": number * 10})
    assert [wrong.split()[0] for wrong in kept.flatness().broken] == ["dead"]


def test_a_worker_that_is_heard_again_was_silent_and_one_that_died_was_not() -> None:
    heard = {"alive": 100.0, "silent": 100.0, "dead": 100.0}
    pulse = Pulse(lambda _statement: [(name, name, at) for name, at in heard.items()], children=2, grace=8)
    for alive, silent in ((102.0, 100.0), (106.9, 100.0), (108.0, 108.0), (110.0, 110.0)):
        heard |= {"alive": alive, "silent": silent}
        pulse.look()
    assert [(each.name, each.began_at, each.ended_at, each.may_run_again) for each in pulse.silences] == [
        ("silence of silent", 100.0, 116.0, 2)
    ]
    assert len(pulse.since(116.0)) == 1
    assert pulse.since(116.1) == ()


def test_control_a_process_that_has_ended_by_itself_is_noticed() -> None:
    started: list[str] = []
    site = SimpleNamespace(down=lambda: ["worker-1"], stack=SimpleNamespace(start_all=lambda: started.append("all")))
    kept = Record(seed=1)
    campaign = Campaign(cast("Site", site), kept, SHORT)
    campaign._check_processes(kinds_of(Plan())[0])
    assert "worker-1 has ended" in kept.verdict()[0]
    assert started == ["all"]


def test_a_run_goes_on_where_it_stood(tmp_path: Path) -> None:
    kept = Record(seed=5, rounds=3)
    kept.faults["FLUSHALL"] = 2
    kept.add("FLUSHALL", {"I1": Verdict(checked=4)})
    kept.save(tmp_path / "state.json")
    again = Record.going_on(tmp_path / "state.json")
    assert again == kept
    again.faults["TERM"] += 1
    assert Record.going_on(tmp_path / "state.json", 6) == Record(seed=6)


def test_a_seed_draws_the_same_faults() -> None:
    kinds = kinds_of(Plan())
    assert [draw(Random("7/1"), kinds) for _ in range(2)] == [draw(Random("7/1"), kinds)] * 2
    assert {kind.group for kind in one_of_each_group(Random(1), kinds)} == set(groups_of(kinds))
