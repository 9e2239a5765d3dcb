"""The language's tools over HTTP (sequences §15; api §9, §21)."""

from typing import Any
from uuid import uuid4

import jsonschema_rs
import pytest

from tests.contract.client import Api, definition, step

SCHEMA = {"type": "object", "required": ["x"], "properties": {"x": {"type": "string"}}, "additionalProperties": False}


def draft(**fields: Any) -> dict[str, Any]:
    return definition(
        step("a", "noop", output_schema=SCHEMA),
        step("b", "noop", params={"x": "{{ outputs.a.x }}", "y": "{{ outputs.gone.y }}"}),
        **fields,
    )


def test_s15_1_a_draft_is_analysed_and_not_stored_and_is_the_same_once_stored(api: Api):
    document = draft()
    first = api.http.post("/sequences/dataflow", json=document)
    assert first.status_code == 200
    assert [finding["code"] for finding in first.json()["report"]["findings"]] == ["MISSING_PRODUCER"]
    assert set(first.json()["report"]["findings"][0]) == {"code", "severity", "consumer", "reference", "summary"}
    assert api.http.get(f"/sequences/{document['id']}").status_code == 404
    reordered = dict(reversed(document.items()))
    assert api.http.post("/sequences/dataflow", json=reordered).json() == first.json()
    assert api.http.post("/sequences", json=document).status_code == 201
    assert api.http.get(f"/sequences/{document['id']}/dataflow").json() == first.json()
    api.http.post(f"/sequences/{document['id']}/deprecate")
    assert api.http.get(f"/sequences/{document['id']}/dataflow").json() == first.json()


def test_s15_1_unknown_sequence_is_404(api: Api):
    assert api.http.get(f"/sequences/{uuid4()}/dataflow").status_code == 404
    assert api.http.get(f"/sequences/{uuid4()}/preflight").status_code == 404


@pytest.mark.parametrize("path", ["dataflow", "preflight", "inspect-template"])
def test_s15_1_a_draft_of_the_wrong_shape_is_422_and_of_another_tenant_403(api: Api, path: str):
    assert api.http.post(f"/sequences/{path}", json={**draft(), "created_at": None}).status_code == 422
    assert api.http.post(f"/sequences/{path}", json=draft(tenant_id="other")).status_code == 403


def test_s15_1_limits_are_400(api: Api):
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(50):
        schema = {"type": "object", "properties": {"x": schema}}
    wide = {"type": "object", "properties": {f"p{n}": {} for n in range(5000)}}
    for input_schema, text in ((schema, "depth limit"), (wide, "node limit")):
        document = draft(input_schema=input_schema)
        assert text in api.http.post("/sequences/dataflow", json=document).json()["error"]
        assert api.http.post("/sequences", json=document).status_code == 201
        answer = api.http.get(f"/sequences/{document['id']}/dataflow")
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("invalid argument: ")


def test_s15_1_a_broken_draft_is_400_and_shorthand_is_understood(api: Api):
    assert api.http.post("/sequences/dataflow", json=definition()).status_code == 400
    short = {"id": "short", "blocks": [{"handler": "noop", "params": "{{ outputs.gone.x }}"}]}
    answers = [api.http.post("/sequences/dataflow", json=short).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0]["report"]["findings"][0]["consumer"] == "noop"


def test_api_9_preflight_of_a_draft_and_of_a_stored_sequence(api: Api):
    document = definition(step("a", "noop"))
    answer = api.http.post("/sequences/preflight", json=document)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["sequence_name"], body["sequence_version"], body["overall"]) == (document["name"], 1, "pass")
    assert body["generated_at"].endswith("Z")
    ids = {check["id"]: check["status"] for check in body["checks"]}
    assert {"definition_valid", "when_guards_valid", "output_schemas_valid", "typed_dataflow_compatible"} <= set(ids)
    assert api.http.get(f"/sequences/{document['id']}").status_code == 404
    stored = api.sequence(step("a", "noop", params="{{ outputs.gone.x }}"))
    body = api.http.get(f"/sequences/{stored}/preflight").json()
    assert body["overall"] == "fail"
    assert {check["id"]: check["status"] for check in body["checks"]}["typed_dataflow_compatible"] == "fail"


def test_api_9_preflight_of_a_draft_that_cannot_be_stored_fails(api: Api):
    body = api.http.post("/sequences/preflight", json=definition()).json()
    assert body["overall"] == "fail"
    (check,) = (check for check in body["checks"] if check["id"] == "definition_valid")
    assert check["findings"] == [{"summary": "block `(root)`: sequence has no blocks"}]


def test_s15_2_debugging_a_template(api: Api):
    body = {
        "template": "{{ data.user }} {{ context.config.k }} {{ outputs.a.x }} {{ data.none | x }}",
        "context_data": {"user": "Ann", "none": None},
        "context_config": {"k": "sk_live_abc"},
        "outputs": {"a": {"x": 1}},
    }
    answer = api.http.post("/debug/template", json=body)
    assert answer.status_code == 200
    assert answer.json()["result"] == "Ann [REDACTED] 1 x"
    assert [entry["status"] for entry in answer.json()["entries"]] == ["ok", "redacted", "ok", "ok"]
    assert answer.json()["entries"][3] == {
        "expression": "data.none | x",
        "status": "ok",
        "source": "literal",
        "fallback_used": True,
        "coerced_to_string": False,
    }
    failed = api.http.post("/debug/template", json={"template": "{{ nothing.x }}"})
    assert (failed.status_code, failed.json()["error"]) == (200, "unknown template root: nothing.x")
    assert "result" not in failed.json()
    assert api.http.post("/debug/template", json={"template": "plain"}).json() == {
        "result": "plain",
        "result_type": "string",
        "entries": [],
    }
    assert api.http.post("/debug/template", json={}).status_code == 422


def test_api_21_inspecting_a_draft_and_a_template(api: Api):
    answer = api.http.post("/sequences/inspect-template", json=draft()).json()
    assert answer["reads"] == {"outputs": ["outputs.a.x", "outputs.gone.y"]}
    assert any("unknown block `gone`" in warning for warning in answer["warnings"])
    answer = api.http.post("/sequences/inspect-template", json={"template": "{{ data.x | upper }}"}).json()
    assert answer["templates"][0]["expressions"][0]["filters"] == ["upper"]


def test_s16_the_schema_of_the_language_is_published(api: Api):
    whole = api.http.get("/sequences/schema").json()
    assert jsonschema_rs.validator_for(whole).is_valid(draft())
    short = jsonschema_rs.validator_for(api.http.get("/sequences/schema", params={"form": "shorthand"}).json())
    assert short.is_valid({"id": "short", "blocks": [{"handler": "noop"}]})
    assert not short.is_valid(draft())
    assert api.http.get("/sequences/schema", params={"form": "other"}).status_code == 400
