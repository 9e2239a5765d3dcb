"""Sequences over HTTP (contract, api §5, §9; sequences §1, §16)."""

import copy
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.contract.client import TENANT, Api, definition, step
from tests.unit.sequences.language_documents import AROUND, nested


def post(api: Api, document: Any) -> httpx.Response:
    return api.http.post("/sequences", json=document)


def test_api_9_create_is_201_with_the_id_and_without_empty_warnings(api: Api):
    document = definition(step("a", "noop"))
    answer = post(api, document)
    assert answer.status_code == 201
    assert answer.json() == {"id": document["id"]}


def test_api_9_warnings_do_not_refuse(api: Api):
    answer = post(api, definition(step("a", "slep")))
    assert answer.status_code == 201
    assert any("sleep" in warning for warning in answer.json()["warnings"])


def test_members_without_effect_are_named_in_the_warnings(api: Api):
    answer = post(api, definition(step("a", deadline=5000, rate_limit_key="k"), on_failure=[step("clean")]))
    assert answer.json()["warnings"] == ["block `a`: `rate_limit_key` has no effect in this version"]


def test_api_5_1_what_is_read_back_is_what_was_posted_with_defaults(api: Api):
    document = definition(step("a", "noop", retry={"max_attempts": 3, "initial_backoff": 1000, "max_backoff": 0.5 * 8}))
    posted = copy.deepcopy(document)
    sequence = post(api, document).json()["id"]
    read = api.http.get(f"/sequences/{sequence}").json()
    assert read["created_at"] == posted["created_at"]
    assert read["deprecated"] is False
    assert read["status"] == "production"
    assert "input_schema" not in read
    block = read["blocks"][0]
    assert block["retry"] == {
        "max_attempts": 3,
        "initial_backoff": 1000,
        "max_backoff": 4000,
        "backoff_multiplier": 2.0,
    }
    assert (block["params"], block["delay"], block["cancellable"]) == (None, None, True)


def test_api_9_known_id_or_name_and_version_is_409(api: Api):
    document = definition(step("a"))
    assert post(api, document).status_code == 201
    for again in (document, {**document, "id": str(uuid4())}, {**document, "name": "other"}):
        answer = post(api, again)
        assert answer.status_code == 409
        assert answer.json()["error"].startswith("already exists: ")
    assert post(api, {**document, "id": str(uuid4()), "version": 2}).status_code == 201


def test_api_9_missing_created_at_is_422_and_beats_400(api: Api):
    document = definition()
    assert post(api, document).status_code == 400
    del document["created_at"]
    assert post(api, document).status_code == 422


def test_api_9_foreign_tenant_is_403(api: Api):
    answer = post(api, definition(step("a"), tenant_id="other"))
    assert answer.status_code == 403
    assert answer.json()["error"].startswith("forbidden: ")


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        ({"blocks": []}, "block `(root)`: sequence has no blocks"),
        ({"blocks": [step("a"), step("a")]}, "duplicate block id: a"),
        ({"blocks": [step("")]}, "block id must not be empty"),
        ({"blocks": [step("a", "")]}, "handler name must not be empty"),
        ({"input_schema": 5}, "input_schema"),
        ({"namespace": "n" * 300}, "namespace"),
        ({"name": "n" * 3000}, "name"),
        ({"blocks": [step("b" * 3000)]}, "block id"),
        ({"blocks": [step("a", queue_name="q" * 300)]}, "queue_name"),
        ({"blocks": [step("a", "h" * 1025)]}, "handler name is longer than 1024 bytes"),
    ],
)
def test_api_5_4_broken_rules_are_400_and_named(api: Api, change: dict[str, Any], fragment: str):
    answer = post(api, {**definition(step("a")), **change})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith("invalid argument: ")
    assert fragment in answer.json()["error"]


@pytest.mark.parametrize("handler", ["h" * 1024, "é" * 512])
def test_api_13_2_every_handler_that_a_definition_names_can_be_polled(api: Api, handler: str):
    instance_id = api.start(step("a", handler))
    assert [task["instance_id"] for task in api.poll(handler)] == [instance_id]


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": [{"type": "unknown", "id": "a"}]},
        {"blocks": [{"type": "step", "id": "a"}]},
        {"blocks": [{"type": "step", "id": 5, "handler": "noop"}]},
        {"blocks": "none"},
        {"version": "1"},
        {"version": 2**40},
        {"id": "not-a-uuid"},
        {"tenant_id": " "},
        {"status": "unheard-of"},
        {"blocks": [step("a", timeout=-1)]},
    ],
)
def test_api_5_4_wrong_shapes_are_422(api: Api, change: dict[str, Any]):
    assert post(api, {**definition(step("a")), **change}).status_code == 422


@pytest.mark.parametrize("kind", ["parallel", "router"])
def test_api_5_4_64_levels_are_accepted_read_back_and_run(api: Api, kind: str):
    sequence = api.sequence(nested(64, kind))
    read = api.http.get(f"/sequences/{sequence}").json()["blocks"]
    assert read[0]["id"] == "level_62"
    instance = api.start_of(sequence)
    api.run_builtins()
    assert api.state(instance) == "completed"
    assert set(api.states(instance).values()) == {"completed"}


@pytest.mark.parametrize("kind", AROUND)
def test_api_5_4_65_levels_of_any_block_are_400(api: Api, kind: str):
    answer = post(api, definition(nested(65, kind)))
    assert answer.status_code == 400
    assert "nesting exceeds the maximum depth of 64" in answer.json()["error"]


def test_api_9_unknown_sequence_is_404_and_named(api: Api):
    missing = uuid4()
    answer = api.http.get(f"/sequences/{missing}")
    assert answer.status_code == 404
    assert answer.json() == {"error": f"not found: sequence {missing}"}


def test_api_9_list_is_ordered_and_knows_if_there_is_more(api: Api):
    for name, version in (("b", 1), ("a", 1), ("a", 2)):
        assert post(api, definition(step("s"), name=name, version=version)).status_code == 201
    page = api.http.get("/sequences", params={"limit": 2}).json()
    assert [(each["name"], each["version"]) for each in page["items"]] == [("a", 2), ("a", 1)]
    assert page["has_more"] is True
    rest = api.http.get("/sequences", params={"limit": 1, "offset": 2}).json()
    assert ([each["name"] for each in rest["items"]], rest["has_more"]) == (["b"], False)
    assert api.http.get("/sequences", params={"namespace": "other"}).json() == {"items": [], "has_more": False}


def test_api_9_by_name_takes_the_highest_version_that_is_not_deprecated(api: Api):
    ids = [post(api, definition(step("s"), name="n", version=v)).json()["id"] for v in (1, 2, 3)]
    query = {"tenant_id": TENANT, "namespace": "default", "name": "n"}
    assert api.http.get("/sequences/by-name", params=query).json()["id"] == ids[2]
    assert api.http.post(f"/sequences/{ids[2]}/deprecate").status_code == 204
    assert api.http.post(f"/sequences/{ids[2]}/deprecate").status_code == 204
    assert api.http.get("/sequences/by-name", params=query).json()["id"] == ids[1]
    assert api.http.get("/sequences/by-name", params={**query, "version": 3}).json()["id"] == ids[2]
    assert api.http.get(f"/sequences/{ids[2]}").json()["deprecated"] is True
    assert [each["id"] for each in api.http.get("/sequences/versions", params=query).json()] == [ids[1], ids[0]]
    assert api.http.get("/sequences/by-name", params={**query, "version": 4}).status_code == 404
    assert api.http.get("/sequences/by-name", params={**query, "version": "x"}).status_code == 400
    assert api.http.get("/sequences/versions", params={**query, "name": "unknown"}).json() == []


def test_api_9_deprecating_the_unknown_is_404(api: Api):
    assert api.http.post(f"/sequences/{uuid4()}/deprecate").status_code == 404


def test_api_20_9_deprecated_version_cannot_be_started_by_id(api: Api):
    sequence = api.sequence(step("a"))
    api.http.post(f"/sequences/{sequence}/deprecate")
    for path, body in (("", api.body(sequence)), ("/batch", {"instances": [api.body(sequence)]})):
        answer = api.http.post(f"/instances{path}", json=body)
        assert answer.status_code == 409
        assert answer.json() == {"error": f"conflict: sequence {sequence} is deprecated"}


# -- §16 -------------------------------------------------------------------------------------------------------------

SHORT = {"id": "greet", "blocks": [{"handler": "hello"}, {"handler": "hello"}]}


def test_sequences_16_shorthand_is_completed_and_numbered(api: Api):
    first = post(api, SHORT)
    assert first.status_code == 201
    stored = api.http.get(f"/sequences/{first.json()['id']}").json()
    assert (stored["name"], stored["version"], stored["tenant_id"], stored["namespace"]) == (
        "greet",
        1,
        TENANT,
        "default",
    )
    assert [block["id"] for block in stored["blocks"]] == ["hello", "hello_2"]
    UUID(stored["id"])


def test_sequences_16_same_content_is_200_and_new_content_a_new_version(api: Api):
    first = post(api, SHORT).json()["id"]
    again = post(api, SHORT)
    assert (again.status_code, again.json()["id"]) == (200, first)
    changed = post(api, {**SHORT, "blocks": [{"handler": "other"}]})
    assert changed.status_code == 201
    assert api.http.get(f"/sequences/{changed.json()['id']}").json()["version"] == 2
    back = post(api, SHORT)
    assert back.status_code == 201
    assert api.http.get(f"/sequences/{back.json()['id']}").json()["version"] == 3


def test_sequences_16_shorthand_without_blocks_is_422(api: Api):
    assert post(api, {"id": "greet"}).status_code == 422
    assert post(api, {"id": str(uuid4()), "blocks": SHORT["blocks"]}).status_code == 422


def test_sequences_16_racing_shorthand_gets_distinct_versions(api: Api):
    documents = [{"id": "race", "blocks": [{"handler": f"h{number}"}]} for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda document: post(api, document), documents))
    assert [answer.status_code for answer in answers] == [201] * 8
    query = {"tenant_id": TENANT, "namespace": "default", "name": "race"}
    versions = [each["version"] for each in api.http.get("/sequences/versions", params=query).json()]
    assert versions == [8, 7, 6, 5, 4, 3, 2, 1]


def test_api_20_1_start_by_name_or_id_takes_the_newest_version(api: Api):
    old = post(api, {"id": "n", "blocks": [{"handler": "one"}]}).json()["id"]
    new = post(api, {"id": "n", "blocks": [{"handler": "two"}]}).json()["id"]
    for name in ("n", old, new):
        answer = api.http.post(f"/sequences/{name}/instances", json={"context": {"data": {"x": 1}}})
        assert answer.status_code == 201
        instance = api.instance(answer.json()["id"])
        assert (instance["sequence_id"], instance["context"]["data"]) == (new, {"x": 1})
        assert (instance["tenant_id"], instance["namespace"]) == (TENANT, "default")
    pinned = api.http.post("/sequences/n/instances", json={"version": 1}).json()["id"]
    assert api.instance(pinned)["sequence_id"] == old
    assert api.http.post("/sequences/unknown/instances", json={}).status_code == 404
    assert api.http.post("/sequences/n/instances", json={"version": 9}).status_code == 404
    assert api.http.post("/sequences/n/instances", json={"tenant_id": "other"}).status_code == 403
    key = {"idempotency_key": "k"}
    first = api.http.post("/sequences/n/instances", json=key)
    again = api.http.post("/sequences/n/instances", json=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == {"id": first.json()["id"], "deduplicated": True}
