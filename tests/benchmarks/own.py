"""W5 to W9 and the long chain: the works only our engine does, one after the other."""

from pathlib import Path

from orchestrator.embedded import Servers
from tests.benchmarks import burdens, ours, sleepers, web
from tests.benchmarks.works import W4_EDGE, Form, Samples, Say, shown


def measure_own(servers: Servers, logs: Path, handler: str, form: Form, say: Say) -> Samples:
    """Measure all of them over new databases, one for the sleepers and one for the rest."""
    with ours.running(servers, logs, handler, apis=web.APIS) as bench:
        samples = _through_http(bench, form, say)
        if form.w4_long:
            first, last = bench.long_chain(form.w4_long).edges_ms(W4_EDGE * 5)
            samples |= {"W4_long_first_ms": [first], "W4_long_last_ms": [last]}
            say(f"{bench.engine}: chain of {form.w4_long} steps: {first:.3f} ms a step at first, {last:.3f} at last")
        samples |= burdens.measure_snapshot(bench, form.w8_seconds, say)
        samples |= burdens.measure_history(bench, form.w9_megabytes, form.repeats, form.w2_instances, say)
    with ours.running(servers, logs, handler) as bench:
        samples |= sleepers.measure_sleepers(bench, servers, form.w7, form.repeats, say)
    if form.with_growth:
        from tests.benchmarks import growth  # numpy comes with an optional dependency

        say("\n".join(growth.lines_of(*growth.measure_growth(servers, logs, say))))
    return samples


def _through_http(bench: ours.Orchestrator, form: Form, say: Say) -> Samples:
    single, batched = form.w5
    web.creations(bench, single // 5)
    samples: Samples = {}
    for repeat in range(1, form.repeats + 1):
        found = {
            "W5_single": web.creations(bench, single),
            "W5_batch": web.creations(bench, batched, batch=web.BATCH),
        }
        found["W6_signal_p50_ms"], found["W6_signal_p99_ms"] = web.signals(bench, form.w6)
        found["W6_task_p50_ms"], found["W6_task_p99_ms"] = web.completions(bench, form.w6)
        for name, value in found.items():
            samples.setdefault(name, []).append(value)
        say(f"{bench.engine}: repeat {repeat} of {form.repeats}: " + shown(found))
    return samples
