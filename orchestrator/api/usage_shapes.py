"""Shapes of answers about what models have used (contract, api §18.3, §20.15)."""

from datetime import datetime

from orchestrator.api.shapes import Shape


class UsageRow(Shape):
    """What one model has used; `cost_usd` is null for a model without a known price."""

    kind: str
    model: str
    events: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None


class UsageGroup(Shape):
    """What one step, instance, sequence or provider has used: `key` is its id or name, null for an unknown provider.

    `sequence_id` says whose step or instance it is. `cost_usd` sums up what has a known price; null if nothing has.
    """

    key: str | None
    sequence_id: str | None = None
    events: int
    input_tokens: int
    output_tokens: int
    cost_usd: float | None


class UsageView(Shape):
    """What the models of a tenant have used between two moments."""

    tenant: str
    start: datetime
    end: datetime
    usage: list[UsageRow]
    total_cost_usd: float
    cost_is_estimate: bool = True
    groups: list[UsageGroup] | None = None
