"""Single creations that arrive at the same time share a transaction, and nothing else (contract, api §10.2)."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from orchestrator.api import admission
from orchestrator.api.instance_shapes import CreateInstance
from orchestrator.api.services import Services
from orchestrator.exchange import Started
from orchestrator.store.instances import IdempotencyKey
from orchestrator.store.session import Transaction
from tests.contract.client import TENANT, Api, step
from tests.support.blocked import LONG, wait_until_blocked
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
    sequence = api.sequence(step("a", "noop"))
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


@pytest.fixture
def begun_once(api: Api, reception: Reception) -> tuple[Services, list[CreateInstance]]:
    """Give services that have started some instances, and so know their sequence, and requests for more of them."""
    services, requests = reception.services(api.engine), _requests(api, *({} for _ in range(5)))
    admission.begin(services, requests)
    return services, requests


def _messages(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Note what is sent to the store from here on."""
    sent: list[bytes] = []
    send = Transaction._send

    def noted(tx: Transaction, statement: bytes) -> None:
        sent.append(b"\n".join([*tx._waiting, statement]))
        send(tx, statement)

    monkeypatch.setattr(Transaction, "_send", noted)
    return sent


def test_instances_of_a_known_sequence_are_begun_with_one_message(api: Api, begun_once, monkeypatch):
    services, requests = begun_once
    services.engine.know_handlers()
    sent = _messages(monkeypatch)
    begun = admission.begin(services, [*requests, requests[0].model_copy(update={"idempotency_key": str(uuid4())})])
    assert sum(b"hold_as_seen" in message for message in sent) == 1
    assert [message for message in sent if b"heads" in message or b"COMMIT" in message] == []
    monkeypatch.undo()
    api.run_builtins()
    assert [api.state(str(each.id)) for each in begun if isinstance(each, Started)] == ["completed"] * 6


def test_api_10_2_known_key_gives_the_first_instance_to_those_who_are_begun_at_once(begun_once):
    services, requests = begun_once
    [keyed] = [requests[0].model_copy(update={"idempotency_key": str(uuid4())})]
    [first] = admission.begin(services, [keyed])
    other, again, twice = admission.begin(services, [requests[1], keyed, keyed])
    assert isinstance(other, Started)
    assert not other.is_duplicate
    assert again == twice == Started(first.id, is_duplicate=True)


def test_api_10_2_key_that_another_process_takes_meanwhile_gives_its_instance(begun_once):
    services, requests = begun_once
    key, theirs = str(uuid4()), uuid4()
    keyed = requests[0].model_copy(update={"idempotency_key": key})
    with ThreadPoolExecutor(1) as other, services.store.transaction() as tx:
        tx.reserve_keys({IdempotencyKey(TENANT, False, key): theirs})
        begun = other.submit(admission.begin, services, [keyed, requests[1]])
        wait_until_blocked(services.store, begun)
        tx.commit()
        again, free = begun.result(LONG)
    assert again == Started(theirs, is_duplicate=True)
    assert isinstance(free, Started)
    assert not free.is_duplicate


def test_api_10_2_sequence_that_was_deprecated_meanwhile_is_not_started(api: Api, begun_once):
    services, requests = begun_once
    assert api.http.post(f"/sequences/{requests[0].sequence_id}/deprecate").status_code == 204
    begun = admission.begin(services, requests)
    assert [str(each) for each in begun] == [f"sequence {requests[0].sequence_id} is deprecated"] * 5


def test_api_10_2_sequence_that_was_deleted_meanwhile_is_not_found(api: Api, begun_once):
    services, requests = begun_once
    sequence = requests[0].sequence_id
    api.run_builtins()
    assert api.http.delete(f"/sequences/{sequence}").status_code == 204
    assert [type(each).__name__ for each in admission.begin(services, requests)] == ["NotFound"] * 5


def test_instances_begin_at_the_time_of_the_store_after_the_machine_has_slept(api: Api, begun_once):
    services, requests = begun_once
    clock = services.store.clock
    clock._at_zero -= timedelta(hours=8)  # so long the monotonic clock has stood still
    begun = admission.begin(services, requests)
    with services.store.transaction() as tx:
        now = tx.now()
    for each in begun:
        created_at = datetime.fromisoformat(api.instance(str(each.id))["created_at"])
        assert timedelta() <= now - created_at < timedelta(minutes=1)


def test_a_group_takes_one_transaction_for_what_it_begins(api: Api, reception: Reception):
    requests = _requests(api, *({} for _ in range(5)))
    begun = admission.begin(reception.services(api.engine), requests)
    moments = {api.instance(str(each.id))["created_at"] for each in begun if isinstance(each, Started)}
    assert len(moments) == 1
