"""The public webhook: whoever can sign with a trigger's secret starts its flow (contract, api §15).

It stands at the root only, and asks for neither key nor tenant: the slug names the trigger, the signature the sender.
"""

import time
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import Response

from orchestrator.api.answers import Json
from orchestrator.api.bodies import RawBody, Rejection, decode, read_limited
from orchestrator.api.creation import check_context_size
from orchestrator.api.documentation import known_or_new
from orchestrator.api.instance_shapes import Context
from orchestrator.api.services import Serving, services_of
from orchestrator.api.signatures import signed_nonce
from orchestrator.api.trigger_shapes import WebhookTaken
from orchestrator.api.triggers import Slug
from orchestrator.errors import InvalidArgument, RateLimitExceeded, Unauthorized
from orchestrator.store.session import patiently

router = APIRouter(tags=["triggers"])
MAX_BYTES = 1_000_000


async def _admitted_body(request: Request, slug: Slug) -> RawBody:
    """Read the body, unless its sender has come too often: nothing is read from those."""
    peer = request.client.host if request.client is not None else ""
    services = await services_of(request)
    if not services.throttle.admit((peer, slug), time.monotonic()):
        raise RateLimitExceeded(f"webhook {slug}")
    return await read_limited(request, MAX_BYTES)


@router.post(
    "/webhooks/{slug}",
    status_code=202,
    responses=known_or_new(WebhookTaken, new=202),
    openapi_extra={"security": [], "requestBody": {"required": True, "content": {"application/json": {}}}},
)
def receive(
    serving: Serving, request: Request, slug: Slug, body: Annotated[RawBody, Depends(_admitted_body)]
) -> Response:
    """Start a flow from a signed body; 200 with the first one's id when the trigger's idempotency key is known."""
    trigger = serving.triggers.public(slug)
    nonce = signed_nonce(trigger.live_secrets, request.headers, body.content, now=time.time())
    if nonce is None:
        raise Unauthorized
    try:
        payload = decode(body.content)
    except Rejection as rejection:
        raise InvalidArgument(rejection.text) from rejection
    check_context_size(Context(data=payload), serving.settings.max_context_bytes)
    event = {"source": "public_webhook", "user_agent": request.headers.get("user-agent")}
    started = patiently(lambda: serving.triggers.fire(trigger, payload, event, nonce=nonce))
    answer = {"instance_id": started.id, "trigger": slug}
    if started.is_duplicate:
        return Json({**answer, "deduplicated": True}, status_code=200)
    return Json(answer, status_code=202)
