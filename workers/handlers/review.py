"""The built-in handler human_review: asks a person, or tells what a person has answered (contract §11, §5.5)."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final

import orjson
import structlog

from orchestrator.core.outcomes import Completed, Failed, FailureKind, Outcome
from orchestrator.egress import Egress, OutboundRequest
from workers.context import StepContext
from workers.failures import outcome_of_exception
from workers.handlers.params import is_text, members
from workers.handlers.requests_out import has_header, headers_of

log = structlog.get_logger()

NOTIFY_TIMEOUT: Final = timedelta(seconds=10)
_ANSWER: Final = ("value", "comment", "responded_at")


def human_review(egress: Egress) -> Callable[[StepContext, Any], Awaitable[Outcome]]:
    """Return the handler that notifies reviewers through `egress`."""

    async def human_review(ctx: StepContext, params: Any) -> Outcome:
        review = _review(ctx, members(params))
        answer = _answer(ctx)
        if answer is not None:
            return Completed(output={**review, **answer, "status": "answered"})
        url = members(params).get("notify_url")
        if is_text(url) and not ctx.dry_run:
            refusal = await _notify(ctx, egress, url, members(params).get("notify_headers"), review)
            if refusal is not None:
                return refusal
        mark = {"dry_run": True, "handler": "human_review"} if ctx.dry_run else {}
        return Completed(output={**review, **mark})

    return human_review


def _review(ctx: StepContext, given: dict[str, Any]) -> dict[str, Any]:
    gate = ctx.gate
    return {
        "type": "human_review",
        "status": "pending",
        "reviewer": given.get("reviewer", "unassigned"),
        "instructions": given.get("instructions", ""),
        "review_data": given.get("review_data"),
        "instance_id": str(ctx.instance_id),
        "block_id": ctx.block_id,
        "choices": [] if gate is None else [choice.model_dump() for choice in gate.effective_choices],
        "allow_comment": gate is not None and gate.allow_comment,
    }


def _answer(ctx: StepContext) -> dict[str, Any] | None:
    """Read the row that this step's gate has left; None if the handler runs without an answer."""
    row = ctx.scope.outputs.get(ctx.block_id) if ctx.gate is not None else None
    if not isinstance(row, Mapping):
        return None
    return {"comment": None, **{name: row[name] for name in _ANSWER if name in row}}


async def _notify(ctx: StepContext, egress: Egress, url: str, headers: Any, review: dict[str, Any]) -> Failed | None:
    """Post the notification; only an address that may not be reached is a failure of the step."""
    sent = headers_of(headers)
    if isinstance(sent, Failed):
        return sent
    if not has_header(sent, "content-type"):
        sent["Content-Type"] = "application/json"
    if not has_header(sent, "idempotency-key"):
        sent["Idempotency-Key"] = ctx.idempotency_key
    told = ("instance_id", "block_id", "reviewer", "instructions", "review_data", "choices")
    body = {"type": "human_review_pending", **{name: review[name] for name in told}}
    try:
        request = OutboundRequest(method="POST", url=url, headers=sent, body=orjson.dumps(body))
        response = await egress.request(request, timeout=NOTIFY_TIMEOUT)
    except (ConnectionError, TimeoutError) as error:
        log.warning("notification_failed", step=ctx.block_id, error=f"{type(error).__name__}: {error}")
        return None
    except Exception as error:  # noqa: BLE001 - blocked, or no address at all
        failure = outcome_of_exception(error)
        return Failed(message=failure.message, retryable=False, kind=FailureKind.INPUT)
    if response.status >= 400:
        log.warning("notification_failed", step=ctx.block_id, status=response.status)
    return None
