"""The description of the API: OpenAPI, and a page that shows it without loading anything from elsewhere."""

import html
from typing import Any

import orjson
from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from starlette.responses import HTMLResponse, Response

from orchestrator.api.answers import Json
from orchestrator.api.capabilities import PUBLIC_PATHS
from orchestrator.api.links import add_links

router = APIRouter()
_REFERENCE = "#/components/schemas/{model}"
_DESCRIPTION = (
    "Durable execution of sequences. Every endpoint below `/api/v1` also answers without that prefix, with "
    "deprecation headers. Requests name their tenant in `X-Tenant-Id` and their key in `x-api-key`."
)


_accepted: dict[str, type[BaseModel]] = {}
"""Shapes of request bodies, which FastAPI does not know: it does not read them."""


def accepts(shape: type[BaseModel], *, required: bool = True) -> dict[str, Any]:
    """Describe a request body; the endpoint itself reads and checks it."""
    content = {"application/json": {"schema": {"$ref": _REFERENCE.format(model=shape.__name__)}}}
    _accepted[shape.__name__] = shape
    return {"requestBody": {"required": required, "content": content}}


def known_or_new(shape: type[BaseModel], *, new: int = 201) -> dict[int | str, dict[str, Any]]:
    """Describe the two answers of an operation that makes each thing once."""
    return {200: {"model": shape, "description": "It was there already"}, new: {"model": shape}}


def describe(app: FastAPI, prefix: str) -> dict[str, Any]:
    """Build the OpenAPI document of an app; its addresses but a few begin with the prefix."""
    document = get_openapi(
        title="Orchestrator", version=app.version, description=_DESCRIPTION, routes=app.routes, openapi_version="3.1.0"
    )
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for path, operations in document["paths"].items():
        for operation in operations.values():
            if path in PUBLIC_PATHS:
                operation["security"] = []
            operation["responses"].pop("422", None)
            operation["responses"] = _refusals("requestBody" in operation) | operation["responses"]
    add_links(document["paths"], prefix)
    for name, shape in _accepted.items():
        written = shape.model_json_schema(ref_template=_REFERENCE)
        schemas |= {**written.pop("$defs", {}), name: written}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Refusal"] = {
        "title": "Refusal",
        "description": "Why a request was refused: a prefix for its kind, and a message.",
        "type": "object",
        "properties": {"error": {"type": "string"}},
        "required": ["error"],
    }
    document["components"]["securitySchemes"] = {
        "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        "tenant": {"type": "apiKey", "in": "header", "name": "X-Tenant-Id"},
    }
    document["security"] = [{"key": [], "tenant": []}]
    return document


def _refusals(has_body: bool) -> dict[str, Any]:
    """Describe how any operation may be refused; what a request looked like decides between the two forms of 4xx."""
    told = {"application/json": {"schema": {"$ref": _REFERENCE.format(model="Refusal")}}}
    either = told | {"text/plain": {"schema": {"type": "string"}}}
    refusals: dict[str, Any] = {
        "400": {"description": "An argument is invalid, or the tenant is missing (no body)", "content": either},
        "401": {"description": "The key is missing or unknown (no body), or a secret is wrong", "content": either},
        "403": {"description": "The key may not do this (it may have no body)", "content": either},
        "404": {"description": "There is no such thing for this tenant", "content": told},
        "409": {"description": "It exists already, or its state does not allow it", "content": told},
        "429": {"description": "Too many requests", "content": told},
        "500": {"description": "A fault of the server, which its log explains", "content": told},
        "503": {"description": "The store does not answer now; try again", "content": told},
    }
    if has_body:
        refusals["408"] = {
            "description": "The body did not arrive in time",
            "content": {"text/plain": either["text/plain"]},
        }
        refusals["413"] = {"description": "The body, or what it would store, is too large", "content": either}
        refusals["415"] = {"description": "The body is not JSON", "content": {"text/plain": either["text/plain"]}}
        refusals["422"] = {"description": "The body does not have the shape asked for", "content": either}
    return refusals


@router.get("/api-docs/openapi.json", include_in_schema=False)
def openapi(request: Request) -> Response:
    """Give the OpenAPI document."""
    return Json(request.app.openapi())


@router.get("/swagger-ui", include_in_schema=False)
def page(request: Request) -> Response:
    """Show every operation and its shapes: one page, no scripts, nothing from other servers."""
    document = request.app.openapi()
    operations = "".join(
        _operation(method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    )
    shapes = "".join(
        f'<details id="{html.escape(name)}"><summary><code>{html.escape(name)}</code></summary>{_pre(shape)}</details>'
        for name, shape in sorted(document["components"]["schemas"].items())
    )
    return HTMLResponse(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Orchestrator API</title><style>"
        "body{font:15px/1.5 system-ui;max-width:60rem;margin:2rem auto;padding:0 1rem}"
        "summary{cursor:pointer;padding:.2rem 0}b{display:inline-block;width:4.5rem}"
        "pre{background:#f4f4f4;padding:.8rem;overflow:auto}</style><h1>Orchestrator API</h1>"
        f'<p>{html.escape(_DESCRIPTION)} Machine-readable: <a href="/api-docs/openapi.json">openapi.json</a>.'
        f"<h2>Operations</h2>{operations}<h2>Shapes</h2>{shapes}"
    )


def _operation(method: str, path: str, operation: dict[str, Any]) -> str:
    shown = {name: operation[name] for name in ("parameters", "requestBody", "responses") if name in operation}
    summary = html.escape(operation.get("summary", ""))
    return (
        f"<details><summary><b>{method.upper()}</b> <code>{html.escape(path)}</code> {summary}</summary>"
        f"<p>{html.escape(operation.get('description', ''))}{_pre(shown)}</details>"
    )


def _pre(value: Any) -> str:
    return f"<pre>{html.escape(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())}</pre>"
