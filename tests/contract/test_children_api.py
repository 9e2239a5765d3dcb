"""Children over HTTP (contract, api §10.4; sequences §3.8)."""

from typing import Any
from uuid import uuid4

from tests.contract.client import Api, definition, step


def post_child(api: Api, *blocks: dict[str, Any], **fields: Any) -> str:
    """Post a sequence; returns its name."""
    document = definition(*blocks, **fields)
    assert api.http.post("/sequences", json=document).status_code == 201
    return document["name"]


def call(name: str, **fields: Any) -> dict[str, Any]:
    return {"type": "sub_sequence", "id": "call", "sequence_name": name, **fields}


def children(api: Api, instance_id: str) -> list[dict[str, Any]]:
    answer = api.http.get(f"/instances/{instance_id}/children")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_s3_8_parent_waits_for_its_child_and_keeps_its_rows(api: Api) -> None:
    name = post_child(api, step("inner"))
    budget = {"max_steps": 9}
    parent = api.start(
        call(name, input={"n": "{{ data.n }}"}), step("after", "noop"), data={"n": 1}, priority="High", budget=budget
    )
    (child,) = children(api, parent)
    assert (api.state(parent), api.states(parent)["call"], child["state"]) == ("waiting", "waiting", "waiting")
    assert (child["parent_instance_id"], child["context"]["data"]) == (parent, {"n": 1})
    assert (child["priority"], child["budget"], child["metadata"]) == ("High", budget, None)
    api.complete({"done": True})
    api.run_builtins()
    assert (api.state(parent), api.state(child["id"])) == ("completed", "completed")
    row, _ = api.outputs(parent)
    assert (row["block_id"], row["output"]) == ("call", api.outputs(child["id"]))


def test_s3_8_child_set_to_failed_by_hand_wakes_its_parent_at_once(api: Api) -> None:
    name = post_child(api, step("inner"))
    parent = api.start({"type": "try_catch", "id": "t", "try_block": [call(name)], "catch_block": [step("c", "noop")]})
    (child,) = children(api, parent)
    assert api.http.patch(f"/instances/{child['id']}/state", json={"state": "failed"}).status_code == 200
    assert api.states(parent)["call"] == "failed"
    api.run_builtins()
    assert api.state(parent) == "completed"


def test_s9_5_cancel_reaches_the_children(api: Api) -> None:
    name = post_child(api, step("inner"))
    parent = api.start(call(name))
    assert api.signal(parent, "cancel").status_code == 201
    assert [child["state"] for child in children(api, parent)] == ["cancelled"]
    assert api.poll() == []


def test_s3_8_a_deprecated_version_is_passed_over_unless_named(api: Api) -> None:
    name = post_child(api, step("inner", "noop"))
    sequence = api.http.get("/sequences/by-name", params={"tenant_id": "acme", "namespace": "default", "name": name})
    api.http.post(f"/sequences/{sequence.json()['id']}/deprecate")
    assert api.state(api.start(call(name))) == "failed"
    named = api.start(call(name, version=1))
    api.run_builtins()
    assert api.state(named) == "completed"


def test_api_10_4_children_of_nobody(api: Api) -> None:
    assert children(api, api.start(step("a"))) == []
    assert api.http.get(f"/instances/{uuid4()}/children").status_code == 404
    foreign = api.http.get(f"/instances/{api.start(step('a'))}/children", headers={"X-Tenant-Id": "other"})
    assert foreign.status_code == 404
