"""`orchestrator usage`: what models have used, and about what it has cost."""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any

import typer

from orchestrator.cli.session import Output, session_of


class By(StrEnum):
    """What sums are made for."""

    STEP = "step"
    INSTANCE = "instance"
    SEQUENCE = "sequence"
    PROVIDER = "provider"


def usage(
    context: typer.Context,
    days: Annotated[int, typer.Option(min=1, max=36_500, help="Days up to now.")] = 30,
    by: Annotated[By | None, typer.Option(help="Sums for each of these, instead of each model.")] = None,
) -> None:
    """Show the tokens that models have used for the tenant. Costs are estimates."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        shown = client.usage(start=datetime.now(UTC) - timedelta(days=days), group_by=by)
    if session.output is Output.JSON:
        printing.print_json(shown.model_dump(mode="json"))
        return
    rows: list[Any] = list(shown.usage) if by is None else list(shown.groups)
    session.show_rows(
        rows,
        (
            ("model" if by is None else by.value, lambda each: each.model if by is None else each.key or "unknown"),
            ("events", lambda each: each.events),
            ("input tokens", lambda each: each.input_tokens),
            ("output tokens", lambda each: each.output_tokens),
            ("USD", lambda each: "unknown" if each.cost_usd is None else f"{each.cost_usd:.4f}"),
        ),
    )
    printing.note(
        f"estimated cost of tenant {shown.tenant} since {shown.start:%Y-%m-%d}: {shown.total_cost_usd:.4f} USD"
    )
