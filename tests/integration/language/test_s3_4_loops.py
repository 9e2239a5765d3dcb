"""Sections 3.4 and 3.5: loops and for_eachs."""

import pytest

from tests.support.drive import World, ext, fail, for_each, gate, loop, say, step

# -- 3.4 loop --------------------------------------------------------------------------------------------------------


def test_s3_4_loop_at_its_cap_completes(world: World) -> None:
    flow = world.start([loop("l", [step("a")], max_iterations=3)]).run()
    assert flow.check().state == "completed"
    assert len(flow.rows("a")) == 3
    assert [(row.output, row.attempt) for row in flow.rows("l")] == [({"_iterations": n}, n) for n in (1, 2, 3)]


def test_s3_4_falsy_condition_completes_without_a_row(world: World) -> None:
    flow = world.start([loop("l", [step("a")], "go")]).run()
    assert (flow.check().state, flow.rows()) == ("completed", [])
    assert flow.tree() == {"l": "completed", "a": "skipped"}


def test_s3_4_inner_loop_runs_afresh_in_each_outer_iteration(world: World) -> None:
    inner = loop("inner", [step("a")], "iteration < 2")
    flow = world.start([loop("outer", [inner, step("b")], "iteration < 3")]).run()
    assert flow.check().state == "completed"
    counts = {block_id: len(flow.rows(block_id)) for block_id in ("a", "b", "inner", "outer")}
    assert counts == {"a": 6, "b": 3, "inner": 6, "outer": 3}


def test_s3_4_failed_body_fails_the_loop(world: World) -> None:
    flow = world.start([loop("l", [step("a"), fail("f"), step("b")], max_iterations=3)]).run()
    assert flow.check().state == "failed"
    assert (len(flow.rows("a")), flow.rows("l"), flow.rows("b")) == (1, [], [])


def test_s3_4_continue_on_error_goes_on(world: World) -> None:
    flow = world.start([loop("l", [step("a"), fail("f")], max_iterations=3, continue_on_error=True), step("z")]).run()
    assert flow.check().state == "completed"
    assert (len(flow.rows("a")), len(flow.rows("l")), len(flow.rows("z"))) == (3, 3, 1)


def test_s3_4_break_on_is_tested_after_the_body(world: World) -> None:
    flow = world.start([loop("l", [say("a", "{{ runtime.attempt }}")], break_on="iteration >= 1")]).run()
    assert flow.check().state == "completed"
    assert len(flow.rows("a")) == 2


def test_s3_4_poll_interval_schedules_but_not_after_the_last_iteration(world: World) -> None:
    flow = world.start([loop("l", [step("a")], max_iterations=2, poll_interval=60)]).run()
    assert flow.check().state == "scheduled"
    assert 58 < flow.due_in() <= 60
    flow.pass_time()
    assert flow.run().check().state == "completed"


def test_s3_4_condition_reads_outputs_of_its_own_body_from_the_second_iteration(world: World) -> None:
    flow = world.start([loop("l", [ext("analyze")], "outputs.analyze.more == true")])
    flow.complete("analyze", {"more": True})
    flow.complete("analyze", {"more": False})
    assert flow.check().state == "completed"
    assert len(flow.rows("analyze")) == 2


def test_s3_4_condition_counts_as_satisfied_until_the_body_has_spoken(world: World) -> None:
    """In each activation of the loop anew: what an earlier one has said does not count."""
    inner = loop("l", [ext("a"), step("analyze", when="ready == true")], "outputs.analyze.more == true")
    flow = world.start([loop("outer", [inner], "iteration < 2")])
    for ready in (False, False, True, False, True):
        assert flow.check().standing() == {"a": "ready"}
        flow.complete("a", {"ready": ready})
        world.restart()
        flow.run()
    assert flow.check().state == "completed"
    assert (len(flow.rows("a")), len(flow.rows("analyze"))) == (5, 2)


def test_s3_4_finished_iterations_survive_a_crash(world: World) -> None:
    flow = world.start([loop("l", [step("a"), step("b")], "iteration < 4")])
    flow.run(between=world.restart)
    assert (flow.state, len(flow.rows("a")), len(flow.rows("b"))) == ("completed", 4, 4)


# -- 3.5 for_each ----------------------------------------------------------------------------------------------------


def test_s3_5_items_run_one_after_another(world: World) -> None:
    body = [say("a", "{{ context.data.item }}"), say("b", "{{ item }}/{{ index }}/{{ item_index }}")]
    flow = world.start([for_each("e", "items", body)], data={"items": ["x", "y"]}).run()
    assert flow.check().state == "completed"
    assert [row.block_id for row in flow.rows() if row.block_id != "e"] == ["a", "b", "a", "b"]
    assert [o["message"] for o in flow.outputs("a")] == ["x", "y"]
    assert [o["message"] for o in flow.outputs("b")] == ["x/0/0", "y/1/1"]
    assert [(o["_index"], o["_total"], o["_item_var"]) for o in flow.outputs("e")] == [(1, 2, "item"), (2, 2, "item")]


@pytest.mark.parametrize("collection", ["items", "data.items", "context.data.items", "{{ data.items }}"])
def test_s3_5_collection_is_a_path_or_a_template(world: World, collection: str) -> None:
    flow = world.start([for_each("e", collection, [step("a")])], data={"items": [1, 2]}).run()
    assert len(flow.check().rows("a")) == 2


@pytest.mark.parametrize("items", [None, [], {"a": 1}, "text", 7])
def test_s3_5_what_is_no_array_completes_at_once(world: World, items) -> None:
    flow = world.start([for_each("e", "items", [step("a")])], data={"items": items}).run()
    assert (flow.check().state, flow.rows()) == ("completed", [])
    assert flow.tree()["a"] == "skipped"


def test_s3_5_array_is_captured_once(world: World) -> None:
    flow = world.start([for_each("e", "items", [ext("a")])], data={"items": [1, 2]})
    flow.complete("a", {"items": []})
    flow.signal("update_context", {"data": {"items": [7, 8, 9]}})
    world.restart()
    assert world.work(flow.claim("a")).scope.bindings == {"item": 2}


def test_s3_5_array_is_cut_to_max_iterations(world: World) -> None:
    flow = world.start([for_each("e", "items", [step("a")], max_iterations=2)], data={"items": [1, 2, 3]}).run()
    assert len(flow.check().rows("a")) == 2


def test_s3_5_failed_body_fails_the_block_and_stops_the_items(world: World) -> None:
    body = [fail("f", when="item == 2"), say("a", "{{ item }}")]
    flow = world.start([for_each("e", "items", body)], data={"items": [1, 2, 3]}).run()
    assert flow.check().state == "failed"
    assert [o["message"] for o in flow.outputs("a")] == [1]
    assert "item" not in flow.data


def test_s3_5_variable_is_gone_after_the_block(world: World) -> None:
    flow = world.start([for_each("e", "items", [step("a")]), say("b", "{{ data.item | none }}")], data={"items": [1]})
    assert flow.run().check().output("b") == {"message": "none"}


def test_s3_5_variable_is_gone_although_a_worker_has_named_a_member_like_it(world: World) -> None:
    inner = for_each("inner", "cells", [ext("a"), say("b", "{{ data.row }}{{ data.cell }}")], item_var="cell")
    block = for_each("outer", "rows", [inner], item_var="row")
    flow = world.start([block, say("z", "{{ data.cell | none }}")], data={"rows": [1, 2], "cells": [3]})
    for name in ("x", "y"):
        flow.complete("a", {"row": name, "cell": name, name: True})
        flow.run()
    assert (flow.check().state, flow.output("z")) == ("completed", {"message": "none"})
    assert [o["message"] for o in flow.outputs("b")] == ["13", "23"]
    assert flow.outputs("a")[1] == {"row": "y", "cell": "y", "y": True}
    assert flow.data == {"rows": [1, 2], "cells": [3], "x": True, "y": True}


def test_s3_5_variable_is_gone_although_a_gate_or_a_transform_has_written_it(world: World) -> None:
    body = [
        gate("a", gate={"store_as": "item"}),
        step("b", handler="transform", params={"target": "data.item.x", "value": 1}),
        step("row", wait_for_signal=True),
        say("c", "{{ data.item }}"),
    ]
    blocks = [
        for_each("e", "items", [for_each("f", "items", body, item_var="row")]),
        say("z", "{{ data.item | none }}"),
    ]
    flow = world.start(blocks, data={"items": [5]}).run()
    flow.signal({"custom": "human_input:a"}, {"value": "yes"}).run()
    flow.signal({"custom": "row"}, {"n": 1}).run()
    assert (flow.check().state, flow.output("c"), flow.output("z")) == (
        "completed",
        {"message": 5},
        {"message": "none"},
    )
    assert (flow.output("row"), flow.data) == ({"n": 1}, {"items": [5]})


def test_s3_5_concurrent_items_share_what_workers_write(world: World) -> None:
    flow = world.start([for_each("e", "items", [ext("a")], concurrency=2)], data={"items": [1]})
    flow.complete("a", {"item": 9})
    assert (flow.run().check().state, flow.data) == ("completed", {"items": [1], "item": 9})


def test_s3_5_what_lies_behind_a_concurrent_block_reads_the_newest_row_of_its_own_item(world: World) -> None:
    inner = for_each("inner", "cells", [say("s", "{{ row }}{{ cell }}")], item_var="cell", concurrency=2)
    again = loop("again", [inner, say("t", "{{ row }}: {{ outputs.s.message }}")], "iteration < 2")
    block = for_each("outer", "rows", [again], item_var="row", concurrency=2)
    behind = say("z", "{{ outputs.s.message }}")
    flow = world.start([block, behind], data={"rows": [1, 2], "cells": ["x", "y"]}).run()
    assert sorted(o["message"] for o in flow.check().outputs("t")) == ["1: 1y", "1: 1y", "2: 2y", "2: 2y"]
    assert flow.output("z") == {"message": flow.outputs("s")[-1]["message"]}


def test_s3_5_inner_item_shadows_the_outer(world: World) -> None:
    inner = for_each("inner", "row.cells", [say("a", "{{ row.name }}{{ cell }}")], item_var="cell")
    data = {"rows": [{"name": "x", "cells": [1, 2]}, {"name": "y", "cells": [3]}]}
    flow = world.start([for_each("outer", "rows", [inner], item_var="row")], data=data).run()
    assert [o["message"] for o in flow.check().outputs("a")] == ["x1", "x2", "y3"]


def test_s3_5_context_replaced_in_mid_iteration_keeps_the_item(world: World) -> None:
    flow = world.start([for_each("e", "items", [ext("a"), say("b", "{{ item }}-{{ data.k }}")])], data={"items": [5]})
    world.replace_context(flow.id, {"k": "new"}, {})
    flow.complete("a")
    assert flow.run().check().output("b") == {"message": "5-new"}


def test_s3_5_concurrency_starts_items_in_order_up_to_the_limit(world: World) -> None:
    flow = world.start([for_each("e", "items", [ext("a")], concurrency=2)], data={"items": [1, 2, 3, 4]})
    assert sorted(s.key.iteration for s in flow.steps()) == [(0,), (1,)]
    flow.complete("a", index=1)
    assert sorted(s.key.iteration for s in flow.check().steps()) == [(0,), (2,)]


def test_s3_5_concurrency_reads_own_lane_outputs(world: World) -> None:
    body = [ext("a"), say("b", "{{ outputs.a.v }}")]
    flow = world.start([for_each("e", "items", body, concurrency=3), say("z", "{{ outputs.b.message }}")])
    assert flow.check().state == "running"
    flow = world.start(
        [for_each("e", "items", body, concurrency=3), say("z", "{{ outputs.b.message }}")], data={"items": [1, 2, 3]}
    )
    for number in (2, 1, 0):
        flow.complete("a", {"v": f"v{number}"}, index=number)
    world.restart()
    flow.run()
    assert {row.iteration: row.output["message"] for row in flow.rows("b")} == {(0,): "v0", (1,): "v1", (2,): "v2"}
    assert flow.check().output("z") == flow.output("b")
    assert "item" not in flow.data


def test_s3_5_concurrency_lets_items_in_progress_finish_after_a_failure(world: World) -> None:
    body = [ext("a"), step("b")]
    flow = world.start([for_each("e", "items", body, concurrency=2)], data={"items": [1, 2, 3, 4]})
    flow.fail("a")
    assert flow.check().state == "waiting"
    flow.complete("a")
    flow.run()
    assert flow.check().state == "failed"
    assert [row.iteration for row in flow.rows("b")] == [(1,)]
    assert flow.retry().check().standing() == {"a": "ready"}
    for _ in range(3):
        flow.complete("a")
        flow.run()
    assert flow.check().state == "completed"
    assert sorted(row.iteration for row in flow.rows("a")) == [(0,), (1,), (2,), (3,)]
