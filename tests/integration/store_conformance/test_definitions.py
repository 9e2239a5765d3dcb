"""Definitions, found by id and by name."""

from uuid import uuid4

from orchestrator.core.model import SequenceName
from orchestrator.core.slice import Needs
from tests.integration.store_conformance.house import House
from tests.support.drive import definition_of, step


def test_definitions_are_found_by_id(house: House) -> None:
    flow = house.instance()
    with house.store.transaction() as tx:
        found = tx.load_definitions([flow.sequence_id, uuid4()])
    assert list(found) == [flow.sequence_id]
    assert [block["id"] for block in found[flow.sequence_id].document["blocks"]] == ["a"]


def test_a_definition_is_found_by_name(house: House) -> None:
    name = f"s-{uuid4()}"
    made = [definition_of([step("a")], name=name, version=number) for number in (1, 2)]
    for each in made:
        house.define(each)
    with house.store.transaction() as tx:
        found = [tx.newest_definition("t", "n", name, version=version) for version in (None, 1, 7)]
        assert tx.newest_definition("other", "n", name) is None
    assert [None if each is None else each.id for each in found] == [made[1].id, made[0].id, None]


def test_a_name_stands_for_the_newest_version_that_is_not_deprecated(house: House) -> None:
    name = f"s-{uuid4()}"
    schema = {"type": "object"}
    made = [definition_of([step("a")], name=name, version=number, input_schema=schema) for number in (1, 2, 3)]
    for each in made[:2]:
        house.define(each)
    house.define(made[2].model_copy(update={"deprecated": True}))
    wanted = [SequenceName(name), SequenceName(name, 1), SequenceName(name, 3), SequenceName(name, 4)]
    found = house.slice(house.instance(), Needs(sequences=frozenset(wanted))).sequences
    ids = [None if found[each] is None else found[each].sequence_id for each in wanted]
    assert ids == [made[1].id, made[0].id, made[2].id, None]
    assert found[wanted[0]].input_schema == schema
