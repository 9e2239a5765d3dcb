"""Instances over HTTP (contract, api §10; sequences §9, §10)."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.contract.client import TENANT, Api, step

FIELDS = [
    "id",
    "sequence_id",
    "tenant_id",
    "namespace",
    "state",
    "next_fire_at",
    "priority",
    "timezone",
    "metadata",
    "context",
    "concurrency_key",
    "max_concurrency",
    "idempotency_key",
    "session_id",
    "parent_instance_id",
    "created_at",
    "updated_at",
]
LATER = "2099-01-01T00:00:00Z"


def moment(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


# -- §10.1, §10.2 ----------------------------------------------------------------------------------------------------


def test_api_10_1_fields_and_defaults(api: Api):
    sequence = api.sequence(step("a"))
    instance = api.instance(api.start_of(sequence, next_fire_at=LATER))
    assert list(instance) == FIELDS
    assert {name: instance[name] for name in FIELDS[1:9]} == {
        "sequence_id": sequence,
        "tenant_id": TENANT,
        "namespace": "default",
        "state": "scheduled",
        "next_fire_at": LATER,
        "priority": "Normal",
        "timezone": "UTC",
        "metadata": None,
    }
    assert {name: instance[name] for name in FIELDS[10:15]} == dict.fromkeys(FIELDS[10:15])
    assert abs(moment(instance["created_at"]) - datetime.now(UTC)) < timedelta(seconds=30)
    context = instance["context"]
    assert (context["data"], context["config"], context["audit"]) == (None, None, [])
    runtime = context["runtime"]
    assert (runtime["current_step"], runtime["attempt"], runtime["total_steps_executed"]) == (None, 0, 0)
    assert (runtime["dry_run"], runtime["dry_run_auto_approve"], runtime["resource_key"]) == (False, False, None)


def test_api_10_1_everything_sent_comes_back(api: Api):
    sent = {
        "priority": "critical",
        "timezone": "Europe/Berlin",
        "metadata": {"z": [1, None], "a": "text"},
        "context": {"data": {"x": 1.5, "big": 2**63, "nothing": None}, "config": {"k": "v"}},
        "concurrency_key": "c",
        "max_concurrency": 2,
        "idempotency_key": "i",
        "budget": {"max_steps": 5, "unknown": 1},
        "namespace": "other than the sequence's",
    }
    instance = api.instance(api.start_of(api.sequence(step("a")), **sent))
    assert instance["priority"] == "Critical"
    assert instance["budget"] == {"max_steps": 5}
    assert instance["context"]["data"] == sent["context"]["data"]
    assert instance["context"]["config"] == {"k": "v"}
    for name in ("timezone", "metadata", "concurrency_key", "max_concurrency", "idempotency_key", "namespace"):
        assert instance[name] == sent[name]


@pytest.mark.parametrize("context", [{}, {"data": None, "config": None, "audit": None, "runtime": None}, None])
def test_api_5_6_empty_sections_of_a_context_are_fine(api: Api, context: Any):
    assert api.instance(api.start_of(api.sequence(step("a")), context=context))["context"]["data"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"sequence_id": "x"},
        {"sequence_id": 5},
        {"tenant_id": 5},
        {"namespace": None},
        {"priority": "Urgent"},
        {"priority": 1},
        {"dry_run": "yes"},
        {"context": []},
        {"context": {"audit": {}}},
        {"context": {"runtime": []}},
        {"next_fire_at": "tomorrow"},
        {"next_fire_at": "2026-01-01T00:00:00"},
        {"max_concurrency": 2**40},
        {"max_concurrency": "2"},
        {"idempotency_key": 7},
        {"budget": {"max_steps": "many"}},
        {"session_id": "x"},
    ],
)
def test_api_10_2_wrong_shapes_are_422(api: Api, change: dict[str, Any]):
    assert api.http.post("/instances", json={**api.body(str(uuid4())), **change}).status_code == 422


@pytest.mark.parametrize("missing", ["sequence_id", "tenant_id", "namespace"])
def test_api_10_2_required_fields(api: Api, missing: str):
    body = api.body(str(uuid4()))
    del body[missing]
    assert api.http.post("/instances", json=body).status_code == 422


@pytest.mark.parametrize("change", [{"namespace": ""}, {"namespace": " "}, {"tenant_id": ""}, {"namespace": "n" * 300}])
def test_api_10_2_blank_and_endless_names_are_400(api: Api, change: dict[str, Any]):
    answer = api.http.post("/instances", json={**api.body(api.sequence(step("a"))), **change})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("invalid argument: ")


def test_api_10_2_unknown_sequence_is_404(api: Api):
    missing = str(uuid4())
    answer = api.http.post("/instances", json=api.body(missing))
    assert answer.status_code == 404
    assert answer.json() == {"error": f"not found: sequence {missing}"}


def test_api_10_2_unknown_session_is_404(api: Api):
    body = api.body(api.sequence(step("a")), session_id=str(uuid4()))
    assert api.http.post("/instances", json=body).status_code == 404


def test_api_10_2_too_large_context_is_413_and_creates_nothing(api: Api):
    sequence = api.sequence(step("a"))
    for section in ("data", "config"):
        body = api.body(sequence, context={section: {"x": "y" * 262_144}})
        answer = api.http.post("/instances", json=body)
        assert answer.status_code == 413
        assert answer.json()["error"].startswith("payload too large: ")
    assert api.http.get("/instances").json()["items"] == []


def test_api_10_2_input_schema_is_checked(api: Api):
    schema = {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer"}}}
    sequence = api.sequence(step("a"), input_schema=schema)
    for data in ({}, {"n": "x"}, None):
        answer = api.http.post("/instances", json=api.body(sequence, context={"data": data}))
        assert answer.status_code == 422
        expected = "unprocessable entity: context.data failed input_schema validation: at "
        assert answer.json()["error"].startswith(expected)
    batch = {"instances": [api.body(sequence, context={"data": {"n": 1}}), api.body(sequence)]}
    assert api.http.post("/instances/batch", json=batch).status_code == 422
    assert api.http.get("/instances").json()["items"] == []
    assert api.start_of(sequence, context={"data": {"n": 1}})


def test_api_10_2_repeated_idempotency_key_is_200_with_the_first_id(api: Api):
    sequence = api.sequence(step("a", "noop"))
    first = api.start_of(sequence, idempotency_key="k")
    api.run_builtins()
    assert api.state(first) == "completed"
    again = api.http.post("/instances", json=api.body(sequence, idempotency_key="k"))
    assert (again.status_code, again.json()) == (200, {"id": first, "deduplicated": True})
    dry = api.http.post("/instances", json=api.body(sequence, idempotency_key="k", dry_run=True))
    assert dry.status_code == 201


def test_api_10_2_racing_idempotency_keys_make_one_instance(api: Api):
    body = api.body(api.sequence(step("a")), idempotency_key="k")
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda _: api.http.post("/instances", json=body), range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert len(api.http.get("/instances").json()["items"]) == 1


def test_api_10_2_racing_batches_with_crossed_keys_all_succeed(api: Api):
    sequence = api.sequence(step("a"))
    keys = [f"k{number}" for number in range(20)]
    batches = [keys if number % 2 else keys[::-1] for number in range(8)]

    def post(batch: list[str]) -> int:
        body = {"instances": [api.body(sequence, idempotency_key=key) for key in batch]}
        return api.http.post("/instances/batch", json=body).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(post, batches)) == {201}
    assert len(api.http.get("/instances").json()["items"]) == 20


# -- §10.3 -----------------------------------------------------------------------------------------------------------


def test_api_10_3_batch(api: Api):
    sequence = api.sequence(step("a"))
    answer = api.http.post("/instances/batch", json={"instances": [api.body(sequence)] * 3})
    assert (answer.status_code, answer.json()) == (201, {"count": 3})
    empty = api.http.post("/instances/batch", json={"instances": []})
    assert (empty.status_code, empty.json()) == (200, {"count": 0})
    assert api.http.post("/instances/batch", json={}).status_code == 422
    assert api.http.post("/instances/batch", json={"instances": [{}]}).status_code == 422


def test_api_10_3_one_bad_entry_refuses_all(api: Api):
    good = api.body(api.sequence(step("a")))
    for change, status, text in (
        ({"sequence_id": str(uuid4())}, 404, "not found: instances[1]: sequence not found"),
        ({"tenant_id": "other"}, 403, "forbidden: "),
        ({"namespace": ""}, 400, "invalid argument: "),
    ):
        answer = api.http.post("/instances/batch", json={"instances": [good, {**good, **change}]})
        assert answer.status_code == status
        assert answer.json()["error"].startswith(text)
    assert api.http.get("/instances").json()["items"] == []


def test_api_10_3_more_than_10_000_is_400(api: Api):
    body = api.body(str(uuid4()))
    assert api.http.post("/instances/batch", json={"instances": [body] * 10_001}).status_code == 400


def test_api_10_3_ten_thousand_are_accepted(api: Api):
    body = api.body(api.sequence(step("a")))
    answer = api.http.post("/instances/batch", json={"instances": [body] * 10_000})
    assert answer.json() == {"count": 10_000}


# -- §10.4 -----------------------------------------------------------------------------------------------------------


def test_api_10_4_lists_are_filtered_and_know_if_there_is_more(api: Api):
    sequence, other = api.sequence(step("a")), api.sequence(step("a"))
    first = api.start_of(sequence, metadata={"color": "red", "size": 5})
    second = api.start_of(other, namespace="n2", metadata={"color": "red", "size": "5"})
    api.signal(first, "cancel")

    def found(**query: Any) -> list[str]:
        return [each["id"] for each in api.http.get("/instances", params=query).json()["items"]]

    assert found() == [first, second]
    assert found(namespace="n2") == [second]
    assert found(sequence_id=sequence) == [first]
    assert found(state="cancelled,failed") == [first]
    assert found(**{"metadata.color": "red"}) == [first, second]
    assert found(**{"metadata.color": "red", "metadata.size": "5", "state": "waiting"}) == [second]
    assert found(**{"metadata.color": "blue"}) == []
    assert found(limit=5000) == [first, second]
    page = api.http.get("/instances", params={"limit": 1}).json()
    assert ([each["id"] for each in page["items"]], page["has_more"]) == ([first], True)
    page = api.http.get("/instances", params={"limit": 1, "offset": 1}).json()
    assert ([each["id"] for each in page["items"]], page["has_more"]) == ([second], False)


def test_api_10_4_a_list_shows_each_instance_as_reading_it_does(api: Api):
    deep: dict[str, Any] = {"end": None}
    for _ in range(50):
        deep = {"in": deep}
    body = [step("b", params={"item": "{{ it }}"}), step("c")]
    each = {"type": "for_each", "id": "f", "collection": "many", "item_var": "it", "body": body}
    data = {"many": ["größe", {"x": 1.0}], "big": 2**63, "small": 1e-7, "quote": '"\\\n\u0001', "_externalized": True}
    started = [
        api.start(each, data=data, metadata={"n": 1.5}, budget={"max_steps": 5}),
        api.start(each, step("a"), data={"many": [], "it": "mine", "stored apart": "x" * 100_000}),
        api.start(step("a"), data={"looks stored apart": {"_externalized": True, "_ref": "data:x"}}),
        api.start(step("a"), context={"data": deep, "config": {"k": [1, None]}}),
        api.start(step("a"), context={"data": "text", "config": ["enc:v1:x"]}),
        api.start(step("a")),
    ]
    api.signal(started[-1], "cancel")
    api.poll()
    answer = api.http.get("/instances")
    listed = {each["id"]: each for each in answer.json()["items"]}
    assert listed == {each: api.instance(each) for each in started}
    assert listed[started[0]]["context"]["data"] == {**data, "it": "größe"}
    assert all(api.http.get(f"/instances/{each}").content in answer.content for each in started)


@pytest.mark.parametrize(
    "query", [{"limit": "x"}, {"limit": -1}, {"offset": -1}, {"sequence_id": "x"}, {"state": "odd"}]
)
def test_api_10_4_bad_filters_are_400(api: Api, query: dict[str, Any]):
    for path in ("/instances", "/instances/dlq"):
        assert api.http.get(path, params=query).status_code == 400


@pytest.mark.parametrize("offset", [2**63 - 1, 2**63, 10**40])
def test_api_10_4_huge_offsets_do_not_break(api: Api, offset: int):
    assert api.http.get("/instances", params={"offset": offset}).status_code in {200, 400}


@pytest.mark.parametrize("part", ["", "/outputs", "/tree", "/audit", "/attempts"])
def test_api_10_4_reads_of_unknown_instances_are_404(api: Api, part: str):
    missing = uuid4()
    answer = api.http.get(f"/instances/{missing}{part}")
    assert answer.status_code == 404
    assert answer.json() == {"error": f"not found: instance {missing}"}


def test_api_10_4_outputs_are_rows_in_order(api: Api):
    instance = api.start(step("a"), step("b", "noop"))
    assert api.outputs(instance) == []
    api.complete({"x": 1})
    api.run_builtins()
    rows = api.outputs(instance)
    assert [row["block_id"] for row in rows] == ["a", "b"]
    keys = {"id", "instance_id", "block_id", "output", "output_ref", "output_size", "attempt", "created_at"}
    assert all(row.keys() == keys for row in rows)
    assert (rows[0]["output"], rows[0]["output_ref"], rows[0]["attempt"]) == ({"x": 1}, None, 0)
    assert rows[0]["output_size"] == len('{"x":1}')
    assert rows[0]["id"] < rows[1]["id"]


def test_api_10_4_audit_is_newest_first_and_without_the_first_claim(api: Api):
    instance = api.start(step("a", "noop"), next_fire_at=LATER)
    assert api.http.get(f"/instances/{instance}/audit").json() == []
    api.pass_time()
    api.run_builtins()
    rows = api.http.get(f"/instances/{instance}/audit").json()
    assert [(row["from_state"], row["to_state"]) for row in rows] == [("running", "completed")]
    row = rows[0]
    assert (row["event_type"], row["instance_id"], row["tenant_id"]) == ("state_transition", instance, TENANT)
    assert "block_id" not in row
    UUID(row["id"])
    moment(row["created_at"])


def test_api_10_4_client_patches_are_no_audit_rows(api: Api):
    instance = api.start(step("a"), next_fire_at=LATER)
    api.http.patch(f"/instances/{instance}/state", json={"state": "paused"})
    assert api.http.get(f"/instances/{instance}/audit").json() == []


def test_api_10_4_dlq_is_a_bare_array_of_failed_instances(api: Api):
    good, bad = api.start(step("a", "noop")), api.start(step("a", "fail"), metadata={"k": "v"})
    api.run_builtins()
    assert api.state(good) == "completed"
    assert [each["id"] for each in api.http.get("/instances/dlq").json()] == [bad]
    assert [each["id"] for each in api.http.get("/instances/dlq", params={"metadata.k": "v"}).json()] == [bad]
    assert api.http.get("/instances/dlq", params={"namespace": "x"}).json() == []


def test_attempts_tell_the_history_of_executions(api: Api):
    retry = {"max_attempts": 2, "initial_backoff": 1, "max_backoff": 1}
    instance = api.start(step("a", retry=retry))
    api.fail("first", retryable=True)
    api.pass_time()
    api.complete({})
    rows = api.http.get(f"/instances/{instance}/attempts").json()
    assert [(row["attempt"], row["outcome"], row["handler"]) for row in rows] == [
        (0, "failed", "outside"),
        (1, "completed", "outside"),
    ]
    assert rows[0]["error"]["message"] == "first"
    assert api.outputs(instance)[0]["attempt"] == 1


# -- tree ------------------------------------------------------------------------------------------------------------


def test_api_10_4_tree_fields_and_parents(api: Api):
    routes = [{"condition": "false", "blocks": [step("no")]}, {"condition": "true", "blocks": [step("yes")]}]
    router = {"type": "router", "id": "r", "routes": routes, "default": [step("other")]}
    instance = api.start(router, step("end", "noop"))
    tree = api.tree(instance)
    keys = [
        "id",
        "instance_id",
        "block_id",
        "parent_id",
        "block_type",
        "branch_index",
        "state",
        "started_at",
        "completed_at",
    ]
    assert all(list(node) == keys for node in tree.values())
    assert tree["r"]["block_type"] == "router"
    assert {name: tree[name]["branch_index"] for name in ("no", "yes", "other", "r", "end")} == {
        "no": 0,
        "yes": 1,
        "other": 2,
        "r": None,
        "end": None,
    }
    assert {tree[name]["parent_id"] for name in ("no", "yes", "other")} == {tree["r"]["id"]}
    assert tree["r"]["parent_id"] is None
    assert api.states(instance) == {
        "r": "running",
        "no": "skipped",
        "yes": "waiting",
        "other": "skipped",
        "end": "pending",
    }
    api.complete({})
    api.run_builtins()
    assert api.states(instance) == {
        "r": "completed",
        "no": "skipped",
        "yes": "completed",
        "other": "skipped",
        "end": "completed",
    }
    assert moment(api.tree(instance)["yes"]["started_at"]) <= moment(api.tree(instance)["yes"]["completed_at"])


def test_sequences_10_nothing_is_open_after_a_failure(api: Api):
    failing = {"type": "parallel", "id": "p", "branches": [[step("f", "fail"), step("after")], [step("ok", "noop")]]}
    instance = api.start(failing, step("last"))
    api.run_builtins()
    assert api.state(instance) == "failed"
    assert api.states(instance) == {
        "p": "failed",
        "f": "failed",
        "after": "cancelled",
        "ok": "completed",
        "last": "cancelled",
    }


# -- §10.5 -----------------------------------------------------------------------------------------------------------


def patch_state(api: Api, instance: str, state: str, **fields: Any) -> Any:
    return api.http.patch(f"/instances/{instance}/state", json={"state": state, **fields})


def test_api_10_5_patch_state_pauses_and_lets_go_on(api: Api):
    instance = api.start(step("a", "noop"), next_fire_at=LATER)
    answer = patch_state(api, instance, "paused")
    assert (answer.status_code, answer.content) == (200, b"")
    assert api.state(instance) == "paused"
    assert patch_state(api, instance, "scheduled").status_code == 200
    api.run_builtins()
    assert api.state(instance) == "completed"


def test_api_10_5_patch_state_with_a_time(api: Api):
    instance = api.start(step("a", "noop"), next_fire_at=LATER)
    patch_state(api, instance, "paused")
    assert patch_state(api, instance, "scheduled", next_fire_at="2098-01-01T00:00:00Z").status_code == 200
    read = api.instance(instance)
    assert (read["state"], read["next_fire_at"]) == ("scheduled", "2098-01-01T00:00:00Z")


WAITS = {
    "a delay": step("a", "noop", delay={"duration": 60_000}),
    "a back-off": step(
        "a",
        "fail",
        params={"retryable": True},
        retry={"max_attempts": 2, "initial_backoff": 60_000, "max_backoff": 60_000},
    ),
    "an iteration": {
        "type": "loop",
        "id": "l",
        "condition": "true",
        "body": [step("a", "noop")],
        "poll_interval": 60,
        "max_iterations": 2,
    },
    "a person": step("a", "noop", wait_for_input={}),
    "a worker": step("a"),
}


@pytest.mark.parametrize("block", WAITS.values(), ids=WAITS)
def test_api_10_5_nothing_goes_on_before_the_time_of_a_patch(api: Api, block: dict[str, Any]):
    instance = api.start(block)
    api.run_builtins()
    if api.state(instance) == "scheduled":
        patch_state(api, instance, "paused")
    assert patch_state(api, instance, "scheduled", next_fire_at=LATER).status_code == 200
    for signal in ("resume", "update_context"):
        assert api.signal(instance, signal, {"data": {"x": 1}}).status_code == 201
    read = api.instance(instance)
    assert (read["state"], read["next_fire_at"], api.poll()) == ("scheduled", LATER, [])
    api.pass_time()
    read = api.instance(instance)
    assert (read["state"] == "paused", read["next_fire_at"] == LATER) == (False, False)


def test_api_10_5_a_flow_with_a_time_of_a_patch_is_paused_and_goes_on_at_once(api: Api):
    instance = api.start(step("a", "noop", wait_for_input={}), step("b", "noop"))
    patch_state(api, instance, "scheduled", next_fire_at=LATER)
    assert api.signal(instance, {"custom": "human_input:a"}, {"value": "yes"}).status_code == 201
    api.run_builtins()
    assert (api.state(instance), api.states(instance)["b"]) == ("scheduled", "pending")
    api.signal(instance, "pause")
    read = api.instance(instance)
    assert (read["state"], read["next_fire_at"]) == ("paused", None)
    api.signal(instance, "resume")
    api.run_builtins()
    assert api.state(instance) == "completed"


def composite(kind: str, *body: dict[str, Any]) -> dict[str, Any]:
    forms: dict[str, dict[str, Any]] = {
        "for_each": {"collection": "items", "body": list(body)},
        "loop": {"condition": "iteration < 2", "body": list(body)},
        "router": {"routes": [{"condition": "true", "blocks": list(body)}]},
        "a_b_split": {
            "variants": [{"name": name, "weight": 1, "blocks": list(body)[:at]} for at, name in ((0, "x"), (1, "y"))]
        },
        "try_catch": {"try_block": list(body), "catch_block": []},
        "race": {"branches": [list(body)]},
        "saga": {"steps": [{"id": "s1", "action": each} for each in body]},
    }
    return {"type": kind, "id": "c", **forms[kind]}


@pytest.mark.parametrize("kind", ["for_each", "loop", "router", "a_b_split", "try_catch", "race", "saga"])
def test_api_10_5_a_block_that_a_cancel_has_turned_away_begins_when_the_flow_is_scheduled_again(api: Api, kind: str):
    scope = {"type": "cancellation_scope", "id": "scope", "blocks": [step("a")]}
    instance = api.start(scope, composite(kind, step("b", "noop")), data={"items": [1, 2]})
    api.signal(instance, "cancel")
    api.complete({})
    assert (api.state(instance), api.states(instance)["c"]) == ("cancelled", "cancelled")
    assert patch_state(api, instance, "scheduled").status_code == 200
    api.run_builtins()
    assert (api.state(instance), api.states(instance)["c"]) == ("completed", "completed")


def test_api_10_5_disallowed_moves_are_400_and_named(api: Api):
    instance = api.start(step("a"), next_fire_at=LATER)
    answer = patch_state(api, instance, "completed")
    assert answer.status_code == 400
    assert "cannot transition from scheduled to completed" in answer.json()["error"]
    assert patch_state(api, instance, "odd").status_code == 422
    assert patch_state(api, instance, "paused", next_fire_at=5).status_code == 422
    assert patch_state(api, str(uuid4()), "paused").status_code == 404


def test_api_10_5_cancelling_by_patch_withdraws_the_task(api: Api):
    instance = api.start(step("a"))
    (task,) = api.poll()
    assert patch_state(api, instance, "cancelled").status_code == 200
    assert api.report(task, "complete", output={"late": 1}).status_code == 200
    assert (api.state(instance), api.outputs(instance)) == ("cancelled", [])


def test_api_10_5_patch_context_replaces(api: Api):
    instance = api.start(step("a"), data={"x": 1, "y": 2})
    answer = api.http.patch(f"/instances/{instance}/context", json={"context": {"data": {"z": 3}}})
    assert (answer.status_code, answer.content) == (200, b"")
    context = api.instance(instance)["context"]
    assert (context["data"], context["config"]) == ({"z": 3}, None)
    assert api.http.patch(f"/instances/{instance}/context", json={}).status_code == 422
    too_large = {"context": {"data": {"x": "y" * 300_000}}}
    assert api.http.patch(f"/instances/{instance}/context", json=too_large).status_code == 413
    assert api.http.patch(f"/instances/{uuid4()}/context", json={"context": {}}).status_code == 404
    api.signal(instance, "cancel")
    assert api.http.patch(f"/instances/{instance}/context", json={"context": {"data": 1}}).status_code == 200
    assert (api.state(instance), api.instance(instance)["context"]["data"]) == ("cancelled", 1)


@pytest.mark.parametrize("body", [None, {}, {"any": 1}])
def test_api_10_5_retry_opens_failed_instances_only(api: Api, body: Any):
    instance = api.start(step("a"), step("b"))
    path = f"/instances/{instance}/retry"
    refused = api.http.post(path, json=body)
    assert refused.status_code == 400
    expected = "invalid argument: can only retry failed instances, current state: waiting"
    assert refused.json() == {"error": expected}
    api.complete({"first": 1})
    api.fail()
    answer = api.http.post(path, json=body) if body is not None else api.http.post(path)
    assert (answer.status_code, answer.json()) == (200, {"id": instance, "state": "scheduled"})
    api.complete({})
    assert api.state(instance) == "completed"
    assert [row["block_id"] for row in api.outputs(instance)] == ["a", "b"]


def test_api_10_5_retry_of_the_unknown_is_404(api: Api):
    assert api.http.post(f"/instances/{uuid4()}/retry").status_code == 404
    assert api.http.post(f"/instances/{uuid4()}/retry", json=[1]).status_code == 422


# -- the items of for_eachs (sequences §3.5) ---------------------------------------------------------------------------


def for_each(block_id: str, collection: str, *body: Any, **fields: Any) -> dict[str, Any]:
    return {"type": "for_each", "id": block_id, "collection": collection, "body": list(body), **fields}


def data_shown(api: Api, instance_id: str, *, session: str | None = None) -> Any:
    """Read the data wherever clients can see them; all places must agree."""
    timeline = api.http.get(f"/instances/{instance_id}/timeline").json()
    seen = [api.instance(instance_id), timeline["instance"]]
    lists = ["/instances?limit=1000"] + ([f"/sessions/{session}/instances"] if session else [])
    for path in lists:
        found = api.http.get(path).json()
        seen += [one for one in (found["items"] if isinstance(found, dict) else found) if one["id"] == instance_id]
    assert len(seen) == 2 + len(lists)
    assert all(one["context"] == seen[0]["context"] for one in seen)
    return seen[0]["context"]["data"]


def test_s3_5_the_item_is_in_the_data_while_the_body_runs_and_gone_when_the_block_has_ended(api: Api):
    session = api.http.post("/sessions", json={"tenant_id": TENANT, "session_key": "items"}).json()["id"]
    data = {"items": [{"id": 1}, {"id": 2}]}
    flow = api.start(for_each("f", "items", step("a")), step("z"), data=data, session_id=session)
    assert data_shown(api, flow, session=session) == {**data, "item": {"id": 1}}
    api.complete({"out": 1})
    assert data_shown(api, flow, session=session) == {**data, "out": 1, "item": {"id": 2}}
    assert api.http.patch(f"/instances/{flow}/context", json={"context": {"data": {"new": 1}}}).status_code == 200
    assert data_shown(api, flow, session=session) == {"new": 1, "item": {"id": 2}}
    api.complete()
    assert data_shown(api, flow, session=session) == {"new": 1}
    api.complete()
    assert (api.state(flow), data_shown(api, flow, session=session)) == ("completed", {"new": 1})


def test_s3_5_the_inner_item_shadows_the_outer_one_in_the_data(api: Api):
    inner = for_each("inner", "inners", step("b"))
    flow = api.start(for_each("outer", "outers", inner, step("a")), data={"outers": [1], "inners": [2]})
    assert data_shown(api, flow)["item"] == 2
    api.complete()
    assert data_shown(api, flow)["item"] == 1


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_s3_5_the_item_is_gone_from_the_data_of_a_flow_that_failed_or_was_cancelled(api: Api, end: str):
    flow = api.start(for_each("f", "items", step("a"), item_var="x"), data={"items": [1]})
    assert data_shown(api, flow) == {"items": [1], "x": 1}
    if end == "fail":
        (task,) = api.poll()
        assert api.report(task, "fail", message="no").status_code == 200
    else:
        assert api.http.post(f"/instances/{flow}/signals", json={"signal_type": "cancel"}).status_code == 201
    assert (api.state(flow), data_shown(api, flow)) == ("failed" if end == "fail" else "cancelled", {"items": [1]})
    if end == "fail":
        assert api.http.post(f"/instances/{flow}/retry").status_code == 200
        assert data_shown(api, flow) == {"items": [1], "x": 1}


def test_s3_5_items_of_a_caught_failure_and_of_concurrent_rounds_are_not_in_the_data(api: Api):
    failing = {"type": "try_catch", "id": "t", "try_block": [for_each("f", "items", step("a"))], "catch_block": []}
    both = for_each("c", "items", for_each("inner", "items", step("b"), item_var="y"), item_var="x", concurrency=2)
    flow = api.start(failing, both, data={"items": [1, 2]})
    (task,) = api.poll()
    assert api.report(task, "fail", message="no").status_code == 200
    shown = data_shown(api, flow)
    assert {name for name in shown if name != "_error"} == {"items"}
