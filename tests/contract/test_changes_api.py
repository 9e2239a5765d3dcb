"""The change feed (contract, api §18.4)."""

import json
from base64 import urlsafe_b64encode
from uuid import UUID, uuid4

import pytest

from tests.contract.client import TENANT, Api, step
from tests.support.streams import Seen, stream
from tests.support.waiting import wait_until

OTHER = {"X-Tenant-Id": "other"}


def changes(api: Api, query: str = "", **headers: str) -> dict:
    answer = api.http.get(f"/changes{query}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


def run(api: Api, count: int, *, is_shown: bool = True) -> list[str]:
    """Run instances, and wait until the feed shows them: a transaction of the server's own may hold it up a moment."""
    ids = [api.start(step("a", "noop")) for _ in range(count)]
    api.run_builtins()
    written = set(audits(api, ids))

    def shown() -> bool:
        return written <= {each["id"] for each in changes(api, "?limit=500")["changes"]}

    if is_shown:
        wait_until(shown, "the feed to show the instances")
    return ids


def audits(api: Api, ids: list[str]) -> list[str]:
    return [row["id"] for each in ids for row in api.http.get(f"/instances/{each}/audit").json()]


def test_api_18_4_the_feed_shows_the_audit_rows_of_a_tenant_page_by_page(api: Api):
    ids = run(api, 3)
    whole = changes(api)
    assert sorted(each["id"] for each in whole["changes"]) == sorted(audits(api, ids))
    assert whole["changes"][0] == api.http.get(f"/instances/{whole['changes'][0]['instance_id']}/audit").json()[-1]
    assert whole["has_more"] is False
    read, query = [], "?limit=1"
    while (page := changes(api, query))["changes"]:
        assert page["has_more"] == (len(read) + 1 < len(whole["changes"]))
        read += page["changes"]
        query = f"?limit=1&cursor={page['next_cursor']}"
    assert read == whole["changes"]
    assert page == {"changes": [], "has_more": False}


@pytest.mark.parametrize("state", ["waiting", "paused", "scheduled"])
def test_api_18_4_a_custom_signal_that_nothing_waits_for_is_in_the_feed(api: Api, state: str):
    instance = api.start(step("a"), **({} if state == "waiting" else {"next_fire_at": "2099-01-01T00:00:00Z"}))
    if state == "paused":
        api.signal(instance, "pause")
    before = api.instance(instance)
    assert before["state"] == state
    signal = api.signal(instance, {"custom": "hello"}, {"secret": 1}).json()["signal_id"]
    audit = api.http.get(f"/instances/{instance}/audit").json()
    (row,) = [each for each in audit if each["event_type"] == "signal_received"]
    assert row["details"] == {"signal_id": signal, "signal_type": {"custom": "hello"}}
    assert {"from_state", "to_state", "block_id"}.isdisjoint(row)
    assert {**api.instance(instance), "updated_at": ...} == {**before, "updated_at": ...}
    assert api.outputs(instance) == []
    wait_until(lambda: row in changes(api)["changes"], "the feed to show the signal")


def test_api_18_4_an_answer_to_a_gate_is_no_row_of_the_feed(api: Api):
    instance = api.start(step("a"), step("g", "noop", wait_for_input={"prompt": "?"}))
    for payload in ({"value": "maybe"}, {"value": "yes"}):
        assert api.signal(instance, {"custom": "human_input:g"}, payload).status_code == 201
    api.complete({})
    api.run_builtins()
    assert {each["event_type"] for each in api.http.get(f"/instances/{instance}/audit").json()} == {"state_transition"}


def test_api_18_4_other_tenants_have_feeds_of_their_own(api: Api):
    run(api, 1)
    assert changes(api, f"?tenant_id={TENANT}", **OTHER) == {"changes": [], "has_more": False}


@pytest.mark.parametrize(("limit", "count"), [("0", 1), ("-3", 1), ("999999999999", 4), ("2", 2)])
def test_api_18_4_limits_are_clamped(api: Api, limit: str, count: int):
    ids = run(api, 4)
    expected = min(count, len(audits(api, ids))) if count != 4 else len(audits(api, ids))
    assert len(changes(api, f"?limit={limit}")["changes"]) == expected


def cursor(members: object) -> str:
    return urlsafe_b64encode(json.dumps(members).encode()).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "written",
    [
        "x",
        "!!!!",
        "e30",
        cursor([]),
        cursor(None),
        cursor({"created_at": 1, "id": "x"}),
        cursor({"created_at": "2026-01-01T00:00:00Z", "id": 5}),
        cursor({"created_at": "2026-01-01T00:00:00", "id": str(UUID(int=1))}),
        cursor({"created_at": "2026-01-01T00:00:00Z", "id": str(UUID(int=1)), "xid": "1"}),
        cursor({"created_at": "2026-01-01T00:00:00Z", "id": str(UUID(int=1)), "xid": 2**63}),
        "A" * 501,
    ],
)
def test_api_18_4_a_cursor_that_cannot_be_read_is_refused(api: Api, written: str):
    for answer in (
        api.http.get(f"/changes?cursor={written}"),
        api.http.get(f"/changes/stream?cursor={written}"),
        api.http.get("/changes/stream", headers={"Last-Event-ID": written}),
    ):
        assert (answer.status_code, answer.json()) == (400, {"error": "invalid argument: malformed change cursor"})


def test_api_18_4_a_cursor_of_time_and_id_alone_is_enough(api: Api):
    run(api, 3)
    whole = changes(api)["changes"]
    written = cursor({name: whole[1][name] for name in ("created_at", "id")})
    assert changes(api, f"?cursor={written}")["changes"] == whole[2:]
    gone = cursor({"created_at": whole[1]["created_at"], "id": str(uuid4())})
    assert [each["id"] for each in changes(api, f"?cursor={gone}")["changes"]][-1] == whole[-1]["id"]


def test_api_18_4_nothing_appears_behind_a_cursor_when_transactions_overlap(api: Api):
    """The first one writes early and commits late: until then nothing that was written after it is shown."""
    store = api.engine.store
    [first] = run(api, 1)
    before = changes(api)
    with store.transaction() as slow:
        slow.execute(
            "INSERT INTO transitions (instance_id, id, tenant_id, event_type, details, created_at) "
            "VALUES (%s, %s, %s, 'slow', '{}', clock_timestamp())",
            (UUID(first), uuid4(), TENANT),
        )
        [second] = run(api, 1, is_shown=False)
        meanwhile = changes(api, f"?cursor={before['next_cursor']}")
        assert meanwhile["changes"] == []

    def later_ones() -> list:
        return changes(api, f"?cursor={before['next_cursor']}")["changes"]

    later = wait_until(later_ones, "the feed to go on")
    assert later[0]["event_type"] == "slow"
    assert [each["id"] for each in later][1:] == list(reversed(audits(api, [second])))


def test_api_18_4_a_stream_of_changes_goes_on_and_is_resumed(api: Api):
    run(api, 2)
    whole = changes(api)["changes"]
    with stream(api.http, "/changes/stream") as events:
        seen = [next(events) for _ in whole]
        assert [(each.name, each.data) for each in seen] == [("change", row) for row in whole]
        run(api, 1)
        newer = next(events)
    rest = changes(api, f"?cursor={seen[-1].id}")["changes"]
    assert newer.data == rest[0]
    with stream(api.http, "/changes/stream", **{"Last-Event-ID": seen[0].id}) as events:
        assert next(events) == Seen(name="change", data=whole[1], id=seen[1].id)
    with stream(api.http, f"/changes/stream?cursor={newer.id}", **{"Last-Event-ID": seen[0].id}) as events:
        run(api, 1)
        assert next(events).data["id"] not in {each["id"] for each in [*whole, newer.data]}


def test_api_18_4_the_head_of_the_stream_ends_at_once(api: Api):
    assert api.http.head("/changes/stream").status_code == 200
