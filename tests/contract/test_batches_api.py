"""Instances that are created together read and run as if each had been created alone (contract, api §10.3)."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.contract.client import Api, step

OWN = {"id", "instance_id", "run_id", "parent_id", "created_at", "updated_at", "started_at", "current_step_started_at"}
OWN |= {"completed_at", "next_fire_at"}
LATER = "2999-01-01T00:00:00Z"


def nameless(value: Any) -> Any:
    """Take off what each instance has for itself: ids and times."""
    if isinstance(value, dict):
        return {name: nameless(each) for name, each in value.items() if name not in OWN or each is None}
    return [nameless(each) for each in value] if isinstance(value, list) else value


def views(api: Api, instance_id: str) -> list[Any]:
    """Read everything there is to be read of an instance."""
    paths = ("", "/outputs", "/tree", "/audit", "/timeline")
    return [nameless(api.http.get(f"/instances/{instance_id}{path}").json()) for path in paths]


def batch(api: Api, *bodies: dict[str, Any]) -> list[str]:
    """Create instances together; returns their ids."""
    answer = api.http.post("/instances/batch", params={"ids": "true"}, json={"instances": list(bodies)})
    assert answer.status_code == 201, answer.text
    return answer.json()["ids"]


GUARDED = step("a", "noop", when="data.n == 2")
GATE = step("a", "noop", wait_for_input={"prompt": "go on?", "timeout": 60_000})
SEQUENCES = {
    "built in": ([step("a", "noop"), step("b")], {}),
    "task": ([step("a", params={"n": 1}, queue_name="q", timeout=60_000)], {}),
    "task with a template": ([step("a", params={"n": "{{ data.n }}"})], {}),
    "guard": ([GUARDED, step("b")], {}),
    "gate": ([GATE], {}),
    "delay": ([step("a", "noop", delay={"duration": 86_400_000})], {}),
    "parallel": ([{"type": "parallel", "id": "p", "branches": [[step("a", "noop")], [step("b")]]}], {}),
    "interceptor": ([step("a", "noop")], {"interceptors": {"before_step": {"handler": "log", "params": {"n": 1}}}}),
    "sla": ([step("a", "noop")], {"sla": {"max_runtime": 60_000}}),
}


@pytest.mark.needs_own_server("nobody may run its steps in between")
@pytest.mark.parametrize("name", SEQUENCES)
def test_api_10_3_an_instance_of_a_batch_reads_as_one_created_alone(api: Api, name: str):
    blocks, members = SEQUENCES[name]
    sequence = api.sequence(*blocks, **members)
    written = {"metadata": {"m": 1}, "priority": "High", "budget": {"max_steps": 9}, "context": {"data": {"n": 2}}}
    alone = api.start_of(sequence, **written)
    together = batch(api, *[api.body(sequence, **written)] * 3)
    assert len({api.instance(each)["context"]["runtime"]["run_id"] for each in (alone, *together)}) == 4
    assert [views(api, each) for each in together] == [views(api, alone)] * 3
    api.run_builtins()
    assert [views(api, each) for each in together] == [views(api, alone)] * 3


def test_api_10_3_each_of_a_batch_keeps_what_it_was_given(api: Api):
    alike, guarded = api.sequence(step("a", "noop")), api.sequence(GUARDED)
    bodies = [
        api.body(
            (alike, guarded)[number % 2],
            context={"data": {"n": number}, "config": {"c": number}, "audit": [{"event": str(number)}]},
            metadata={"number": number},
            concurrency_key=f"c{number}",
            priority=("Low", "High")[number % 3 == 0],
            **({"next_fire_at": LATER} if number == 5 else {}),
        )
        for number in range(8)
    ]
    ids = batch(api, *bodies, api.body(alike))
    api.run_builtins()
    for body, each in zip(bodies, ids, strict=False):
        found = api.instance(each)
        for name in ("sequence_id", "metadata", "concurrency_key", "priority"):
            assert found[name] == body[name]
        for name in ("data", "config"):
            assert found["context"][name] == body["context"][name]
        assert found["context"]["audit"][0]["event"] == body["context"]["audit"][0]["event"]
    assert [api.state(each) for each in ids] == ["completed"] * 5 + ["scheduled"] + ["completed"] * 3
    assert api.instance(ids[5])["next_fire_at"] == LATER
    bare = api.instance(ids[8])
    assert (bare["metadata"], bare["context"]["data"], bare["context"]["config"]) == (None, None, None)


def test_api_10_3_keys_inside_a_batch_and_of_others_before_it(api: Api):
    sequence = api.sequence(step("a", "noop"))
    [first] = batch(api, api.body(sequence, idempotency_key="b"))
    keys = ["c", "b", None, "a", "c", None, "a"]
    bodies = [api.body(sequence, **({"idempotency_key": key} if key else {})) for key in keys]
    answer = api.http.post("/instances/batch", params={"ids": "true"}, json={"instances": bodies}).json()
    ids = answer["ids"]
    assert answer["count"] == 4
    assert ids[1] == first
    assert (ids[0], ids[3]) == (ids[4], ids[6])
    assert len(set(ids)) == 5
    assert len(api.http.get("/instances").json()["items"]) == 5


def test_api_10_3_the_first_entry_that_is_refused_is_named(api: Api):
    """Shapes come before names, and both go by the order of the entries."""
    good = api.body(api.sequence(step("a", "noop")))
    shapes = [good, {**good, "priority": "Urgent"}, {**good, "sequence_id": 7}, 7]
    names = [good, {**good, "idempotency_key": "k" * 5000}, {**good, "namespace": " "}, {**good, "tenant_id": ""}]
    for entries, status, told in (
        (shapes, 422, "instances[1]: Failed to deserialize the JSON body: priority: "),
        ([good, *shapes[2:]], 422, "instances[1]: Failed to deserialize the JSON body: sequence_id: "),
        ([*names, 7], 422, "instances[4]: Failed to deserialize the JSON body: "),
        (names, 400, "idempotency_key is longer than"),
        ([good, good, *names[2:]], 400, "namespace must not be empty"),
        ([good, names[3], names[2]], 400, "tenant_id must not be empty"),
    ):
        answer = api.http.post("/instances/batch", json={"instances": entries})
        assert (answer.status_code, told in answer.text) == (status, True), answer.text
    assert api.http.get("/instances").json()["items"] == []


@pytest.mark.needs_own_server("nobody may run its steps in between")
def test_api_10_3_many_batches_at_once(api: Api):
    """Every connection learns the statements for itself, and none waits for another one."""
    sequence = api.sequence(step("a", "noop"))

    def post(number: int) -> list[str]:
        return batch(api, *[api.body(sequence, metadata={"batch": number})] * 20)

    with ThreadPoolExecutor(6) as pool:
        ids = [each for part in pool.map(post, range(12)) for each in part]
    assert len(set(ids)) == 240
    assert {api.instance(each)["state"] for each in ids[::40]} == {"running"}
