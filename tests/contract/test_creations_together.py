"""Single creations that arrive at the same time share a transaction, and nothing else (contract, api §10.2)."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

from orchestrator.api import admission
from orchestrator.api.instance_shapes import CreateInstance
from orchestrator.exchange import Started
from tests.contract.client import Api, step
from tests.support.serving import Reception

AT_ONCE = 16


def _statuses(api: Api, bodies: list[dict[str, Any]]) -> list[tuple[int, Any]]:
    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(lambda body: api.http.post("/instances", json=body), bodies))
    return [(answer.status_code, answer.json()) for answer in answers]


def test_api_10_2_each_of_many_at_once_gets_its_own_answer(api: Api):
    sequence = api.sequence(step("a"))
    good = [api.body(sequence) for _ in range(AT_ONCE)]
    unknown = [api.body(str(uuid4())) for _ in range(AT_ONCE)]
    answers = _statuses(api, [each for pair in zip(good, unknown, strict=True) for each in pair])
    assert [status for status, _ in answers] == [201, 404] * AT_ONCE
    created = [answer["id"] for status, answer in answers if status == 201]
    assert len(set(created)) == AT_ONCE
    assert {api.instance(each)["id"] for each in created} == set(created)


def test_api_10_2_of_many_at_once_with_one_key_one_is_created(api: Api):
    sequence = api.sequence(step("a"))
    answers = _statuses(api, [api.body(sequence, idempotency_key="once") for _ in range(AT_ONCE)])
    assert sorted(status for status, _ in answers) == [200] * (AT_ONCE - 1) + [201]
    assert len({answer["id"] for _, answer in answers}) == 1
    assert len(api.http.get("/instances", params={"sequence_id": sequence}).json()["items"]) == 1


def _requests(api: Api, *members: dict[str, Any]) -> list[CreateInstance]:
    sequence = api.sequence(step("a"))
    return [CreateInstance.model_validate(api.body(sequence, **each)) for each in members]


def test_one_that_the_store_refuses_does_not_fail_those_beside_it(api: Api, reception: Reception):
    """The text of its key is too long for an index, which the store alone can tell."""
    too_long = "".join(str(uuid4()) for _ in range(2000))
    requests = _requests(api, {}, {"idempotency_key": too_long}, {"idempotency_key": "kept"})
    first, refused, kept = admission.begin(reception.services(api.engine), requests)
    assert isinstance(first, Started)
    assert isinstance(refused, Exception)
    assert isinstance(kept, Started)
    assert len(api.http.get("/instances", params={"sequence_id": str(requests[0].sequence_id)}).json()["items"]) == 2


def test_a_group_takes_one_transaction_for_what_it_begins(api: Api, reception: Reception):
    requests = _requests(api, *({} for _ in range(5)))
    begun = admission.begin(reception.services(api.engine), requests)
    moments = {api.instance(str(each.id))["created_at"] for each in begun if isinstance(each, Started)}
    assert len(moments) == 1
