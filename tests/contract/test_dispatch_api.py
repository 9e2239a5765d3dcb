"""Push queues: their configuration, and tasks pushed to a real receiver (contract, api §13.8, §20.6)."""

import hashlib
import hmac
import threading
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest

from orchestrator import posting, pushing
from orchestrator.egress import Egress
from orchestrator.engine import Engine
from orchestrator.posting import Posting, post_all
from orchestrator.pusher import Pusher
from orchestrator.pushing import Pushes
from orchestrator.settings import Settings
from orchestrator.store.postgres import PostgresStore
from tests.contract.client import CALL, TENANT, Api, step
from tests.support.receiver import Answer, Received, Receiver, receiving

QUEUE, SECRET = "remote", "shared between us"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"allow_internal_urls": True})


@pytest.fixture
def pusher(store: PostgresStore, engine: Engine) -> Pusher:
    return Pusher(Pushes(store, engine))


def configure(api: Api, receiver: Receiver, **fields: Any) -> dict[str, Any]:
    body = {"tenant_id": TENANT, "queue_name": QUEUE, "mode": "push", "push_url": receiver.url, **fields}
    answer = api.http.post("/queues/dispatch", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def start(api: Api, **fields: Any) -> str:
    return api.start(step("a", queue_name=QUEUE, **fields), data={"n": 7})


def be_due(api: Api) -> None:
    """Let what waits for its next try be due."""
    with api.engine.store.transaction() as tx:
        tx.execute("UPDATE task_pushes SET due_at = clock_timestamp() WHERE due_at IS NOT NULL")


def metric(api: Api, name: str) -> float:
    text = httpx.get(f"{api.root}/metrics", headers={"X-Tenant-Id": TENANT}, **CALL).text
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name}_total ")))


def says(value: Any, status: int = 200) -> Any:
    return lambda _received: Answer(status=status, content=orjson.dumps(value))


# -- configuration ---------------------------------------------------------------------------------------------------


@pytest.mark.needs_own_server("tasks are pushed to a private address")
def test_api_13_8_queue_is_configured_listed_and_deleted(api: Api, receiver: Receiver) -> None:
    made = configure(api, receiver, secret=SECRET)
    assert list(made) == ["tenant_id", "queue_name", "mode", "push_url", "created_at", "updated_at"]
    assert api.http.get("/queues/dispatch").json() == [made]
    changed = configure(api, receiver, mode="poll", push_url=None)
    assert "push_url" not in changed
    assert changed["created_at"] == made["created_at"]
    assert changed["updated_at"] > made["updated_at"]
    path = f"/queues/dispatch/{TENANT}/{QUEUE}"
    assert api.http.delete(path).status_code == 204
    assert api.http.get("/queues/dispatch").json() == []
    assert api.http.delete(path).status_code == 404


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"push_url": None}, 400),
        ({"push_url": " "}, 400),
        ({"push_url": "ftp://example.com"}, 400),
        ({"push_url": "nonsense"}, 400),
        ({"push_url": "http://"}, 400),
        ({"queue_name": " "}, 400),
        ({"queue_name": "q" * 6000}, 400),
        ({"mode": "pull"}, 422),
        ({"mode": None}, 422),
        ({"tenant_id": ""}, 422),
        ({"tenant_id": "other"}, 403),
        ({"push_url": 7}, 422),
        ({"sync": "yes"}, 422),
    ],
)
def test_api_13_8_configuration_is_refused(api: Api, receiver: Receiver, change: dict[str, Any], status: int) -> None:
    body = {"tenant_id": TENANT, "queue_name": QUEUE, "mode": "push", "push_url": receiver.url, **change}
    assert api.http.post("/queues/dispatch", json=body).status_code == status
    assert api.http.get("/queues/dispatch").json() == []


@pytest.mark.needs_own_server("tasks are pushed to a private address")
def test_api_13_8_foreign_queues_are_neither_seen_nor_deleted(api: Api, receiver: Receiver) -> None:
    configure(api, receiver)
    other = {"X-Tenant-Id": "other"}
    assert api.http.get("/queues/dispatch", headers=other).json() == []
    assert api.http.get(f"/queues/dispatch?tenant_id={TENANT}", headers=other).json() == []
    assert api.http.delete(f"/queues/dispatch/{TENANT}/{QUEUE}", headers=other).status_code == 404
    assert len(api.http.get("/queues/dispatch").json()) == 1


# -- pushing ---------------------------------------------------------------------------------------------------------


def test_api_13_8_task_is_pushed_signed_and_stays_pollable(api: Api, receiver: Receiver, pusher: Pusher) -> None:
    configure(api, receiver, secret=SECRET)
    instance_id = start(api, params={"x": "{{ context.data.n }}"}, timeout=60000)
    assert pusher.tick().done == 1
    [got] = receiver.received
    signed = got.headers["x-orch8-timestamp"].encode() + b"." + got.content
    assert got.headers["x-orch8-signature"] == f"sha256={hmac.digest(SECRET.encode(), signed, hashlib.sha256).hex()}"
    pushed = got.json()
    [task] = api.poll(queue_name=QUEUE)
    assert pushed == {
        "task_id": task["id"],
        "instance_id": instance_id,
        "block_id": "a",
        "handler_name": "outside",
        "queue_name": QUEUE,
        "params": {"x": 7},
        "context": pushed["context"],
        "attempt": 0,
        "timeout_ms": 60000,
        "outputs": {},
    }
    assert (pushed["context"]["data"], task["params"]) == ({"n": 7}, {"x": 7})  # type: ignore[index]
    assert api.report(task, "complete", output={"done": True}).status_code == 200
    assert api.state(instance_id) == "completed"
    assert pusher.tick().done == 0
    assert (metric(api, "orch8_tasks_pushed"), metric(api, "orch8_tasks_push_failed")) == (1, 0)


def test_api_13_8_only_tasks_of_the_queue_and_tenant_are_pushed(api: Api, receiver: Receiver, pusher: Pusher) -> None:
    configure(api, receiver)
    configure(api, receiver, queue_name="polled", mode="poll")
    for fields in ({"queue_name": "polled"}, {"queue_name": "another"}, {}):
        api.start(step("a", **fields))
    api.start(step("a", "noop", queue_name=QUEUE))
    assert pusher.tick().done == 0
    assert receiver.received == []


def test_api_13_8_two_secrets_sign_while_one_takes_the_place_of_the_other(
    api: Api, receiver: Receiver, pusher: Pusher
) -> None:
    shown = configure(api, receiver, secret=SECRET, second_secret="next")
    assert not {"secret", "second_secret"} & set(shown)
    start(api)
    pusher.tick()
    [got] = receiver.received
    signed = got.headers["x-orch8-timestamp"].encode() + b"." + got.content
    for name, secret in (("x-orch8-signature", SECRET), ("x-orch8-second-signature", "next")):
        assert got.headers[name] == f"sha256={hmac.digest(secret.encode(), signed, hashlib.sha256).hex()}"
    body = {"tenant_id": TENANT, "queue_name": QUEUE, "mode": "push", "push_url": receiver.url}
    for secrets in ({"second_secret": "next"}, {"secret": "s", "second_secret": "enc:v1:AAAA"}):
        assert api.http.post("/queues/dispatch", json={**body, **secrets}).status_code == 400


def test_api_13_8_without_a_secret_nothing_is_signed(api: Api, receiver: Receiver, pusher: Pusher) -> None:
    configure(api, receiver)
    start(api)
    pusher.tick()
    assert "x-orch8-signature" not in receiver.received[0].headers


def test_api_13_8_each_attempt_is_pushed(api: Api, receiver: Receiver, pusher: Pusher) -> None:
    configure(api, receiver)
    start(api, retry={"max_attempts": 2, "initial_backoff": 1, "max_backoff": 1})
    pusher.tick()
    [task] = api.poll(queue_name=QUEUE)
    api.report(task, "fail", message="again", retryable=True)
    api.pass_time()
    pusher.tick()
    assert [got.json()["attempt"] for got in receiver.received] == [0, 1]


@pytest.mark.parametrize("status", [500, 404])
def test_api_13_8_push_is_tried_four_times_and_the_task_can_still_be_polled(
    api: Api, receiver: Receiver, pusher: Pusher, store: PostgresStore, status: int
) -> None:
    configure(api, receiver)
    receiver.answer = lambda _received: Answer(status=status)
    instance_id = start(api)
    waits = []
    for _ in range(4):
        pusher.tick()
        with store.transaction() as tx:
            waits.append(tx.query("SELECT extract(epoch FROM due_at - clock_timestamp()) FROM task_pushes")[0][0])
        be_due(api)
    assert [wait and round(float(wait) * 2 + 0.4) / 2 for wait in waits] == [0.5, 1, 1.5, None]
    assert pusher.tick().done == 0
    assert len(receiver.received) == 4
    assert (metric(api, "orch8_tasks_pushed"), metric(api, "orch8_tasks_push_failed")) == (0, 1)
    [task] = api.poll(queue_name=QUEUE)
    assert api.report(task, "complete", output={}).status_code == 200
    assert api.state(instance_id) == "completed"


def test_api_13_8_receiver_that_was_down_gets_the_task(api: Api, receiver: Receiver, pusher: Pusher) -> None:
    configure(api, receiver)
    receiver.close()
    start(api)
    pusher.tick()
    receiver.open()
    be_due(api)
    pusher.tick()
    assert len(receiver.received) == 1


def test_api_13_8_redirects_are_followed_but_not_to_private_addresses(
    api: Api, receiver: Receiver, pusher: Pusher, store: PostgresStore, settings: Settings
) -> None:
    configure(api, receiver)
    receiver.answer = lambda got: (
        Answer(status=307, headers={"Location": "/there"}) if got.path == "/hook" else Answer()
    )
    start(api)
    pusher.tick()
    assert [got.path for got in receiver.received] == ["/hook", "/there"]
    assert receiver.received[1].json()["block_id"] == "a"
    guarded = Engine(store, None, settings.model_copy(update={"allow_internal_urls": False}))
    start(api)
    Pusher(Pushes(store, guarded)).tick()
    assert len(receiver.received) == 2
    assert metric(api, "orch8_tasks_push_failed") == 1


def test_api_13_8_services_never_make_the_same_try(api: Api, receiver: Receiver, store: PostgresStore) -> None:
    configure(api, receiver)
    for _ in range(12):
        start(api)
    pushers = [Pusher(Pushes(store, Engine(store, None, api.engine.settings))) for _ in range(3)]
    threads = [threading.Thread(target=pusher.tick) for pusher in pushers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({got.json()["task_id"] for got in receiver.received}) == len(receiver.received) == 12


def test_api_13_8_service_that_dies_loses_no_task(api: Api, receiver: Receiver, pusher: Pusher) -> None:
    configure(api, receiver)
    start(api)
    with api.engine.store.transaction() as tx:
        tx.execute(
            "INSERT INTO task_pushes (step_id, tries, due_at, token) "
            "SELECT id, 0, clock_timestamp() + interval '30 s', gen_random_uuid() FROM steps"
        )
    assert pusher.tick().done == 0
    be_due(api)
    assert pusher.tick().done == 1
    assert len(receiver.received) == 1


def test_api_13_8_what_ended_is_forgotten(api: Api, receiver: Receiver, store: PostgresStore, pusher: Pusher) -> None:
    configure(api, receiver)
    receiver.answer = says({})
    start(api)
    pusher.tick()
    Pusher(Pushes(store, api.engine)).tick()
    with store.transaction() as tx:
        assert tx.query("SELECT count(*) FROM task_pushes")[0][0] == 0


def test_api_13_8_slow_receiver_is_tried_again(
    api: Api, receiver: Receiver, pusher: Pusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(posting, "TIMEOUT", posting.TIMEOUT / 50)
    let_go = threading.Event()
    configure(api, receiver)
    receiver.answer = lambda _received: Answer(first=let_go.wait)
    start(api)
    try:
        pusher.tick()
        be_due(api)
        pusher.tick()
    finally:
        let_go.set()
    assert len(receiver.received) == 2


# -- answers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "output"),
    [
        ({"output": {"total": 7}}, {"total": 7}),
        ({"output": None}, None),
        ({"total": 7}, {"total": 7}),
        ({"output": 1, "more": 2}, {"output": 1, "more": 2}),
        ({}, {}),
    ],
)
def test_api_20_6_answer_completes_the_task(
    api: Api, receiver: Receiver, pusher: Pusher, answer: Any, output: Any
) -> None:
    configure(api, receiver)
    receiver.answer = says(answer)
    instance_id = start(api)
    pusher.tick()
    assert api.state(instance_id) == "completed"
    assert api.outputs(instance_id)[0]["output"] == output
    assert api.poll(queue_name=QUEUE) == []


@pytest.mark.parametrize(
    ("status", "content"), [(202, b'{"output": 1}'), (200, b""), (204, b""), (200, b"ok"), (200, b"[1]"), (200, b"7")]
)
def test_api_20_6_other_answers_leave_the_task_to_the_worker_api(
    api: Api, receiver: Receiver, pusher: Pusher, status: int, content: bytes
) -> None:
    configure(api, receiver, sync=True)
    receiver.answer = lambda _received: Answer(status=status, content=content)
    instance_id = start(api)
    pusher.tick()
    assert api.state(instance_id) == "waiting"
    assert len(api.poll(queue_name=QUEUE)) == 1


def test_api_20_6_envelope_carries_the_outputs_so_far(api: Api, receiver: Receiver, pusher: Pusher) -> None:
    configure(api, receiver)
    api.start(step("before"), step("a", queue_name=QUEUE))
    api.complete({"total": 7})
    pusher.tick()
    assert receiver.received[0].json()["outputs"] == {"before": {"total": 7}}


def test_api_20_6_refusal_of_a_sync_queue_is_final_by_4xx_and_retried_after_5xx(
    api: Api, receiver: Receiver, pusher: Pusher
) -> None:
    assert configure(api, receiver, sync=True)["sync"] is True
    retry = {"max_attempts": 3, "initial_backoff": 1, "max_backoff": 1}
    statuses = iter([503, 400])
    receiver.answer = lambda _received: Answer(status=next(statuses), content=b"sorry")
    instance_id = start(api, retry=retry)
    pusher.tick()
    assert api.state(instance_id) == "scheduled"
    api.pass_time()
    pusher.tick()
    assert api.state(instance_id) == "failed"
    assert [got.json()["attempt"] for got in receiver.received] == [0, 1]


def test_api_20_6_sync_receiver_that_is_never_reached_fails_the_task(
    api: Api, receiver: Receiver, pusher: Pusher
) -> None:
    configure(api, receiver, sync=True)
    receiver.close()
    instance_id = start(api)
    for _ in range(4):
        assert api.state(instance_id) == "waiting"
        pusher.tick()
        be_due(api)
    assert api.state(instance_id) == "failed"


def test_api_20_6_answer_after_somebody_has_polled_is_dropped(api: Api, receiver: Receiver, pusher: Pusher) -> None:
    configure(api, receiver)
    polled: list[dict[str, Any]] = []

    def answer(_received: Received) -> Answer:
        return Answer(content=b'{"output": 1}', first=lambda: polled.extend(api.poll(queue_name=QUEUE)))

    receiver.answer = answer
    instance_id = start(api)
    pusher.tick()
    assert api.state(instance_id) == "waiting"
    assert api.report(polled[0], "complete", output={"by": "poll"}).status_code == 200
    assert api.outputs(instance_id)[0]["output"] == {"by": "poll"}


@pytest.mark.parametrize("content", [b'{"a": "\\u0000"}', b'{"n": 123456789012345678901234567890}'])
def test_api_20_6_answer_that_cannot_be_stored_fails_the_task(
    api: Api, receiver: Receiver, pusher: Pusher, content: bytes
) -> None:
    configure(api, receiver)
    receiver.answer = lambda _received: Answer(content=content)
    instance_id = start(api)
    pusher.tick()
    assert api.state(instance_id) == "failed"


def test_api_20_6_task_whose_parameters_cannot_be_made_fails_and_is_not_pushed(
    api: Api, receiver: Receiver, pusher: Pusher, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(api, receiver)
    instance_id = start(api)
    monkeypatch.setattr(pushing, "inputs_now", lambda *_arguments, **_options: {})
    pusher.tick()
    assert receiver.received == []
    assert api.state(instance_id) == "failed"


# -- credentials -----------------------------------------------------------------------------------------------------

TOKEN = "s3cr3t-t\u00f6ken/of+mail"
TOLD = ["", "/outputs", "/tree", "/audit", "/attempts", "/logs"]


def start_with_credential(api: Api, receiver: Receiver, **fields: Any) -> str:
    configure(api, receiver, sync=True)
    body = {"id": "mail", "name": "n", "kind": "api_key", "value": TOKEN, "tenant_id": TENANT}
    assert api.http.post("/credentials", json=body).status_code == 201
    return start(api, params={"auth": "credentials://mail"}, **fields)


def told_of(api: Api, instance_id: str) -> str:
    texts = [api.http.get(f"/instances/{instance_id}{path}").text for path in TOLD]
    return "\n".join([*texts, api.http.get("/workers/tasks").text])


def test_s12_pushed_task_carries_the_secret_and_nothing_else_does(
    api: Api, receiver: Receiver, pusher: Pusher, capsys: pytest.CaptureFixture[str]
) -> None:
    receiver.answer = says({"done": True})
    instance_id = start_with_credential(api, receiver)
    pusher.tick()
    assert receiver.received[0].json()["params"] == {"auth": TOKEN}
    assert api.state(instance_id) == "completed"
    with api.engine.store.transaction() as tx:
        rows = str(tx.query("SELECT s::text, i::text FROM steps s, instances i"))
    for text in (told_of(api, instance_id), rows, "".join(capsys.readouterr())):
        assert TOKEN not in text


@pytest.mark.parametrize(
    "said", [TOKEN, f"no entry for {TOKEN}!", orjson.dumps({"key": TOKEN}).decode(), quote(TOKEN, safe="")]
)
@pytest.mark.parametrize("status", [400, 503])
def test_s12_refusal_that_tells_the_secret_is_cleared_of_it(
    api: Api, receiver: Receiver, pusher: Pusher, said: str, status: int
) -> None:
    receiver.answer = lambda _received: Answer(status=status, content=said.encode())
    instance_id = start_with_credential(api, receiver)
    pusher.tick()
    assert api.state(instance_id) == "failed"
    told = told_of(api, instance_id)
    assert f"HTTP {status}: " in told
    assert "[REDACTED]" in told
    assert TOKEN not in told
    assert said not in told


@pytest.mark.parametrize("before", [485, 489, 1982, 1984, 1987, 1990])
def test_no_half_of_a_secret_is_left_where_an_excerpt_is_cut(before: int) -> None:
    """Excerpts have 500 characters of the first 2,000 bytes, and what is cleared makes room for what follows."""
    long = "long-" * 60
    text = (long * 10)[:before] if before > 1000 else "x" * before
    with receiving() as receiver:
        receiver.answer = lambda _received: Answer(status=400, content=(text + TOKEN).encode())
        wanted = Posting(url=receiver.url, body=b"{}", secrets=(long, TOKEN))
        (posted,) = post_all(Egress(allow_internal=True), [wanted])
    assert posted.excerpt is not None
    assert len(posted.excerpt) <= posting.MAX_EXCERPT_CHARACTERS
    assert TOKEN[:5] not in posted.excerpt
