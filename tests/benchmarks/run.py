"""Start the servers, measure one engine after the other, end everything."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from orchestrator import embedded
from tests.benchmarks import machine, ours
from tests.benchmarks.figures import Figure, figures_of
from tests.benchmarks.works import Form, Say, measure


def run(form: Form, say: Say, *, handler: str, with_peers: bool, folder: Path) -> list[Figure]:
    """Measure, and give the figures of all engines.

    Args:
        form: How often each work is done.
        say: Told about the progress.
        handler: What the steps of our engine run: the built-in no-op, or a plain function.
        with_peers: Measure the peer as well, after ours and on the same PostgreSQL.
        folder: Gets the data of the servers, which is removed at the end, and the logs of all processes.

    Raises:
        NotDurable: The servers would not keep what they commit.
        RuntimeError: A work did not end as it has to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=folder, ignore_cleanup_errors=True) as temporary:
        directory = Path(temporary) / "servers"
        try:
            servers = embedded.start(directory)
            return _measure_all(servers, form, say, handler=handler, with_peers=with_peers, logs=folder / "bench-logs")
        finally:
            embedded.remove(directory)


def _measure_all(
    servers: embedded.Servers, form: Form, say: Say, *, handler: str, with_peers: bool, logs: Path
) -> Sequence[Figure]:
    if servers.postgres_pid is not None and servers.data_directory is not None:
        machine.check_filesystem(servers.data_directory)
    versions = {**machine.facts(servers), "form": form.name, "handler": handler, "repeats": form.repeats}
    say("  ".join(f"{name} {value}" for name, value in versions.items()))
    with ours.running(servers, logs, handler) as bench:
        figures = figures_of(bench.engine, measure(bench, form, say), versions)
    if with_peers:
        from tests.benchmarks import peer  # DBOS is an optional dependency

        with peer.running(servers, logs) as rival:
            figures += figures_of(rival.engine, measure(rival, form, say), versions)
    return figures
