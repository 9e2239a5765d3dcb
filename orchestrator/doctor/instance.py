"""Why an instance stands where it stands."""

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from orchestrator.doctor.findings import Finding, note, warning
from orchestrator.errors import NotFound
from orchestrator.settings import Settings
from orchestrator.store import examination, workers
from orchestrator.store.postgres import PostgresStore

_WAITS = {
    "gate": ("waits for a human", "answer it: orchestrator approvals list"),
    "window": ("waits for its send window to open", "nothing"),
    "delayed": ("waits for its delay to be over", "nothing"),
    "backoff": ("has failed, and waits for its next attempt", "read the error: orchestrator instances attempts"),
    "asleep": ("sleeps", "nothing"),
    "held": ("is held while the instance is paused", "resume the instance"),
    "intercepted": ("waits for an interceptor", "see the interceptor's step"),
}


def explain(settings: Settings, instance_id: UUID) -> list[Finding]:
    """Say what an instance waits for.

    Raises:
        NotFound: There is no such instance.
        StoreUnavailable: PostgreSQL does not answer.
    """
    store = PostgresStore(settings.database_url, pooler=settings.database_pooler, vault=settings.vault)
    try:
        with store.transaction() as tx:
            found = examination.instance(tx, instance_id)
            if found is None:
                raise NotFound(f"instance {instance_id}")
            steps = examination.open_steps(tx, instance_id)
            children = examination.open_children(tx, instance_id)
            alive = workers.alive(tx, settings.dead_after)
    finally:
        store.close()
    return [*_state(found), *(_step(each, alive) for each in steps), *_children(children)]


def _state(found: dict[str, Any]) -> Iterator[Finding]:
    if found["parked_reason"]:
        yield warning("parked", f"it was parked: {found['parked_reason']}", "remove the cause, then resume it")
    elif found["is_held"]:
        yield note("paused", "it is paused", "resume it: orchestrator instances resume")
    if found["is_cancelling"]:
        yield note("cancelling", "it is being cancelled: steps that cannot be are run to their end")
    yield note("state", f"it is {found['state']}, unchanged for {_seconds(found['age'])} s")


def _step(step: dict[str, Any], alive: list[dict[str, Any]]) -> Finding:
    what = f"step {step['block']!r} ({step['handler']}, attempt {step['attempt']})"
    if step["state"] == "claimed":
        text = f"{what} has been run by {step['worker']} for {_seconds(step['age'])} s"
        return note("running", text, "look at the worker, if that is too long")
    if step["state"] != "ready":
        waits, remedy = _WAITS.get(step["state"], (f"is {step['state']}", "nothing"))
        until = f", until {step['wake_at']:%Y-%m-%d %H:%M:%S} UTC" if step["wake_at"] else ""
        return note(step["state"], f"{what} {waits}{until}", remedy)
    serving = [worker for worker in alive if step["queue"] in worker["queues"]]
    if not any(step["handler"] in worker["handlers"] for worker in alive):
        text = f"{what} is ready on queue {step['queue']!r}, and no worker of ours knows its handler"
        return warning("unknown_handler", text, "import its module in a worker, or let an external worker poll for it")
    if not serving:
        text = f"{what} is ready, and no worker serves queue {step['queue']!r}"
        return warning("queue_without_worker", text, f"start one: orchestrator worker -Q {step['queue']}")
    text = f"{what} is ready on queue {step['queue']!r} for {_seconds(step['age'])} s, after {step['hints']} hints"
    return note("queued", text, "start more workers, if that is too long")


def _children(children: list[dict[str, Any]]) -> Iterator[Finding]:
    for child in children:
        yield note("child", f"it waits for its child {child['id']}, which is {child['state']}", "ask about the child")


def _seconds(age: Any) -> int:
    return int(age.total_seconds())
