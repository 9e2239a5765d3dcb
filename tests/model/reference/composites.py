"""The blocks with blocks inside (§3): one generator for each."""

import hashlib
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.model.reference.calls import run_sub_sequence
from tests.model.reference.moments import timedelta
from tests.model.reference.places import (
    EXTERNAL,
    INTERNAL,
    Binding,
    Fence,
    Handled,
    Json,
    Place,
    everything_in,
)
from tests.model.reference.tasks import CANCELLED, COMPLETED, FAILED, SKIPPED, Ended, Join, Stand, Task, Waits
from tests.model.reference.values import ROOTS, BadTemplate, evaluate, render, truthy

if TYPE_CHECKING:
    from tests.model.reference.interpreter import Flow

MAX_ITERATIONS = 1000
WITH_ROWS = frozenset({"step", "a_b_split", "sub_sequence"})
"""Blocks whose rows are what they have to say; any other has said all it will say when it has completed."""


def _start(flow: "Flow", branches: list[list[Json]], place: Place) -> list[Task]:
    """Start branches side by side, all of them, even if one decides everything at once."""
    tasks: list[Task] = []
    before = flow.data.get("_error")
    for branch in branches:
        fence = Fence(INTERNAL)
        tasks.append(flow.tasks.spawn(flow.run_list(branch, place.inside(fence)), fence))
    flow.is_left_to_chance |= flow.data.get("_error") is not before and len(branches) > 1
    return tasks


def _withdraw(flow: "Flow", tasks: list[Task]) -> Join:
    """Cancel tasks that are still open; gives what to wait for."""
    still = [task for task in tasks if not task.ended]
    for task in still:
        task.fence.cancelled = True
    for task in still:
        flow.withdraw(flow.tasks.leaves(task))
    return Join(still, lambda: all(task.ended for task in still))


def _ends(tasks: list[Task], *states: str) -> list[Task]:
    """Give the tasks that ended so, in the order in which they ended."""
    return sorted((t for t in tasks if t.ended and t.ended.state in states), key=lambda task: task.number)


def _failure_of(task: Task) -> Ended:
    ended = task.ended
    assert ended
    return Ended(FAILED, ended.block_id, ended.step_id, ended.message)


def run_parallel(flow: "Flow", block: Json, place: Place) -> Waits:
    """Run branches side by side, each to its end unless the block fails fast (§3.2)."""
    fast = (block.get("failure_policy") or {"cancel_siblings": "fail_fast"}.get(block.get("on_failure"))) == "fail_fast"

    def enough(tasks: list[Task]) -> bool:
        return fast and bool(_ends(tasks, FAILED))

    tasks = _start(flow, block["branches"], place)
    flow.is_left_to_chance |= enough(tasks) and len(tasks) > 1
    yield Join(tasks, lambda: all(task.ended for task in tasks) or enough(tasks))
    if enough(tasks):
        yield _withdraw(flow, tasks)
    if failed := _ends(tasks, FAILED):
        return _failure_of(failed[0])
    return Ended(CANCELLED if _ends(tasks, CANCELLED) else COMPLETED)


def run_race(flow: "Flow", block: Json, place: Place) -> Waits:
    """Run branches side by side; the first to complete wins (§3.3)."""
    to_succeed = block.get("semantics") == "first_to_succeed"
    branches = [branch for branch in block["branches"] if branch]

    def decided(tasks: list[Task]) -> bool:
        return bool(_ends(tasks, COMPLETED) or (not to_succeed and _ends(tasks, FAILED)))

    if not branches:
        return Ended(COMPLETED)
    tasks = _start(flow, branches, place)
    flow.is_left_to_chance |= decided(tasks) and len(branches) > 1
    yield Join(tasks, lambda: decided(tasks) or all(task.ended for task in tasks))
    first = min((task for task in tasks if task.ended), key=lambda task: task.number)
    won = _ends(tasks, COMPLETED)
    yield _withdraw(flow, tasks)
    if won:
        return Ended(COMPLETED)
    failed = _ends(tasks, FAILED)
    if place.stopped_by() and ((to_succeed and _ends(tasks, CANCELLED)) or not failed):
        return Ended(CANCELLED)
    return _failure_of(failed[0] if failed else first)


def run_loop(flow: "Flow", block: Json, place: Place) -> Waits:
    """Run a body while a condition holds (§3.4)."""
    body, memory = block["body"], flow.memory(block["id"], place)
    number = memory.setdefault("number", 0)
    cap = block.get("max_iterations", MAX_ITERATIONS)
    while number < cap and (memory.get("has_begun") or _holds(flow, block, place, number)):
        if place.stopped_by():
            return Ended(CANCELLED)
        if not memory.get("has_begun"):
            flow.mark(body, "pending")
        memory["has_begun"] = True
        ended = yield from flow.run_list(body, place.turn(number))
        if "retain_iterations" in block:
            flow.trim(body, block, place, block["retain_iterations"], None)
        if ended.state == CANCELLED or (ended.state == FAILED and not block.get("continue_on_error")):
            return ended
        number += 1
        memory.update(number=number, has_begun=False)
        flow.add_row(block["id"], place, {"_iterations": number}, number)
        if _is_true(flow, block.get("break_on"), block, place, number - 1):
            break
        if place.stopped_by():
            return Ended(CANCELLED)
        if block.get("poll_interval") and number < cap:
            ended = yield from _poll(flow, block, place)
            if ended.state == CANCELLED:
                return ended
    if number == 0:
        flow.mark(body, SKIPPED)
    return Ended(COMPLETED)


def _poll(flow: "Flow", block: Json, place: Place) -> Waits:
    stand = Stand((block["id"], place.iteration), is_step=False, in_process=True, place=place, phase="polling")
    stand.due = flow.now + timedelta(seconds=block["poll_interval"])
    while True:
        message = yield stand
        if message == "cancel":
            return Ended(CANCELLED)
        if message == "due" and flow.pausing:
            stand.phase = "held"
        elif message == "resumed":
            stand.phase, stand.due = "polling", flow.now
        else:
            return Ended(COMPLETED)


def _holds(flow: "Flow", block: Json, place: Place, number: int) -> bool:
    """Evaluate the condition; it holds while it asks for what the body has not said yet."""
    body = {inner["id"]: inner["type"] for inner in everything_in(block["body"])}
    asked = re.findall(r"\b(?:outputs|steps)\.([A-Za-z0-9_]+)", block["condition"])
    if any(name in body and not flow.has_spoken(name, place, by_row=body[name] in WITH_ROWS) for name in asked):
        return True
    return _is_true(flow, block["condition"], block, place, number)


def _is_true(flow: "Flow", text: str | None, block: Json, place: Place, number: int) -> bool:
    return text is not None and truthy(evaluate(text, flow.view(block["id"], place, iteration=number)))


def run_for_each(flow: "Flow", block: Json, place: Place) -> Waits:
    """Run a body for each item, some of them at a time (§3.5)."""
    memory = flow.memory(block["id"], place)
    items = memory.setdefault("items", _items(flow, block, place) if "items" not in memory else [])
    done: set[int] = memory.setdefault("done", set())
    if not items:
        flow.mark(block["body"], SKIPPED)
        return Ended(COMPLETED)
    width = block.get("concurrency", 1)
    tasks: list[Task] = []
    begun = len(done)
    for number, item in enumerate(items):
        if number in done:
            continue
        yield Join(
            tasks, lambda: sum(not task.ended for task in tasks) < width or bool(_ends(tasks, FAILED, CANCELLED))
        )
        if _ends(tasks, FAILED, CANCELLED) or place.stopped_by():
            break
        binding = Binding(block.get("item_var", "item"), item, number, is_alone=width == 1)
        if width == 1 and memory.get("item") != number:
            flow.mark(block["body"], "pending")
        memory["item"] = number
        free = width - sum(not task.ended for task in tasks)
        task = flow.tasks.spawn(_run_item(flow, block, place.turn(number, binding), place, memory))
        tasks.append(task)
        begun += 1
        flow.is_left_to_chance |= free > 1 and number + 1 < len(items) and bool(_ends([task], FAILED))
    yield Join(tasks, lambda: all(task.ended for task in tasks))
    if failed := _ends(tasks, FAILED):
        return _failure_of(failed[0])
    return Ended(CANCELLED if _ends(tasks, CANCELLED) or begun < len(items) else COMPLETED)


def _run_item(flow: "Flow", block: Json, place: Place, around: Place, memory: dict[str, Any]) -> Waits:
    number, running = place.iteration[-1], memory.setdefault("running", set())
    running.add(number)
    ended = yield from flow.run_list(block["body"], place)
    running.discard(number)
    if "retain_iterations" in block:
        since = (*around.iteration, min(running)) if running and block.get("concurrency", 1) > 1 else None
        flow.trim(block["body"], block, around, block["retain_iterations"], since)
    if ended.state == COMPLETED:
        memory["done"].add(number)
    return ended


def _items(flow: "Flow", block: Json, place: Place) -> list[Any]:
    text, view = block["collection"], flow.view(block["id"], place)
    if "{{" in text:
        try:
            found = render(text, view)
        except BadTemplate:
            found = None
    else:
        first, *rest = text.split(".")
        is_root = first in ROOTS and first not in view.sections["data"]
        found = view.path(first, rest) if is_root else view.path("data", [first, *rest])
    return found[: block.get("max_iterations", MAX_ITERATIONS)] if isinstance(found, list) else []


def run_router(flow: "Flow", block: Json, place: Place) -> Waits:
    """Run the list of the first condition that holds (§3.6)."""
    memory, view = flow.memory(block["id"], place), flow.view(block["id"], place)
    lists = [*(route["blocks"] for route in block["routes"]), block.get("default") or []]
    holds = (index for index, route in enumerate(block["routes"]) if truthy(evaluate(route["condition"], view)))
    if "chosen" not in memory:
        memory["chosen"] = next(holds, len(lists) - 1)
    return (yield from _run_chosen(flow, lists, memory["chosen"], place))


def _run_chosen(flow: "Flow", lists: list[list[Json]], chosen: int, place: Place) -> Waits:
    for index, blocks in enumerate(lists):
        if index != chosen:
            flow.mark(blocks, SKIPPED)
    return (yield from flow.run_list(lists[chosen], place.inside()))


def run_try_catch(flow: "Flow", block: Json, place: Place) -> Waits:
    """Run a list, another if it fails, and a third in any case (§3.7)."""
    memory = flow.memory(block["id"], place)
    handled = None
    ended = (
        memory.get("caught") or memory.get("tried") or (yield from flow.run_list(block["try_block"], place.inside()))
    )
    if "caught" in memory:
        handled = memory["handled"]
    elif ended.state == COMPLETED:
        memory["tried"] = ended
        flow.mark(block["catch_block"], SKIPPED)
    elif ended.state == FAILED:
        handled = _handled(flow, block, place, ended)
        ended = yield from flow.run_list(block["catch_block"], place.inside().handling(handled))
        if ended.state == COMPLETED:
            memory["caught"] = ended
    else:
        flow.mark(block["catch_block"], SKIPPED)
    shield = Fence(keeps_out=frozenset({EXTERNAL, INTERNAL}))
    last = yield from flow.run_list(block.get("finally_block") or [], place.inside(shield).handling(handled))
    return last if last.state == FAILED else ended


def _handled(flow: "Flow", block: Json, place: Place, ended: Ended) -> Handled:
    memory = flow.memory(block["id"], place)
    if "tried" not in memory:
        memory["tried"] = ended
        error = {
            "failed_blocks": [ended.block_id],
            "source": "try_catch",
            "block_id": block["id"],
            "message": ended.message,
            "step_id": ended.step_id,
        }
        memory["handled"] = flow.handle(error)
    handled: Handled = memory["handled"]
    flow.put_error(handled)
    return handled


def run_split(flow: "Flow", block: Json, place: Place) -> Waits:
    """Run the variant that the instance's id falls into (§3.9)."""
    digest = hashlib.sha256(flow.instance_id.bytes + b"\0" + block["id"].encode()).digest()
    weights = [variant["weight"] for variant in block["variants"]]
    point = int.from_bytes(digest[:8], "big") % sum(weights)
    chosen = next(index for index in range(len(weights)) if sum(weights[: index + 1]) > point)
    name = block["variants"][chosen]["name"]
    memory = flow.memory(block["id"], place)
    if "chosen" not in memory:
        memory["chosen"] = chosen
        flow.add_row(block["id"], place, {"variant": name, "variant_index": chosen, "selected_variant": name})
    return (yield from _run_chosen(flow, [variant["blocks"] for variant in block["variants"]], chosen, place))


def run_scope(flow: "Flow", block: Json, place: Place) -> Waits:
    """Run a list that no cancel from outside interrupts (§3.10)."""
    shield = Fence(keeps_out=frozenset({EXTERNAL}))
    return (yield from flow.run_list(block["blocks"], place.inside(shield)))


def run_saga(flow: "Flow", block: Json, place: Place) -> Waits:
    """Run actions; if one fails, undo those that completed, the newest first, and fail (§3.11).

    Once something was to be undone, a later round undoes what is left, and never goes forward.
    """
    memory = flow.memory(block["id"], place)
    if "failed" not in memory:
        ended = yield from _run_actions(flow, block, place, memory)
        if ended.state != FAILED:
            return ended
    handled = memory["handled"]
    flow.put_error(handled)
    stopped = False
    for undone in reversed(memory["to_undo"]):
        if place.stopped_by():
            flow.mark([undone], CANCELLED)
            stopped = True
            continue
        undoing = yield from flow.run_block(undone, place.inside().handling(handled))
        stopped = stopped or undoing.state == CANCELLED
    if stopped:
        return Ended(CANCELLED)
    failed: Ended = memory["failed"]
    if not memory["to_undo"]:
        del memory["failed"]
    return failed


def _run_actions(flow: "Flow", block: Json, place: Place, memory: dict[str, Any]) -> Waits:
    steps, completed = block["steps"], []
    ended = Ended(COMPLETED)
    for index, step in enumerate(steps):
        if place.stopped_by():
            ended = Ended(CANCELLED)
            flow.mark([step["action"]], CANCELLED)
        else:
            ended = yield from flow.run_block(step["action"], place.inside())
        if ended.state == COMPLETED:
            completed.append(step)
        elif ended.state != SKIPPED:
            flow.mark([later["action"] for later in steps[index + 1 :]], CANCELLED)
            break
    else:
        flow.mark([step["compensation"] for step in steps if step.get("compensation")], SKIPPED)
        return Ended(COMPLETED)
    if ended.state == CANCELLED:
        flow.mark([step["compensation"] for step in steps if step.get("compensation")], SKIPPED)
        return ended
    memory["handled"] = flow.handle({"failed_step": step["id"], "source": "saga", "block_id": block["id"]})
    unused = [other for other in steps if other not in completed and other.get("compensation")]
    flow.mark([other["compensation"] for other in unused], SKIPPED)
    memory["to_undo"] = [done["compensation"] for done in completed if done.get("compensation")]
    memory["failed"] = Ended(FAILED, block["id"], ended.step_id, ended.message)
    return memory["failed"]


RUN: dict[str, Callable[["Flow", Json, Place], Waits]] = {
    "parallel": run_parallel,
    "race": run_race,
    "loop": run_loop,
    "for_each": run_for_each,
    "router": run_router,
    "try_catch": run_try_catch,
    "a_b_split": run_split,
    "cancellation_scope": run_scope,
    "saga": run_saga,
    "sub_sequence": run_sub_sequence,
}
