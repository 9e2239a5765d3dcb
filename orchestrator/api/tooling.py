"""The language's tools: typed dataflow, preflight, template debugger, inspection (sequences §15; api §9, §21)."""

from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter
from starlette.responses import Response

from orchestrator.api.addresses import SequenceId
from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.bodies import Body, RawBody, Rejection
from orchestrator.api.documentation import accepts
from orchestrator.api.services import Services, Serving
from orchestrator.api.shapes import Shape
from orchestrator.catalogue import problems_of
from orchestrator.drafts import read_draft
from orchestrator.errors import InvalidArgument
from sequences.dataflow import DataflowLimit, analyse
from sequences.debugging import debug
from sequences.document import DocumentError, SequenceDefinition, parse_definition
from sequences.inspection import inspect_definition, inspect_template
from sequences.language_schema import Form, language_schema
from sequences.preflight import children_of, overall, preflight

router = APIRouter(tags=["language tools"])


class TemplateToDebug(Shape):
    """A template and what it may read."""

    template: Any
    context_data: Any = None
    context_config: Any = None
    outputs: dict[str, Any] | None = None


@router.get("/sequences/schema")
def schema_of_language(form: Form = "any") -> Response:
    """Give the JSON Schema of documents: canonical, shorthand, or both."""
    return Json(language_schema(form))


@router.post("/sequences/dataflow", openapi_extra=accepts(SequenceDefinition))
def dataflow_of_draft(caller: CallerDependency, body: Body) -> Response:
    """Check the dataflow of a definition and generate types for it. Nothing is stored."""
    definition = _draft(body, caller.tenant)
    problems = problems_of(definition)
    if problems:
        raise InvalidArgument(problems[0])
    return _dataflow(definition)


@router.get("/sequences/{id}/dataflow")
def dataflow_of_stored(serving: Serving, caller: CallerDependency, sequence_id: SequenceId) -> Response:
    """Check the dataflow of a stored version and generate types for it."""
    stored = serving.catalogue.get(sequence_id, tenant=caller.tenant)
    return _dataflow(parse_definition(stored.document))


@router.post("/sequences/preflight", openapi_extra=accepts(SequenceDefinition))
def preflight_of_draft(serving: Serving, caller: CallerDependency, body: Body) -> Response:
    """Answer everything that can be known about a definition before it is stored."""
    return _preflight(serving, _draft(body, caller.tenant))


@router.get("/sequences/{id}/preflight")
def preflight_of_stored(serving: Serving, caller: CallerDependency, sequence_id: SequenceId) -> Response:
    """Answer everything that can be known about a stored version before it runs."""
    stored = serving.catalogue.get(sequence_id, tenant=caller.tenant)
    return _preflight(serving, parse_definition(stored.document))


@router.post("/sequences/inspect-template", openapi_extra=accepts(SequenceDefinition))
def inspect(caller: CallerDependency, body: Body) -> Response:
    """Take all templates and conditions of a definition apart, or those of a member `template` alone."""
    data = body.json(max_depth=None)
    if isinstance(data, dict) and "template" in data and "blocks" not in data:
        return Json(inspect_template(body.json()["template"]))
    return Json(inspect_definition(_draft(body, caller.tenant)))


@router.post("/debug/template", openapi_extra=accepts(TemplateToDebug))
def debug_template(_caller: CallerDependency, body: Body) -> Response:
    """Resolve a template and tell of each of its expressions where its value came from. Secrets are not shown."""
    asked = body.read(TemplateToDebug)
    found = debug(asked.template, data=asked.context_data, config=asked.context_config, outputs=asked.outputs)
    return Json(found.document())


def _draft(body: RawBody, tenant: str | None) -> SequenceDefinition:
    try:
        return read_draft(body.json(max_depth=None), tenant=tenant)
    except DocumentError as error:
        raise Rejection(422, f"Failed to deserialize the JSON body: {error}") from error


def _dataflow(definition: SequenceDefinition) -> Response:
    try:
        return Json(analyse(definition))
    except DataflowLimit as error:
        raise InvalidArgument(str(error)) from error


def _preflight(serving: Services, definition: SequenceDefinition) -> Response:
    problems = problems_of(definition)
    missing = serving.catalogue.missing(definition.tenant_id, definition.namespace, children_of(definition))
    checks = preflight(
        definition, problems=problems, missing_children=[f"there is no sequence {name}" for name in missing]
    )
    return Json(
        {
            "sequence_name": definition.name,
            "sequence_version": definition.version,
            "overall": overall(checks).value,
            "checks": [check.document() for check in checks],
            "generated_at": datetime.now(UTC),
        }
    )
