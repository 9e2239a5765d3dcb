"""The command line of the benchmarks: `python -m tests.benchmarks`, or `make bench`."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import orjson
from rich.console import Console
from rich.table import Table

from tests.benchmarks.figures import OURS, PEERS, Figure, Verdict, all_met, check_bars
from tests.benchmarks.handlers import BUILT_IN, PLAIN
from tests.benchmarks.machine import NotDurable
from tests.benchmarks.plots import draw
from tests.benchmarks.run import run
from tests.benchmarks.works import FULL, SHORT, UNITS, digits

MISSED, NOT_MEASURED = 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit status: 1 when a bar was missed, 2 when nothing could be measured."""
    options = _parser().parse_args(arguments)
    form = (SHORT if options.short else FULL).with_repeats(options.repeat)
    console = Console()
    began = time.monotonic()

    def say(text: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {text}", highlight=False)

    peers = () if options.short or options.skip_peers else PEERS
    try:
        figures = run(
            form, say, handler=options.handler, peers=peers, with_own=not options.only_shared, folder=options.out.parent
        )
    except (NotDurable, RuntimeError) as problem:
        console.print(f"[red]not measured:[/] {problem}")
        return NOT_MEASURED
    write(options.out, figures)
    drawn = draw(figures, options.out.parent)
    verdicts = check_bars(figures)
    console.print(table_of(figures), bars_of(verdicts))
    if options.short:
        console.print(
            f"Short form: {form.repeats} repeats instead of {FULL.repeats}, small works, no peers. Not for comparing."
        )
    console.print("Written to " + ", ".join(str(path) for path in (options.out, *drawn)), highlight=False)
    return 0 if all_met(verdicts) else MISSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure the speed of the engine.")
    parser.add_argument(
        "--short", action="store_true", help="fewer repeats, smaller works of ours, and no peers: some minutes"
    )
    parser.add_argument("--out", type=Path, default=Path("build/bench.json"), help="where the figures are written")
    parser.add_argument("--repeat", type=_positive, help="how often each work is done")
    parser.add_argument("--handler", choices=(PLAIN, BUILT_IN), default=PLAIN, help="what the steps of ours run")
    parser.add_argument("--skip-peers", action="store_true", help="measure our own engine only")
    parser.add_argument("--only-shared", action="store_true", help="leave out the works only our engine does")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def write(path: Path, figures: Sequence[Figure]) -> None:
    """Write the figures as a JSON list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(orjson.dumps([figure.to_json() for figure in figures], option=orjson.OPT_INDENT_2) + b"\n")


def table_of(figures: Sequence[Figure]) -> Table:
    """Lay the figures of all engines side by side."""
    found = {(figure.name, figure.engine): figure for figure in figures}
    engines = [engine for engine in (OURS, *PEERS) if any(figure.engine == engine for figure in figures)]
    table = Table(title="median (minimum to maximum of the repeats)", title_justify="left")
    table.add_column("work")
    for engine in engines:
        table.add_column(engine, justify="right")
    table.add_column("unit")
    for name, unit in UNITS.items():
        if not any((name, engine) in found for engine in engines):
            continue
        table.add_row(name, *(_cell(found.get((name, engine))) for engine in engines), unit)
    return table


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return ""
    low, high = figure.spread
    return f"{digits(figure.value)} ({digits(low)} to {digits(high)})"


def bars_of(verdicts: Sequence[Verdict]) -> Table:
    """List the bars and what became of them."""
    words = {True: "[green]met[/]", False: "[red]missed[/]", None: "[yellow]not checked[/]"}
    table = Table(title="bars", title_justify="left")
    for heading in ("bar", "found", ""):
        table.add_column(heading)
    for verdict in verdicts:
        table.add_row(verdict.bar, verdict.found, words[verdict.is_met])
    return table


if __name__ == "__main__":
    sys.exit(main())
