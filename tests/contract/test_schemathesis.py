"""Every answer is as the OpenAPI document says: the short form, the same requests each time (`make contract-fuzz`)."""

from pathlib import Path

import httpx

from orchestrator import embedded
from tests.contract.client import CALL, Api
from tests.contract.fuzzing import Run, faults_of, fuzz, installation, still_works

SHORT = Run(
    phases=("coverage",),
    examples=1,
    only=r"^/(info|metrics|webhooks/\{slug\})$|^/api/v1/(sessions|pools|events|triggers|workers/tasks|instances/\{id\})",
    is_same=True,
)


def test_answers_of_a_running_installation_are_as_the_document_says(
    servers: embedded.Servers, migrated_template: str, tmp_path: Path
) -> None:
    with installation(tmp_path, servers, migrated_template) as stack:
        result = fuzz(stack.api_url, tmp_path, SHORT)
        assert result.returncode == 0, result.stdout
        assert "No issues found" in result.stdout
        assert faults_of(stack) == []
        still_works(stack)


def test_fixed_address_is_no_member_of_its_collection(api: Api) -> None:
    answer = api.http.delete("/sequences/by-name")
    assert (answer.status_code, answer.headers["allow"], answer.content) == (405, "GET, HEAD", b"")
    assert api.http.delete("/sequences/no-id").status_code == 400


def test_links_lead_from_what_was_created_to_it(api: Api) -> None:
    document = httpx.get(f"{api.root}/api-docs/openapi.json", headers=api.http.headers, **CALL).json()
    paths = {
        operation["operationId"]: path
        for path, operations in document["paths"].items()
        for operation in operations.values()
    }
    links = document["paths"]["/api/v1/pools"]["post"]["responses"]["201"]["links"]
    assert {paths[link["operationId"]] for link in links.values()} == {
        "/api/v1/pools/{id}",
        "/api/v1/pools/{id}/resources",
    }
    stored = document["paths"]["/api/v1/sequences"]["post"]["responses"]["201"]["links"]
    [starting] = [link for link in stored.values() if paths[link["operationId"]] == "/api/v1/instances"]
    assert starting["requestBody"]["sequence_id"] == "$response.body#/id"
    body = {"tenant_id": "acme", "name": "p", "strategy": "random"}
    made = api.http.post("/pools", json=body).json()
    for link in links.values():
        assert link["parameters"] == {"id": "$response.body#/id"}
    assert api.http.get(f"/pools/{made['id']}").status_code == 200
