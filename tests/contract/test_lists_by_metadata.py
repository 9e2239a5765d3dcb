"""Lists by metadata (contract, api §10.4): what a member reads as, in the order of the list, whatever happens to it."""

from contextlib import closing
from typing import Any

import psycopg2
import pytest

from orchestrator.store import listing
from orchestrator.store.session import Store
from orchestrator.store.write_set import minute_of
from tests.contract.client import Api, step

ODD = {
    "text": "5",
    "number": 5,
    "exact": 5.0,
    "true": True,
    "nothing": None,
    "empty": "",
    "list": [1, "a"],
    "object": {"a": 1},
    "é'\\\"%": "ü'\\\"%",
    "a:b": "c",
    "long": "x" * 10_000,
}


def found(api: Api, **query: Any) -> list[str]:
    return [each["id"] for each in api.http.get("/instances", params=query).json()["items"]]


@pytest.mark.parametrize(
    ("key", "text", "is_found"),
    [
        ("text", "5", True),
        ("text", "5.0", False),
        ("number", "5", True),
        ("exact", "5.0", True),
        ("exact", "5", False),
        ("true", "true", True),
        ("true", "True", False),
        ("nothing", "null", False),
        ("nothing", "", False),
        ("empty", "", True),
        ("list", '[1, "a"]', True),
        ("object", '{"a": 1}', True),
        ("object.a", "1", False),
        ("é'\\\"%", "ü'\\\"%", True),
        ("a:b", "c", True),
        ("a", "bc", False),
        ("a:", "bc", False),
        ("long", "x" * 10_000, True),
        ("long", "x" * 9_999, False),
    ],
)
def test_api_10_4_a_member_of_metadata_is_found_by_the_text_it_reads_as(api: Api, key: str, text: str, is_found: bool):
    instance = api.start(step("a"), metadata=ODD)
    assert found(api, **{f"metadata.{key}": text}) == ([instance] if is_found else [])
    assert found(api, state="waiting", **{f"metadata.{key}": text}) == ([instance] if is_found else [])


def test_api_10_4_metadata_that_are_no_object_have_no_members(api: Api):
    for metadata in (None, "text", 5, ["text"], {}):
        api.start(step("a"), metadata=metadata)
    assert found(api, **{"metadata.text": "text"}) == []


def test_api_10_4_members_of_a_batch_are_found_each_by_its_own(api: Api):
    sequence = api.sequence(step("a"))
    bodies = [api.body(sequence, metadata={"order": str(n), "kind": "x"}) for n in range(5)]
    assert api.http.post("/instances/batch", json={"instances": bodies}).json() == {"count": 5}
    assert len(found(api, **{"metadata.order": "3"})) == 1
    assert len(found(api, **{"metadata.kind": "x"})) == 5
    assert found(api, **{"metadata.order": "3", "metadata.kind": "y"}) == []


def test_api_10_4_the_same_member_cannot_read_as_two_texts(api: Api):
    instance = api.start(step("a"), metadata={"k": "1"})
    assert [each["id"] for each in api.http.get("/instances?metadata.k=1&metadata.k=1").json()["items"]] == [instance]
    assert api.http.get("/instances?metadata.k=1&metadata.k=2").json()["items"] == []


def test_api_10_4_very_many_members_can_be_asked_for(api: Api):
    metadata = {f"k{number}": str(number) for number in range(300)}
    instance = api.start(step("a"), metadata=metadata)
    query = {f"metadata.{key}": text for key, text in metadata.items()}
    assert found(api, **query) == [instance]
    assert found(api, **query | {"metadata.k299": "other"}) == []


@pytest.mark.parametrize("text", ["\0", "a\0b", "\ud800"])
def test_api_10_4_text_that_nothing_can_hold_is_found_nowhere(api: Api, text: str):
    api.start(step("a"), metadata={"k": "v"})
    written = "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "surrogatepass"))
    for query in (f"metadata.k={written}", f"metadata.{written}=v", f"metadata.k={written}&state=waiting"):
        answer = api.http.get(f"/instances?{query}")
        assert answer.status_code == 400 or answer.json()["items"] == [], answer.text


def test_api_10_4_a_list_by_metadata_has_the_newest_change_first_over_hours(api: Api, store: Store):
    instances = [api.start(step("a"), metadata={"color": "red", "nth": n}) for n in range(6)]
    ages = [50, 3, 70, 4000, 2, 51]
    with store.transaction() as tx:
        for instance, age in zip(instances, ages, strict=True):
            [(moment,)] = tx.query(
                "UPDATE instances SET updated_at = now() - %s * interval '1 second' WHERE id = %s RETURNING updated_at",
                (age, instance),
            )
            tx.execute("UPDATE metadata_entries SET minute = %s WHERE instance_id = %s", (minute_of(moment), instance))
    expected = [instance for _, instance in sorted(zip(ages, instances, strict=True))]
    assert found(api, **{"metadata.color": "red"}) == expected
    assert found(api, **{"metadata.color": "red", "offset": 2, "limit": 3}) == expected[2:5]
    api.signal(expected[-1], "cancel")
    assert found(api, **{"metadata.color": "red"}) == [expected[-1], *expected[:-1]]
    assert found(api, **{"metadata.color": "red", "state": "cancelled"}) == [expected[-1]]


def test_api_10_4_what_the_engine_adds_to_metadata_is_found_as_well(api: Api):
    instance = api.start(step("a", "noop"), step("b", "noop"), budget={"max_steps": 0}, metadata={"paused_reason": "x"})
    assert found(api, **{"metadata.paused_reason": "x"}) == [instance]
    api.run_builtins()
    assert found(api, **{"metadata.paused_reason": "budget_exceeded"}) == [instance]
    assert found(api, **{"metadata.paused_reason": "x"}) == []


def test_api_10_4_other_conditions_hold_beside_metadata_however_many_they_leave(api: Api):
    sequence, other = api.sequence(step("a")), api.sequence(step("a"))
    bodies = [api.body(sequence, metadata={"kind": "x", "third": str(n % 3)}) for n in range(listing.FEW + 5)]
    api.http.post("/instances/batch", json={"instances": bodies}).raise_for_status()
    last = api.start_of(other, namespace="n2", metadata={"kind": "x", "third": "1"})
    query: dict[str, Any] = {"metadata.kind": "x", "metadata.third": "1", "limit": 1000}
    third = (listing.FEW + 5) // 3
    assert len(found(api, **query)) == third + 1
    assert len(found(api, sequence_id=sequence, **query)) == third
    assert len(found(api, state="waiting,running", **query)) == third + 1
    assert found(api, sequence_id=other, **query) == found(api, namespace="n2", **query) == [last]
    assert found(api, sequence_id=sequence, namespace="n2", **query) == []


def test_lists_are_short_work_although_the_planner_has_last_seen_one_instance(api: Api, database_url: str):
    """It would look for the context of each among those of all, and the API would give up after 15 s."""
    sequence = api.sequence(step("a"))
    api.start_of(sequence, metadata={"kind": "x"})
    with closing(psycopg2.connect(database_url.replace("+psycopg2", ""))) as connection:
        connection.autocommit = True
        connection.cursor().execute("VACUUM ANALYZE")
    bodies = [api.body(sequence, metadata={"kind": "x"}) for _ in range(listing.FEW - 1)]
    api.http.post("/instances/batch", json={"instances": bodies}).raise_for_status()
    assert len(found(api, limit=1000)) == len(found(api, **{"metadata.kind": "x", "limit": 1000})) == listing.FEW


def test_api_10_7_bulk_operations_mean_the_same_by_metadata(api: Api):
    instances = [api.start(step("a"), metadata={"kind": kind}) for kind in "xyx"]
    body = {"filter": {"metadata": {"kind": "x"}}, "state": "cancelled"}
    assert api.http.patch("/instances/bulk/state", json=body).json() == {"count": 2}
    assert [api.state(instance) for instance in instances] == ["cancelled", "waiting", "cancelled"]


def test_entries_of_metadata_go_with_their_instance(api: Api, store: Store):
    sequence = api.sequence(step("a", "noop"))
    api.start_of(sequence, metadata={"kind": "x"})
    api.run_builtins()
    assert api.http.delete(f"/sequences/{sequence}").status_code == 204
    with store.transaction() as tx:
        assert tx.query("SELECT count(*) FROM metadata_entries") == [(0,)]


def test_an_instance_that_goes_on_after_minutes_is_the_newest_of_its_lists(api: Api, store: Store):
    instance, other = (api.start(step("a"), metadata={"kind": "x"}) for _ in range(2))
    minutes = "SELECT minute FROM metadata_entries WHERE instance_id = %s"
    with store.transaction() as tx:
        tx.execute("UPDATE instances SET updated_at = updated_at - interval '5 minutes'")
        tx.execute("UPDATE metadata_entries SET minute = minute - interval '5 minutes'")
        before = tx.query(minutes, (other,))
    api.signal(instance, "pause")
    assert found(api, **{"metadata.kind": "x"}) == [instance, other]
    with store.transaction() as tx:
        assert tx.query(minutes, (instance,)) > before == tx.query(minutes, (other,))
        assert tx.query(
            "SELECT count(*) FROM metadata_entries m JOIN instances i ON i.id = m.instance_id "
            "WHERE m.minute <> date_bin('1 minute', i.updated_at, '2000-01-01Z')"
        ) == [(0,)]
