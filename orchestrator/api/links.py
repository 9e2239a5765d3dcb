"""Links of the OpenAPI document: which operations an answer that creates something leads to (OpenAPI 3.1, §4.8.20)."""

import re
from typing import Any, Final

_MEMBER_OF: Final = {
    "/sequences": ("id", "id"),
    "/instances": ("id", "id"),
    "/sequences/{name}/instances": ("id", "id"),
    "/sessions": ("id", "id"),
    "/pools": ("id", "id"),
    "/plugins": ("name", "name"),
    "/events": ("event_id", "id"),
    "/triggers": ("slug", "slug"),
    "/cron": ("id", "id"),
    "/credentials": ("id", "id"),
    "/workers/commands": ("id", "id"),
    "/routing-rules": ("id", "id"),
    "/api-keys": ("id", "id"),
}
"""Where things are created: the member of the answer that names them, and the parameter of the paths that want it."""
_MADE_BY: Final = {"/sequences/{name}/instances": "/instances"}
"""What creates members of another collection."""
_OF_A_SEQUENCE: Final = {
    "sequence_id": "$response.body#/id",
    "tenant_id": "$request.body#/tenant_id",
    "namespace": "$request.body#/namespace",
}
"""What starts an instance of the sequence that was stored."""
_NOT_THERE_YET: Final = frozenset({"/instances/{id}/checkpoints/latest"})
"""What a new member of a collection lacks."""
_PARAMETERS: Final = re.compile(r"\{(\w+)\}")


def add_links(paths: dict[str, Any], prefix: str) -> None:
    """Lead from each answer that creates something to every operation that needs no more than its name, and finds it.

    Args:
        paths: Of the document; changed.
        prefix: What all addresses begin with that create something.
    """
    for made_at, (member, parameter) in _MEMBER_OF.items():
        create = paths[f"{prefix}{made_at}"]["post"]
        collection = prefix + _MADE_BY.get(made_at, made_at)
        links = {
            operation["operationId"]: {
                "operationId": operation["operationId"],
                "parameters": {parameter: f"$response.body#/{member}"},
            }
            for path, operations in paths.items()
            if path.startswith(f"{collection}/") and _PARAMETERS.findall(path) == [parameter]
            if path.startswith(f"{collection}/{{{parameter}}}") and path.removeprefix(prefix) not in _NOT_THERE_YET
            for operation in operations.values()
        }
        create["responses"]["201"]["links"] = links
    stored = paths[f"{prefix}/sequences"]["post"]["responses"]["201"]["links"]
    start = paths[f"{prefix}/instances"]["post"]["operationId"]
    stored[start] = {"operationId": start, "requestBody": _OF_A_SEQUENCE}
