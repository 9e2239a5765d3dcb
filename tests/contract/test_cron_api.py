"""Cron schedules (contract, api §14, §19; sequences §13.7)."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from orchestrator.cron import Cron
from orchestrator.engine import Engine
from orchestrator.loops import LoopRunner
from orchestrator.settings import Settings
from orchestrator.store import schedules
from orchestrator.store.postgres import PostgresStore
from tests.contract.client import TENANT, Api, definition, step
from tests.support.waiting import wait_until

NEVER = "00000000-0000-0000-0000-000000000000"
OTHER = {"X-Tenant-Id": "other"}
YEARLY = "0 0 1 1 *"


@pytest.fixture
def cron(engine: Engine, settings: Settings) -> Cron:
    """The loop, to be ticked by hand."""
    return Cron(engine, settings)


def body(sequence_id: str, **fields: Any) -> dict[str, Any]:
    return {"tenant_id": TENANT, "namespace": "default", "sequence_id": sequence_id, "cron_expr": YEARLY, **fields}


def make(api: Api, sequence_id: str | None = None, **fields: Any) -> str:
    """Store a schedule, by default of a new sequence; returns its id."""
    answer = api.http.post("/cron", json=body(sequence_id or api.sequence(step("work")), **fields))
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def read(api: Api, schedule_id: str) -> dict[str, Any]:
    answer = api.http.get(f"/cron/{schedule_id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def let_be_due(store: PostgresStore, *, since: timedelta = timedelta(seconds=1)) -> str:
    """Let all enabled schedules be due since a moment; returns it."""
    moment = datetime.now(UTC).replace(microsecond=0) - since
    with store.transaction() as tx:
        tx.execute("UPDATE schedules SET next_fire_at = %s, due_at = %s WHERE enabled", (moment, moment))
    return moment.isoformat().replace("+00:00", "Z")


def flows(api: Api) -> list[dict[str, Any]]:
    """The flows there are, the oldest first."""
    return sorted(api.http.get("/instances").json()["items"], key=lambda flow: flow["id"])


def metric(api: Api, name: str) -> float:
    text = api.http.get(f"{api.root}/metrics").text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


# -- the objects -----------------------------------------------------------------------------------------------------


def test_api_14_create_read_and_list(api: Api) -> None:
    sequence = api.sequence(step("work"))
    answer = api.http.post("/cron", json=body(sequence, metadata={"a": [1]}, timezone="Europe/Berlin"))
    assert (answer.status_code, set(answer.json())) == (201, {"id", "next_fire_at"})
    found = read(api, answer.json()["id"])
    assert UUID(found["id"]).version == 7
    assert found["created_at"] == found["updated_at"]
    assert {name: value for name, value in found.items() if name not in {"created_at", "updated_at"}} == {
        "id": answer.json()["id"],
        "tenant_id": TENANT,
        "namespace": "default",
        "sequence_id": sequence,
        "cron_expr": YEARLY,
        "timezone": "Europe/Berlin",
        "enabled": True,
        "metadata": {"a": [1]},
        "overlap_policy": "allow",
        "skipped_fires": 0,
        "last_skipped_at": None,
        "last_triggered_at": None,
        "next_fire_at": answer.json()["next_fire_at"],
    }
    assert found["next_fire_at"].endswith("-12-31T23:00:00Z")
    second = make(api, sequence, enabled=False, overlap_policy="skip")
    assert [each["id"] for each in api.http.get("/cron").json()] == [found["id"], second]
    assert api.http.get("/cron", params={"limit": 1}).json() == [found]
    assert api.http.get("/cron", params={"limit": "x"}).status_code == 400


def test_api_14_a_schedule_is_its_tenants(api: Api) -> None:
    schedule = make(api)
    path = f"/cron/{schedule}"
    assert api.http.get("/cron", headers=OTHER, params={"tenant_id": TENANT}).json() == []
    for method, where in (("GET", path), ("PUT", path), ("DELETE", path), ("GET", f"{path}/next-fires")):
        assert api.http.request(method, where, headers=OTHER, json={"enabled": False}).status_code == 404
    assert read(api, schedule)["enabled"] is True


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"tenant_id": ...}, 422),
        ({"namespace": ...}, 422),
        ({"sequence_id": ...}, 422),
        ({"cron_expr": ...}, 422),
        ({"tenant_id": " "}, 422),
        ({"namespace": ""}, 400),
        ({"namespace": "n" * 300}, 400),
        ({"tenant_id": "other"}, 403),
        ({"sequence_id": "x"}, 422),
        ({"sequence_id": NEVER}, 404),
        ({"cron_expr": ""}, 400),
        ({"cron_expr": "every day"}, 400),
        ({"cron_expr": "61 * * * *"}, 400),
        ({"cron_expr": "* * * * \x00"}, 400),
        ({"cron_expr": "0 0 30 2 *"}, 400),
        ({"cron_expr": "* " * 1000}, 400),
        ({"cron_expr": 5}, 422),
        ({"timezone": "Mars/Olympus_Mons"}, 400),
        ({"timezone": ""}, 400),
        ({"timezone": "../etc/passwd"}, 400),
        ({"timezone": "localtime"}, 400),
        ({"timezone": None}, 422),
        ({"enabled": "yes"}, 422),
        ({"overlap_policy": "explode"}, 422),
    ],
)
def test_api_14_what_cannot_be_created(api: Api, fields: dict[str, Any], status: int) -> None:
    written = {**body(api.sequence(step("a"))), **fields}
    sent = {name: value for name, value in written.items() if value is not ...}
    assert api.http.post("/cron", json=sent).status_code == status
    assert api.http.get("/cron").json() == []


def test_api_14_a_foreign_sequence_is_403(api: Api) -> None:
    document = definition(step("a"), tenant_id="other")
    assert api.http.post("/sequences", json=document, headers=OTHER).status_code == 201
    answer = api.http.post("/cron", json=body(document["id"]))
    assert (answer.status_code, answer.json()["error"].partition(":")[0]) == (403, "forbidden")


def test_api_14_change(api: Api, store: PostgresStore, cron: Cron) -> None:
    schedule = make(api, metadata={"a": 1})
    changed = api.http.put(f"/cron/{schedule}", json={"cron_expr": "0 0 1 2 *", "overlap_policy": "skip"})
    assert changed.status_code == 200
    assert changed.json() == read(api, schedule)
    assert changed.json()["next_fire_at"].endswith("-02-01T00:00:00Z")
    assert (changed.json()["overlap_policy"], changed.json()["metadata"]) == ("skip", {"a": 1})
    zoned = api.http.put(f"/cron/{schedule}", json={"timezone": "Europe/Berlin", "enabled": None, "more": 1}).json()
    assert (zoned["next_fire_at"][5:], zoned["enabled"]) == ("01-31T23:00:00Z", True)
    assert api.http.put(f"/cron/{schedule}", json={"metadata": None}).json()["metadata"] is None
    for refused, status in (
        ({"cron_expr": "x"}, 400),
        ({"timezone": "x"}, 400),
        ({"cron_expr": 1}, 422),
        ({"enabled": 1}, 422),
        ({"overlap_policy": "x"}, 422),
    ):
        assert api.http.put(f"/cron/{schedule}", json=refused).status_code == status
    assert read(api, schedule)["cron_expr"] == "0 0 1 2 *"


def test_api_14_what_is_not_there(api: Api) -> None:
    for method, path in (("GET", ""), ("PUT", ""), ("DELETE", ""), ("GET", "/next-fires")):
        answer = api.http.request(method, f"/cron/{NEVER}{path}", json={})
        assert (answer.status_code, answer.json()) == (404, {"error": f"not found: cron_schedule {NEVER}"})
        assert api.http.request(method, f"/cron/x{path}", json={}).status_code == 400
    schedule = make(api)
    assert [api.http.delete(f"/cron/{schedule}").status_code for _ in range(2)] == [204, 404]


def test_api_14_next_fires(api: Api) -> None:
    path = f"/cron/{make(api, cron_expr='0 12 29 2 ?', timezone='Europe/Berlin', enabled=False)}/next-fires"
    answer = api.http.get(path).json()
    assert (answer["timezone"], len(answer["fires"])) == ("Europe/Berlin", 5)
    assert [fire[4:] for fire in answer["fires"]] == ["-02-29T11:00:00Z"] * 5
    for written, count in (("0", 0), ("2", 2), ("50", 50), ("9999999999", 50)):
        assert len(api.http.get(path, params={"n": written}).json()["fires"]) == count
    for written in ("-1", "x", "1.5"):
        assert api.http.get(path, params={"n": written}).status_code == 400


# -- firing ----------------------------------------------------------------------------------------------------------


def test_api_14_a_schedule_that_is_due_starts_a_flow(api: Api, store: PostgresStore, cron: Cron) -> None:
    sequence = api.sequence(step("work"))
    schedule = make(api, sequence, metadata={"team": "a", "cron_schedule_id": "mine"}, timezone="Europe/Berlin")
    planned = read(api, schedule)["next_fire_at"]
    assert (cron.tick().done, flows(api)) == (0, [])
    moment = let_be_due(store)
    assert [cron.tick().done, cron.tick().done] == [1, 0]
    (flow,) = flows(api)
    assert (flow["sequence_id"], flow["tenant_id"], flow["namespace"]) == (sequence, TENANT, "default")
    assert (flow["state"], flow["context"]["data"], flow["timezone"]) == ("waiting", {}, "Europe/Berlin")
    assert flow["metadata"] == {"team": "a", "cron_schedule_id": schedule}
    assert flow["idempotency_key"] == f"cron:{schedule}:{moment}"
    found = read(api, schedule)
    assert (found["next_fire_at"], found["skipped_fires"], found["last_skipped_at"]) == (planned, 0, None)
    assert found["last_triggered_at"] is not None
    assert metric(api, "orch8_cron_triggered_total") == 1
    assert metric(api, "orch8_cron_skipped_total") == 0


@pytest.mark.parametrize("metadata", [None, [1], "text"])
def test_api_14_metadata_may_be_anything(api: Api, store: PostgresStore, cron: Cron, metadata: Any) -> None:
    schedule = make(api, metadata=metadata)
    assert read(api, schedule)["metadata"] == metadata
    let_be_due(store)
    cron.tick()
    assert [flow["metadata"] for flow in flows(api)] == [{"cron_schedule_id": schedule}]


def test_api_14_after_downtime_a_schedule_fires_once(api: Api, store: PostgresStore, cron: Cron) -> None:
    schedule = make(api, cron_expr="* * * * * *")
    moment = let_be_due(store, since=timedelta(days=1))
    before = datetime.now(UTC)
    assert cron.tick().done == 1
    assert [flow["idempotency_key"] for flow in flows(api)] == [f"cron:{schedule}:{moment}"]
    assert datetime.fromisoformat(read(api, schedule)["next_fire_at"]) > before - timedelta(seconds=1)


def test_api_14_a_disabled_schedule_has_no_effect(api: Api, store: PostgresStore, cron: Cron) -> None:
    schedule = make(api, cron_expr="* * * * * *")
    assert api.http.put(f"/cron/{schedule}", json={"enabled": False}).json()["enabled"] is False
    with store.transaction() as tx:
        assert tx.query("SELECT due_at FROM schedules") == [(None,)]
        tx.execute("UPDATE schedules SET next_fire_at = clock_timestamp() - interval '1 day'")
    assert (cron.tick().done, flows(api)) == (0, [])
    assert [each["id"] for each in api.http.get("/cron").json()] == [schedule]
    again = api.http.put(f"/cron/{schedule}", json={"enabled": True}).json()
    assert datetime.fromisoformat(again["next_fire_at"]) > datetime.now(UTC) - timedelta(seconds=30)


def test_api_14_a_change_beside_the_times_loses_no_fire(api: Api, store: PostgresStore, cron: Cron) -> None:
    schedule = make(api)
    moment = let_be_due(store)
    api.http.put(f"/cron/{schedule}", json={"metadata": {"b": 2}})
    assert cron.tick().done == 1
    (flow,) = flows(api)
    assert (flow["metadata"]["b"], flow["idempotency_key"]) == (2, f"cron:{schedule}:{moment}")


def test_api_14_a_moment_is_fired_for_once_by_any_number_of_servers(
    api: Api, store: PostgresStore, engine: Engine, settings: Settings
) -> None:
    """All see the same schedules as due before one of them fires."""
    ids = [make(api) for _ in range(5)]
    let_be_due(store)
    servers = [Cron(engine, settings) for _ in range(4)]
    seen = threading.Barrier(len(servers))

    def tick(server: Cron) -> int:
        with store.transaction() as tx:
            due = [schedules.get(tx, UUID(schedule)) for schedule in ids]
        seen.wait(60)
        return server._fire([each for each in due if each is not None])

    with ThreadPoolExecutor(len(servers)) as pool:
        assert sum(pool.map(tick, servers)) == len(ids)
    assert sorted(flow["metadata"]["cron_schedule_id"] for flow in flows(api)) == ids


def test_api_14_a_crash_in_the_middle_of_a_fire_leaves_nothing_and_loses_nothing(
    api: Api, store: PostgresStore, cron: Cron, monkeypatch: pytest.MonkeyPatch
) -> None:
    schedule = make(api)
    moment = let_be_due(store)
    with monkeypatch.context() as broken:
        broken.setattr(schedules, "mark_fired", _die)
        assert cron.tick().done == 0
    assert (flows(api), metric(api, "orch8_cron_triggered_total")) == ([], 0)
    assert read(api, schedule)["next_fire_at"] == moment
    with store.transaction() as tx:
        tx.execute("UPDATE schedules SET due_at = next_fire_at")
    assert cron.tick().done == 1
    assert [flow["idempotency_key"] for flow in flows(api)] == [f"cron:{schedule}:{moment}"]


def _die(*_asked: Any) -> None:
    raise RuntimeError("the process has died")


def test_api_14_one_that_cannot_be_fired_holds_up_no_other(
    api: Api, store: PostgresStore, cron: Cron, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = make(api), make(api)
    let_be_due(store)
    fire = cron._schedules.fire

    def picky(due: schedules.Schedule, **options: Any) -> bool:
        if str(due.id) == bad:
            raise RuntimeError("not this one")
        return fire(due, **options)

    monkeypatch.setattr(cron._schedules, "fire", picky)
    cron.tick()
    assert [flow["metadata"]["cron_schedule_id"] for flow in flows(api)] == [good]
    assert cron.tick().done == 0


# -- overlaps --------------------------------------------------------------------------------------------------------

Again = Callable[[], int]


@pytest.fixture
def fire(store: PostgresStore, cron: Cron) -> Again:
    """Let all schedules be due, each time at a later moment, and tick once."""
    ages = iter(range(100, 0, -1))

    def again() -> int:
        let_be_due(store, since=timedelta(seconds=next(ages)))
        return cron.tick().done

    return again


def test_api_14_allow_starts_whatever_goes_on(api: Api, fire: Again) -> None:
    make(api)
    assert [fire(), fire(), len(flows(api))] == [1, 1, 2]


def test_api_14_skip_starts_nothing_while_a_flow_goes_on(api: Api, fire: Again) -> None:
    schedule = make(api, overlap_policy="skip")
    planned = read(api, schedule)["next_fire_at"]
    assert [fire(), fire(), fire(), len(flows(api))] == [1, 1, 1, 1]
    found = read(api, schedule)
    assert (found["skipped_fires"], found["next_fire_at"]) == (2, planned)
    assert found["last_skipped_at"] > found["last_triggered_at"]
    assert (metric(api, "orch8_cron_triggered_total"), metric(api, "orch8_cron_skipped_total")) == (1, 2)
    api.complete()
    assert [fire(), len(flows(api)), read(api, schedule)["skipped_fires"]] == [1, 2, 2]


def test_api_14_the_flows_of_other_schedules_do_not_count(api: Api, fire: Again) -> None:
    sequence = api.sequence(step("work"))
    for _ in range(2):
        make(api, sequence, overlap_policy="skip")
    api.start_of(sequence)
    assert [fire(), len(flows(api))] == [2, 3]


def test_api_14_buffer_one_waits_for_the_end(api: Api, store: PostgresStore, cron: Cron, fire: Again) -> None:
    schedule = make(api, overlap_policy="buffer_one")
    assert fire() == 1
    moment = let_be_due(store)
    assert [cron.tick().done, cron.tick().done, len(flows(api))] == [0, 0, 1]
    assert read(api, schedule)["next_fire_at"] == moment
    api.complete()
    wait_until(lambda: cron.tick().done == 1, "the buffered fire")
    assert [flow["idempotency_key"] for flow in flows(api)][1:] == [f"cron:{schedule}:{moment}"]
    assert read(api, schedule)["skipped_fires"] == 0


def test_api_14_cancel_previous_ends_the_flow_before(api: Api, fire: Again) -> None:
    make(api, overlap_policy="cancel_previous")
    assert [fire(), fire(), fire()] == [1, 1, 1]
    assert [flow["state"] for flow in flows(api)] == ["cancelled", "cancelled", "waiting"]


def test_api_14_a_server_that_is_late_does_not_cancel_what_another_has_fired(
    api: Api, store: PostgresStore, cron: Cron
) -> None:
    make(api, overlap_policy="cancel_previous")
    let_be_due(store)
    with store.transaction() as tx:
        (seen,) = schedules.due(tx, 1)
    assert cron.tick().done == 1
    assert cron._fire([seen]) == 0
    assert [flow["state"] for flow in flows(api)] == ["waiting"]


# -- its sequence ----------------------------------------------------------------------------------------------------


def test_s13_7_a_cron_fire_starts_the_version_its_schedule_names(api: Api, fire: Again) -> None:
    first, second, third = (definition(step("a"), name="nightly", version=version) for version in (1, 2, 3))
    for document in (first, second):
        assert api.http.post("/sequences", json=document).status_code == 201
    schedule = make(api, first["id"])
    fire()
    assert api.http.post(f"/sequences/{first['id']}/deprecate").status_code == 204
    fire()
    assert api.http.post("/sequences", json=third).status_code == 201
    fire()
    assert [flow["sequence_id"] for flow in flows(api)] == [each["id"] for each in (first, second, third)]
    for document in (second, third):
        assert api.http.post(f"/sequences/{document['id']}/deprecate").status_code == 204
    fire()
    assert (len(flows(api)), read(api, schedule)["skipped_fires"]) == (3, 1)


def test_s13_7_a_sequence_that_wants_data_is_skipped(api: Api, fire: Again) -> None:
    document = definition(step("a"), input_schema={"type": "object", "required": ["n"]})
    assert api.http.post("/sequences", json=document).status_code == 201
    schedule = make(api, document["id"])
    fire()
    assert (flows(api), read(api, schedule)["skipped_fires"]) == ([], 1)


def test_api_9_schedules_go_with_their_sequence(api: Api, store: PostgresStore, fire: Again) -> None:
    sequence = api.sequence(step("work"))
    schedule, other = make(api, sequence), make(api)
    fire()
    assert api.http.delete(f"/sequences/{sequence}").status_code == 409
    assert read(api, schedule)["id"] == schedule
    for _ in range(2):
        task = api.poll(limit=1)[0]
        assert api.report(task, "complete", output=None).status_code == 200
    assert api.http.delete(f"/sequences/{sequence}").status_code == 204
    assert [each["id"] for each in api.http.get("/cron").json()] == [other]
    with store.transaction() as tx:
        assert tx.query("SELECT schedule_id FROM schedule_runs") == [(UUID(other),)]


# -- the loop --------------------------------------------------------------------------------------------------------


def test_api_19_a_schedule_of_every_second_fires_within_two(api: Api, engine: Engine, settings: Settings) -> None:
    """Known schedules fire when they are due; one that is stored while the loop sleeps is seen at its next look."""
    runner = LoopRunner(Cron(engine, settings.model_copy(update={"cron_tick": timedelta(seconds=1)})))
    runner.start()
    try:
        schedule = make(api, cron_expr="* * * * * *")
        wait_until(lambda: len(flows(api)) >= 3, "three fires")
    finally:
        runner.stop()
    lateness = [_lateness(flow, schedule) for flow in flows(api)]
    assert min(lateness) < timedelta(seconds=2)
    assert len({flow["idempotency_key"] for flow in flows(api)}) == len(lateness)


def _lateness(flow: dict[str, Any], schedule: str) -> timedelta:
    moment = flow["idempotency_key"].removeprefix(f"cron:{schedule}:")
    return datetime.fromisoformat(flow["created_at"]) - datetime.fromisoformat(moment)


def test_api_19_the_loop_sleeps_until_something_is_due(api: Api, store: PostgresStore, cron: Cron) -> None:
    assert (cron.tick().wait, cron.tick().is_exact) == (10.0, True)
    make(api)
    assert cron.tick().wait == 10.0
    with store.transaction() as tx:
        tx.execute("UPDATE schedules SET due_at = clock_timestamp() + interval '9 seconds'")
    assert 0 < cron.tick().wait < 9.1
