"""`orchestrator signals` and `orchestrator approvals`: what people tell flows that wait for them."""

from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.session import read_json, session_of
from orchestrator.errors import InvalidArgument, NotFound

if TYPE_CHECKING:
    from orchestrator.client import Approval, Client

signals = typer.Typer(help="Tell a flow something.", no_args_is_help=True)
approvals = typer.Typer(help="See what waits for a person, and answer.", no_args_is_help=True)

InstanceId = Annotated[str, typer.Argument(help="Id of the instance.", metavar="ID")]
PAGE = 1000


@signals.callback()
def _signals() -> None:
    """Tell a flow something."""


@signals.command()
def send(
    context: typer.Context,
    instance: InstanceId,
    name: Annotated[str | None, typer.Argument(help="Name of the signal; none answers the gate it stands at.")] = None,
    payload: Annotated[str | None, typer.Option(help="JSON, @file, or @- for stdin.")] = None,
) -> None:
    """Send a signal; it is kept until the flow asks for it."""
    session = session_of(context)
    with session.client() as client:
        signal_id = client.signal(instance, name, read_json(payload, "--payload"))
    session.say(f"the signal was taken: {signal_id}", {"signal_id": str(signal_id)})


@approvals.command("list")
def list_all(
    context: typer.Context,
    namespace: Annotated[str | None, typer.Option(help="Only this namespace.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Lines at the most.")] = 100,
    offset: Annotated[int, typer.Option(min=0, help="Lines left out before.")] = 0,
) -> None:
    """List open gates, the most recently changed first."""
    from orchestrator.cli import printing  # noqa: PLC0415 - slow

    session = session_of(context)
    with session.client() as client:
        rows = client.approvals(namespace=namespace, offset=offset, limit=limit)
    session.show_rows(
        rows,
        (
            ("instance", lambda each: each.instance_id),
            ("block", lambda each: each.block_id),
            ("sequence", lambda each: each.sequence_name),
            ("waiting", lambda each: printing.age(each.waiting_since)),
            ("until", lambda each: each.deadline),
            ("choices", lambda each: ", ".join(choice.value for choice in each.choices)),
            ("prompt", lambda each: each.prompt),
        ),
    )


@approvals.command()
def answer(
    context: typer.Context,
    instance: InstanceId,
    value: Annotated[str, typer.Argument(help="One of the choices of the gate.")],
    block: Annotated[str | None, typer.Option(help="Which gate, if several are open.")] = None,
    comment: Annotated[str | None, typer.Option(help="A remark, if the gate allows one.")] = None,
) -> None:
    """Answer an open gate. What the gate would ignore is refused here."""
    session = session_of(context)
    with session.client() as client:
        gate = _gate(client, str(client.get(instance).id), block)
        values = [choice.value for choice in gate.choices]
        if values and value not in values:
            raise InvalidArgument(f"{value!r} is no choice of block {gate.block_id!r}; there are: {', '.join(values)}")
        if comment is not None and not gate.allow_comment:
            raise InvalidArgument(f"block {gate.block_id!r} takes no comment")
        signal_id = client.answer(instance, gate.block_id, value, comment)
    session.say(
        f"block {gate.block_id} was answered with {value}", {"signal_id": str(signal_id), "block_id": gate.block_id}
    )


def _gate(client: "Client", instance_id: str, block: str | None) -> "Approval":
    """Find the gate that is meant."""
    gates = [gate for gate in _every(client) if str(gate.instance_id) == instance_id]
    wanted = [gate for gate in gates if block is None or gate.block_id == block]
    if not wanted:
        which = "an open gate" if block is None else f"an open gate of block {block!r}"
        raise NotFound(f"{which} in instance {instance_id}")
    if len({gate.block_id for gate in wanted}) > 1:
        names = ", ".join(sorted(gate.block_id for gate in wanted))
        raise InvalidArgument(f"several gates are open, say which with --block: {names}")
    return wanted[0]


def _every(client: "Client") -> "list[Approval]":
    found: list[Approval] = []
    while True:
        page = client.approvals(offset=len(found), limit=PAGE)
        found += page
        if len(page) < PAGE:
            return found
