"""The root of the command line: what all commands share, and where each of them is."""

import typer

from orchestrator.cli import processes
from orchestrator.cli.exits import errors_as_exits
from orchestrator.whose import check_packages

app = typer.Typer(
    help="Durable execution: sequences of steps that survive any crash.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def orchestrator() -> None:
    """Durable execution: sequences of steps that survive any crash."""
    check_packages()


processes.add_to(app)


def main() -> None:
    """Run the command line."""
    with errors_as_exits():
        app(prog_name="orchestrator")
