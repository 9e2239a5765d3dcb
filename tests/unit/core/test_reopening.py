"""What a retry runs again, and what it leaves as it ended."""

from datetime import timedelta

from tests.support.drive import PureWorld, fail, loop, parallel, step, try_catch


def test_failure_that_was_handled_stays_in_the_tree_after_a_retry() -> None:
    flow = PureWorld().start([try_catch("t", [parallel("p", [fail("f")])], [step("c")]), step("w", "external")]).run()
    flow.fail("w")
    flow.retry()
    flow.complete("w")
    assert flow.check().state == "completed"
    assert flow.tree() == dict.fromkeys("tcw", "completed") | dict.fromkeys("pf", "failed")


def test_failure_that_a_loop_went_on_after_stays_as_it_was() -> None:
    body = [step("a", "external"), step("b", "external")]
    flow = PureWorld().start([loop("l", body, continue_on_error=True, max_iterations=1), step("w", "external")])
    flow.fail("a")
    flow.fail("w")
    flow.retry()
    assert (flow.tree()["a"], flow.tree()["b"]) == ("failed", "cancelled")


def test_catch_list_that_is_retried_reads_its_own_error() -> None:
    """Between the two rounds another try_catch has written the shared `_error`."""
    other = [step("w", "external"), try_catch("u", [fail("g", "second")])]
    mine = [try_catch("t", [fail("f", "first")], [step("c", "external", {"why": "{{ data._error.message }}"})])]
    world = PureWorld()
    flow = world.start([parallel("p", mine, other)]).run()
    flow.fail("c")
    flow.complete("w")
    flow.run()
    assert flow.check().state == "failed"
    flow.retry().check()
    assert flow.data["_error"]["block_id"] == "t"
    assert world.work(flow.claim("c")).params == {"why": "first"}


def test_finally_list_that_failed_is_retried_alone() -> None:
    flow = PureWorld().start([try_catch("t", [step("a")], [step("c")], [step("x"), step("y", "external")])]).run()
    flow.fail("y")
    flow.retry().check()
    assert flow.standing() == {"y": "ready"}
    flow.complete("y")
    assert flow.check().state == "completed"
    assert flow.row_ids() == ["a", "x", "y"]


def test_block_keeps_the_moment_it_first_began_over_a_retry() -> None:
    world = PureWorld()
    flow = world.start([parallel("p", [step("a", "external")])])
    first = {node.key: node.started_at for node in world.nodes(flow.id)}
    began = flow.steps("a")[0].entered_at
    flow.fail("a")
    world.clock += timedelta(hours=1)
    flow.retry()
    flow.complete("a")
    ended = {node.key.block_id: node.started_at for node in world.nodes(flow.id)}
    assert ended == {"p": next(iter(first.values())), "a": began}
