"""Outputs: stored once, and the newest of a block is the one that counts."""

from datetime import timedelta

import pytest

from orchestrator.core.changes import ErrorRowsRemoved
from orchestrator.core.model import BESIDE, NodeKey, OutputKey
from orchestrator.core.slice import ABSENT
from tests.integration.store_conformance.house import NEWEST, House, output


def test_an_output_is_stored_once(house: House) -> None:
    flow = house.instance()
    row = output(1, at=house.now())
    house.write(flow, row)
    with pytest.raises(Exception, match=r"there already|duplicate key"):
        house.write(flow, row)


def test_an_output_that_is_null_is_there(house: House) -> None:
    flow = house.instance()
    house.write(flow, output(None, at=house.now()))
    assert house.output(flow, NEWEST) is None


def test_the_newest_output_of_a_lane_and_of_all(house: House) -> None:
    flow = house.instance()
    now = house.now()
    later = now + timedelta(milliseconds=5)
    house.write(
        flow,
        output("lane 1, later", at=later, key=NodeKey("a", (1,)), lane=(1,)),
        output("lane 0", at=now, key=NodeKey("a", (0,)), lane=(0,)),
        output("lane 1", at=now, key=NodeKey("a", (1,)), lane=(1,)),
    )
    assert house.output(flow, OutputKey("a", (0,))) == "lane 0"
    assert house.output(flow, OutputKey("a", (1,))) == "lane 1, later"
    assert house.output(flow, OutputKey("a", (), is_any_below=True)) == "lane 1, later"
    assert house.output(flow, OutputKey("a", ())) is ABSENT


def test_the_newest_output_of_the_lanes_below_one(house: House) -> None:
    flow = house.instance()
    for nth, lane in enumerate([(0, 0), (0, 1), (1, 0)]):
        at = house.now() + timedelta(seconds=nth)
        house.write(flow, output(f"lane {lane}", at=at, key=NodeKey("a", lane), lane=lane))
    assert house.output(flow, OutputKey("a", (0,), is_any_below=True)) == "lane (0, 1)"
    assert house.output(flow, OutputKey("a", (1,), is_any_below=True)) == "lane (1, 0)"
    assert house.output(flow, OutputKey("a", (2,), is_any_below=True)) is ABSENT
    assert house.output(flow, OutputKey("a", (0,))) is ABSENT


def test_what_lies_beside_the_flow_is_nobodys_newest_output(house: House) -> None:
    flow = house.instance()
    beside = NodeKey("a", (BESIDE, 0))
    house.write(flow, output("aside", at=house.now(), key=beside, lane=beside.iteration))
    assert house.output(flow, OutputKey("a", (), is_any_below=True)) is ABSENT
    assert house.output(flow, OutputKey("a", beside.iteration)) == "aside"


def test_s9_a_retry_removes_the_error_rows_and_the_former_output_is_the_newest_again(house: House) -> None:
    flow = house.instance()
    now = house.now()
    house.write(flow, output("good", at=now), output({"error": 1}, at=now, ref="__error__"))
    assert house.output(flow, NEWEST) == {"error": 1}
    house.write(flow, ErrorRowsRemoved())
    assert house.output(flow, NEWEST) == "good"
