"""`_error` where several blocks handle one at once, or one inside of another."""

from typing import Any

from tests.support.drive import Completed, Failed, Flow, PureWorld

MESSAGE = {"error": "{{ data._error.message }}"}
SEEN = {"item": "{{ item }}", "error": "{{ context.data._error.message }}", "of": "{{ data._error.details.item }}"}


def step(block_id: str, **fields: Any) -> dict[str, Any]:
    return {"type": "step", "id": block_id, "handler": "work", **fields}


def for_each(body: list[dict[str, Any]], *, concurrency: int) -> list[dict[str, Any]]:
    return [
        {
            "type": "for_each",
            "id": "items",
            "collection": "items",
            "item_var": "item",
            "concurrency": concurrency,
            "body": body,
        }
    ]


def guarded(*catch: dict[str, Any], block_id: str = "guard", risky: str = "risky", **lists: Any) -> dict[str, Any]:
    return {"type": "try_catch", "id": block_id, "try_block": [step(risky)], "catch_block": list(catch), **lists}


def begin(body: list[dict[str, Any]], *, concurrency: int = 2) -> Flow:
    world = PureWorld()
    data = {"items": ["a", "b"]}
    return Flow(world, world.create(for_each(body, concurrency=concurrency), data=data))


def fail_both(flow: Flow) -> None:
    """Let both rounds fail before either of them handles it."""
    for item in ("a", "b"):
        flow.fail("risky", message=f"no {item}", details={"item": item})


def params(flow: Flow, block_id: str) -> list[Any]:
    """What the ready steps of a block are given, in the order of their rounds."""
    ready = sorted(flow.steps(block_id), key=lambda each: each.key.iteration)
    claims = [flow.world.claim(flow.id, each) for each in ready]
    return [flow.world.work(claim).params for claim in claims if claim is not None]


def test_each_round_handles_its_own_error() -> None:
    flow = begin([guarded(step("handle", params=SEEN))])
    fail_both(flow)
    assert params(flow, "handle") == [
        {"item": "a", "error": "no a", "of": "a"},
        {"item": "b", "error": "no b", "of": "b"},
    ]


def test_expressions_read_the_error_of_their_round() -> None:
    flow = begin([guarded(step("handle", when="_error.details.item == item", params=SEEN))])
    fail_both(flow)
    assert [given["of"] for given in params(flow, "handle")] == ["a", "b"]


def test_a_composite_in_a_catch_list_reads_the_error_of_its_round() -> None:
    route = {"condition": "_error.message == 'no a'", "blocks": [step("of_a")]}
    router = {"type": "router", "id": "which", "routes": [route], "default": [step("of_others", params=SEEN)]}
    flow = begin([guarded(router)])
    fail_both(flow)
    assert [each.key.iteration for each in flow.steps("of_a")] == [(0,)]
    assert params(flow, "of_others") == [{"item": "b", "error": "no b", "of": "b"}]


def test_a_finally_list_reads_the_error_of_its_round() -> None:
    flow = begin([guarded(finally_block=[step("tidy", params=SEEN)])])
    fail_both(flow)
    assert [given["of"] for given in params(flow, "tidy")] == ["a", "b"]


def test_the_inner_of_two_catches_wins() -> None:
    inner = {
        "type": "try_catch",
        "id": "inner",
        "try_block": [step("repair")],
        "catch_block": [step("handle", params={"error": "{{ data._error.message }}"})],
    }
    flow = begin([guarded(inner)])
    fail_both(flow)
    for _ in range(2):
        flow.fail("repair", message="no repair")
    assert params(flow, "handle") == [{"error": "no repair"}] * 2


def test_one_round_at_a_time_reads_the_error_too() -> None:
    flow = begin([guarded(step("handle", params=SEEN))], concurrency=1)
    flow.fail("risky", message="no a", details={"item": "a"})
    assert params(flow, "handle") == [{"item": "a", "error": "no a", "of": "a"}]


def test_the_error_stays_in_the_data_for_readers_from_outside() -> None:
    flow = begin([guarded(step("handle"))])
    fail_both(flow)
    assert flow.data["_error"]["message"] == "no b"


def test_s3_2_each_branch_handles_its_own_error() -> None:
    world = PureWorld()
    lists = [[guarded(step(f"handle_{name}", params=MESSAGE), risky=f"risky_{name}", block_id=name)] for name in "ab"]
    flow = Flow(world, world.create([{"type": "parallel", "id": "p", "branches": lists}]))
    for name in "ab":
        flow.fail(f"risky_{name}", message=f"no {name}")
    assert [params(flow, f"handle_{name}") for name in "ab"] == [[{"error": "no a"}], [{"error": "no b"}]]


def test_s3_11_compensation_reads_which_step_has_failed_although_another_one_has_handled_an_error_inside() -> None:
    world = PureWorld()
    undo = guarded(block_id="undo", risky="refund")
    of = {"failed": "{{ context.data._error.failed_step }}"}
    steps = [
        {"id": "s0", "action": step("a0"), "compensation": step("release", params=of)},
        {"id": "s1", "action": step("a1"), "compensation": undo},
        {"id": "s2", "action": step("a2")},
    ]
    flow = Flow(world, world.create([{"type": "saga", "id": "s", "steps": steps}]))
    flow.complete("a0")
    flow.complete("a1")
    flow.fail("a2")
    flow.fail("refund")
    assert params(flow, "release") == [{"failed": "s2"}]


def test_s3_7_catch_and_finally_list_read_their_error_behind_one_that_was_handled_inside() -> None:
    world = PureWorld()
    inside = guarded(block_id="inside", risky="second")
    block = guarded(inside, step("handle", params=MESSAGE), finally_block=[step("last", params=MESSAGE)], risky="first")
    flow = Flow(world, world.create([block]))
    for name in ("first", "second"):
        flow.fail(name, message=f"no {name}")
    claim = flow.claim("handle")
    assert world.work(claim).params == {"error": "no first"}
    flow.finish(claim, Completed(output={}))
    assert params(flow, "last") == [{"error": "no first"}]
    assert flow.data["_error"]["message"] == "no second"


def failed_side_by_side(*catch: str, **lists: Any) -> Flow:
    """Two branches that handle an error each; blocks of `catch`, and of further lists, are named after their branch."""
    world = PureWorld()
    branches = []
    for name in "ab":
        inside = {each: [step(f"{block}_{name}", params=MESSAGE) for block in blocks] for each, blocks in lists.items()}
        handling = [step(f"{block}_{name}", params=MESSAGE) for block in catch]
        branches.append([guarded(*handling, risky=f"risky_{name}", block_id=name, **inside)])
    flow = Flow(world, world.create([{"type": "parallel", "id": "p", "branches": branches}]))
    for name in "ab":
        flow.fail(f"risky_{name}", message=f"no {name}")
    return flow


def test_s8_1_error_written_over_is_read_at_once_in_the_list_that_handles_it_and_in_no_other() -> None:
    flow = failed_side_by_side("rewrite", "handle", finally_block=["last"])
    for name in "ab":
        flow.complete(f"rewrite_{name}", {"_error": {"message": f"mine, {name}"}})
    for name in "ab":
        claim = flow.claim(f"handle_{name}")
        assert flow.world.work(claim).params == {"error": f"mine, {name}"}
        flow.finish(claim, Completed(output={}))
    assert [params(flow, f"last_{name}") for name in "ab"] == [[{"error": "mine, a"}], [{"error": "mine, b"}]]


def test_s11_transform_adds_to_the_error_that_is_handled_where_it_stands() -> None:
    world = PureWorld()
    add = {"type": "step", "id": "add", "handler": "transform", "params": {"target": "data._error.more", "value": 1}}
    other = guarded(step("other"), block_id="b", risky="risky_b")
    seen = {"error": "{{ data._error.message }}", "more": "{{ data._error.more }}"}
    mine = guarded(add, step("handle", params=seen), block_id="a", risky="risky_a")
    flow = Flow(world, world.create([{"type": "parallel", "id": "p", "branches": [[mine], [other]]}]))
    for name in "ab":
        flow.fail(f"risky_{name}", message=f"no {name}")
    flow.run()
    assert params(flow, "handle") == [{"error": "no a", "more": 1}]


def added_to_the_error_of_the_first(size: int, *, first: str = "", second: str = "") -> Flow:
    """Two branches have failed, with details of some size; then a `transform` adds `size` bytes to the first one's."""
    world = PureWorld(max_context_bytes=1000)
    params = {"target": "data._error.more", "value": "x" * size}
    add = {"type": "step", "id": "add", "handler": "transform", "params": params}
    mine = guarded(step("do"), add, block_id="a", risky="risky_a")
    other = guarded(step("other"), block_id="b", risky="risky_b")
    flow = Flow(world, world.create([{"type": "parallel", "id": "p", "branches": [[mine], [other]]}]))
    flow.fail("risky_a", message="no a", details=first)
    flow.fail("risky_b", message="no b", details=second)
    flow.complete("do")
    return flow.run()


def test_s2_3_what_is_added_to_the_error_of_a_list_is_weighed_with_that_and_not_with_the_newest_one() -> None:
    assert added_to_the_error_of_the_first(500, first="x" * 600).tree()["add"] == "failed"
    assert added_to_the_error_of_the_first(500, second="x" * 600).tree()["add"] == "completed"


def test_s8_1_error_that_a_client_writes_is_read_in_every_list_that_handles_one() -> None:
    flow = failed_side_by_side("do", "see", "look")
    flow.signal("update_context", {"data": {"_error": {"message": "told"}}})
    for name in "ab":
        flow.complete(f"do_{name}")
        claim = flow.claim(f"see_{name}")
        assert flow.world.work(claim).params == {"error": "told"}
        flow.finish(claim, Completed(output={}))
    flow.world.replace_context(flow.id, {"_error": {"message": "replaced"}}, {})
    assert [params(flow, f"look_{name}") for name in "ab"] == [[{"error": "replaced"}], [{"error": "replaced"}]]


def test_s8_1_client_that_replaces_other_data_leaves_every_list_its_own_error() -> None:
    flow = failed_side_by_side("do", "see")
    flow.world.replace_context(flow.id, {**flow.data, "other": 1}, {})
    for name in "ab":
        flow.complete(f"do_{name}")
    assert [params(flow, f"see_{name}") for name in "ab"] == [[{"error": "no a"}], [{"error": "no b"}]]


def test_s8_1_list_whose_error_a_client_has_left_out_reads_none_although_another_one_is_handled_since() -> None:
    world = PureWorld()
    mine = guarded(step("do"), step("see", params={"error": "{{ data._error }}"}), block_id="a", risky="risky_a")
    other = guarded(step("look", params=MESSAGE), block_id="b", risky="risky_b")
    flow = Flow(world, world.create([{"type": "parallel", "id": "p", "branches": [[mine], [other]]}]))
    flow.fail("risky_a", message="no a")
    world.replace_context(flow.id, {"other": 1}, {})
    flow.fail("risky_b", message="no b")
    flow.complete("do")
    assert params(flow, "see") == [{"error": None}]
    assert params(flow, "look") == [{"error": "no b"}]


def test_s8_1_data_that_are_no_object_are_read_in_a_list_that_handles_an_error() -> None:
    world = PureWorld()
    seen = {"first": "{{ data.0 }}", "whole": "{{ data }}"}
    flow = Flow(world, world.create([guarded(step("do"), step("see", params=seen))]))
    flow.fail("risky")
    world.replace_context(flow.id, [1, 2], {})
    flow.complete("do", [])
    assert params(flow, "see") == [{"first": 1, "whole": [1, 2]}]


def test_s9_7_retry_goes_on_with_the_error_as_the_list_has_left_it_or_a_client_since() -> None:
    for told in (False, True):
        flow = failed_side_by_side("rewrite", "handle")
        flow.complete("rewrite_a", {"_error": {"message": "mine"}})
        flow.fail("handle_a")
        flow.complete("rewrite_b", {"_error": {"message": "other"}})
        flow.fail("handle_b")
        if told:
            flow.world.replace_context(flow.id, {"_error": {"message": "told"}}, {})
        flow.world.retry(flow.id)
        expected = ["told", "told"] if told else ["mine", "other"]
        assert [params(flow, f"handle_{name}")[0]["error"] for name in "ab"] == expected


def test_s3_11_retried_roll_back_goes_on_with_the_error_that_was_written_over() -> None:
    world = PureWorld()
    of = {"failed": "{{ context.data._error.failed_step | none }}"}
    steps = [
        {"id": "s0", "action": step("a0"), "compensation": step("release", params=of)},
        {"id": "s1", "action": step("a1"), "compensation": step("refund", params=of)},
        {"id": "s2", "action": step("a2")},
    ]
    flow = Flow(world, world.create([{"type": "saga", "id": "s", "steps": steps}]))
    flow.complete("a0")
    flow.complete("a1")
    flow.fail("a2")
    flow.complete("refund", {"_error": "done"})
    claim = flow.claim("release")
    assert world.work(claim).params == {"failed": "none"}
    flow.finish(claim, Failed(message="no", retryable=False))
    world.retry(flow.id)
    assert params(flow, "release") == [{"failed": "none"}]


def test_s6_error_is_a_member_of_the_data_and_no_root_of_templates() -> None:
    world = PureWorld()
    log = {
        **step("handle", params={"message": "{{ _error.message }}", "of": "{{ data._error.message }}"}),
        "handler": "log",
    }
    flow = Flow(world, world.create([guarded(log)]))
    flow.fail("risky", message="no")
    assert flow.run().state == "failed"
