"""`orchestrator pools`, `limits` and `breakers`: what limits and shares out the use of the outside."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import typer

from orchestrator.cli.session import Output, session_of

pools = typer.Typer(help="Share out resources that steps take turns with.", no_args_is_help=True)
limits = typer.Typer(help="Limit how often something is done.", no_args_is_help=True)
breakers = typer.Typer(help="See which handlers fail, and let them be tried again.", no_args_is_help=True)

PoolId = Annotated[UUID, typer.Argument(help="Id of the pool.")]
ResourceId = Annotated[UUID, typer.Argument(help="Id of the resource.")]
Key = Annotated[str, typer.Argument(help="What is limited.")]
Handler = Annotated[str, typer.Argument(help="Name of the handler.")]
Weight = Annotated[int | None, typer.Option(min=1, help="How often it is chosen, compared with others.")]
Cap = Annotated[int | None, typer.Option(min=0, help="Uses a day, in UTC; 0 for any number.")]
WarmupStart = Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="First day of the warm-up.")]
WarmupDays = Annotated[int | None, typer.Option(min=0, help="Days until the whole cap is reached.")]
WarmupCap = Annotated[int | None, typer.Option(min=0, help="Uses on the first day of the warm-up.")]


@pools.command("list")
def list_pools(context: typer.Context) -> None:
    """List pools, the oldest first."""
    session = session_of(context)
    with session.client() as client:
        rows = client.list_pools()
    session.show_rows(
        rows,
        (
            ("pool", lambda each: each.id),
            ("name", lambda each: each.name),
            ("strategy", lambda each: each.strategy),
            ("created", lambda each: each.created_at),
        ),
    )


@pools.command("get")
def get_pool(context: typer.Context, pool: PoolId) -> None:
    """Show one pool."""
    session = session_of(context)
    with session.client() as client:
        session.show_whole(client.get_pool(pool))


@pools.command("create")
def create_pool(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the pool.")],
    strategy: Annotated[str, typer.Option(help="round_robin, weighted or random.")] = "round_robin",
) -> None:
    """Make a pool. Prints its id."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        made = client.create_pool(name, strategy=strategy)
    if session.output is Output.JSON:
        printing.print_json(made.model_dump(mode="json"))
    else:
        typer.echo(made.id)


@pools.command("delete")
def delete_pool(context: typer.Context, pool: PoolId) -> None:
    """Remove a pool and all that is in it."""
    session = session_of(context)
    with session.client() as client:
        client.delete_pool(pool)
    session.say(f"pool {pool} is deleted", {"id": str(pool), "deleted": True})


@pools.command("resources")
def list_resources(context: typer.Context, pool: PoolId) -> None:
    """List what is in a pool, the oldest first."""
    session = session_of(context)
    with session.client() as client:
        rows = client.list_resources(pool)
    session.show_rows(
        rows,
        (
            ("resource", lambda each: each.id),
            ("key", lambda each: each.resource_key),
            ("name", lambda each: each.name),
            ("enabled", lambda each: "yes" if each.enabled else "no"),
            ("weight", lambda each: each.weight),
            ("cap", lambda each: each.daily_cap or "none"),
            ("used", lambda each: each.daily_usage),
            ("on", lambda each: each.daily_usage_date),
            ("warm-up", lambda each: each.warmup_start and f"{each.warmup_start}, {each.warmup_days} d"),
        ),
    )


@pools.command("add")
def add_resource(
    context: typer.Context,
    pool: PoolId,
    key: Annotated[str, typer.Argument(help="What steps get to see of it.")],
    name: Annotated[str | None, typer.Option(help="What people call it; its key if not given.")] = None,
    weight: Weight = None,
    daily_cap: Cap = None,
    warmup_start: WarmupStart = None,
    warmup_days: WarmupDays = None,
    warmup_start_cap: WarmupCap = None,
) -> None:
    """Put a resource into a pool. Prints its id."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        made = client.add_resource(
            pool,
            key,
            name,
            weight=1 if weight is None else weight,
            daily_cap=daily_cap or 0,
            warmup_start=None if warmup_start is None else warmup_start.date(),
            warmup_days=warmup_days or 0,
            warmup_start_cap=warmup_start_cap or 0,
        )
    if session.output is Output.JSON:
        printing.print_json(made.model_dump(mode="json"))
    else:
        typer.echo(made.id)


@pools.command("change")
def change_resource(
    context: typer.Context,
    pool: PoolId,
    resource: ResourceId,
    enabled: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether it may be chosen.")] = None,
    weight: Weight = None,
    daily_cap: Cap = None,
    warmup_start: WarmupStart = None,
    warmup_days: WarmupDays = None,
    warmup_start_cap: WarmupCap = None,
) -> None:
    """Change what is given of a resource."""
    given: dict[str, Any] = {
        "enabled": enabled,
        "weight": weight,
        "daily_cap": daily_cap,
        "warmup_start": None if warmup_start is None else warmup_start.date().isoformat(),
        "warmup_days": warmup_days,
        "warmup_start_cap": warmup_start_cap,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    session = session_of(context)
    with session.client() as client:
        changed = client.change_resource(pool, resource, changes)
    session.say(f"resource {resource} is changed", changed.model_dump(mode="json"))


@pools.command("remove")
def remove_resource(context: typer.Context, pool: PoolId, resource: ResourceId) -> None:
    """Take a resource out of its pool."""
    session = session_of(context)
    with session.client() as client:
        client.remove_resource(pool, resource)
    session.say(f"resource {resource} is removed", {"id": str(resource), "removed": True})


@limits.command("list")
def list_limits(context: typer.Context) -> None:
    """List limits by key."""
    session = session_of(context)
    with session.client() as client:
        rows = client.list_rate_limits()
    session.show_rows(
        rows,
        (
            ("key", lambda each: each.resource_key),
            ("at most", lambda each: each.max_count),
            ("in seconds", lambda each: each.window_seconds),
            ("changed", lambda each: each.updated_at),
        ),
    )


@limits.command("get")
def get_limit(context: typer.Context, key: Key) -> None:
    """Show the limit of a key."""
    session = session_of(context)
    with session.client() as client:
        session.show_whole(client.get_rate_limit(key))


@limits.command("set")
def set_limit(
    context: typer.Context,
    key: Key,
    max_count: Annotated[int, typer.Argument(min=1, help="Starts at the most.")],
    window_seconds: Annotated[int, typer.Argument(min=1, help="In any window of so many seconds.")],
) -> None:
    """Set the limit of a key, whatever it was."""
    session = session_of(context)
    with session.client() as client:
        made = client.set_rate_limit(key, max_count, window_seconds)
    session.say(f"{key}: at most {max_count} in {window_seconds} s", made.model_dump(mode="json"))


@limits.command("delete")
def delete_limit(context: typer.Context, key: Key) -> None:
    """Take the limit of a key away."""
    session = session_of(context)
    with session.client() as client:
        client.delete_rate_limit(key)
    session.say(f"{key} has no limit", {"resource_key": key, "deleted": True})


@breakers.command("list")
def list_breakers(context: typer.Context) -> None:
    """List the breakers of handlers that have run or were configured."""
    session = session_of(context)
    with session.client() as client:
        rows = client.list_breakers()
    session.show_rows(
        rows,
        (
            ("handler", lambda each: each.handler),
            ("state", lambda each: each.state),
            ("failures in a row", lambda each: each.failure_count),
            ("opens at", lambda each: each.failure_threshold),
            ("cool-down", lambda each: f"{each.cooldown_secs} s"),
            ("when open", lambda each: each.on_open),
            ("opened", lambda each: each.opened_at),
        ),
    )


@breakers.command("get")
def get_breaker(context: typer.Context, handler: Handler) -> None:
    """Show the breaker of one handler."""
    session = session_of(context)
    with session.client() as client:
        session.show_whole(client.get_breaker(handler))


@breakers.command("configure")
def configure_breaker(
    context: typer.Context,
    handler: Handler,
    failure_threshold: Annotated[int, typer.Option(min=1, help="Failures in a row that open it.")] = 5,
    cooldown_secs: Annotated[int, typer.Option(min=0, help="How long it is open.")] = 60,
    on_open: Annotated[str, typer.Option(help="What becomes of steps meanwhile: auto, fail or defer.")] = "auto",
) -> None:
    """Set how the breaker of a handler works; what it has counted stays."""
    session = session_of(context)
    with session.client() as client:
        made = client.configure_breaker(
            handler, failure_threshold=failure_threshold, cooldown_secs=cooldown_secs, on_open=on_open
        )
    text = f"{handler} opens after {failure_threshold} failures in a row, for {cooldown_secs} s"
    session.say(text, made.model_dump(mode="json"))


@breakers.command("reset")
def reset_breaker(context: typer.Context, handler: Handler) -> None:
    """Close the breaker of a handler."""
    session = session_of(context)
    with session.client() as client:
        client.reset_breaker(handler)
    session.say(f"the breaker of {handler} is closed", {"handler": handler, "reset": True})
