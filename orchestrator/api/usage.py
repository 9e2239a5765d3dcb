"""What models have used (contract, api §18.3, §20.15)."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import Response

from orchestrator.api.answers import Json
from orchestrator.api.auth import CallerDependency
from orchestrator.api.services import Serving
from orchestrator.api.shapes import Moment
from orchestrator.api.usage_shapes import UsageView
from orchestrator.errors import InvalidArgument
from orchestrator.pricing import Pricing
from orchestrator.store import usage
from orchestrator.store.usage import Grouping, Used

router = APIRouter(tags=["usage"])
DEFAULT_PERIOD = timedelta(days=30)
MAX_GROUPS = 1000

Since = Annotated[Moment | None, Query(alias="start", description="30 days before the end if not given")]
Until = Annotated[Moment | None, Query(alias="end", description="now if not given")]


@router.get("/usage", responses={200: {"model": UsageView}})
def read_usage(
    serving: Serving,
    caller: CallerDependency,
    tenant: str | None = None,
    since: Since = None,
    until: Until = None,
    group_by: str | None = None,
) -> Response:
    """Sum up tokens by kind and model, with an estimate of their cost; `group_by` adds sums by something else."""
    whose = caller.narrowed(tenant)
    if not whose:
        raise InvalidArgument("tenant is required")
    by = _grouping(group_by)
    pricing = Pricing(serving.settings.model_pricing)
    with serving.store.reading(whose) as tx:
        end = until or tx.now()
        start = since or _before(end)
        if start > end:
            raise InvalidArgument("start must not be after end")
        found = usage.sums(tx, whose, start, until)
        parts = usage.grouped(tx, whose, start, until, by) if by else []
    costs = [_cost(pricing, each) for each in found]
    shown = {
        "tenant": whose,
        "start": start,
        "end": end,
        "usage": [_row(each, cost) for each, cost in zip(found, costs, strict=True)],
        "total_cost_usd": _total(costs) or 0.0,
        "cost_is_estimate": True,
    }
    return Json(shown if by is None else {**shown, "groups": _groups(pricing, parts)})


def _before(end: Any) -> Any:
    try:
        return end - DEFAULT_PERIOD
    except OverflowError as error:
        raise InvalidArgument("end is out of range") from error


def _grouping(written: str | None) -> Grouping | None:
    if written is None:
        return None
    try:
        return Grouping(written)
    except ValueError as error:
        raise InvalidArgument(f"group_by must be one of {', '.join(Grouping)}") from error


def _cost(pricing: Pricing, used: Used) -> float | None:
    return pricing.cost(used.model, used.input_tokens, used.output_tokens)


def _row(used: Used, cost: float | None) -> dict[str, Any]:
    return {
        "kind": used.kind,
        "model": used.model,
        "events": used.events,
        "input_tokens": used.input_tokens,
        "output_tokens": used.output_tokens,
        "cost_usd": cost,
    }


def _groups(pricing: Pricing, parts: Iterable[Used]) -> list[dict[str, Any]]:
    """Fold the sums of all kinds and models of one key into one, in the order of their largest part."""
    by_key: dict[tuple[str | None, str | None], list[Used]] = {}
    for part in parts:
        by_key.setdefault((part.sequence_id, part.key), []).append(part)
    groups = []
    for (sequence_id, key), of_key in list(by_key.items())[:MAX_GROUPS]:
        owner = {} if sequence_id is None else {"sequence_id": sequence_id}
        sums = {
            "events": sum(each.events for each in of_key),
            "input_tokens": sum(each.input_tokens for each in of_key),
            "output_tokens": sum(each.output_tokens for each in of_key),
            "cost_usd": _total(_cost(pricing, each) for each in of_key),
        }
        groups.append({"key": key, **owner, **sums})
    return groups


def _total(costs: Iterable[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return round(sum(known), 10) if known else None
