"""Administration of workers: handlers, commands, version pins, routing rules (contract, api §13.7)."""

from typing import Any
from uuid import uuid4

import httpx
import pytest

from orchestrator.api import create_app
from orchestrator.engine import Engine
from orchestrator.settings import Settings
from orchestrator.store.interface import Store
from tests.contract.client import CALL, TENANT, Api, step
from tests.support.serving import serving

OTHER = {"X-Tenant-Id": "other"}


def test_api_13_7_handlers_are_those_of_the_engine_and_of_living_workers(api: Api) -> None:
    api.poll("paint")
    handlers = api.http.get("/handlers").json()
    assert handlers["external"] == ["paint"]
    assert {"noop", "http_request"} <= set(handlers["builtin"])
    assert api.http.get("/handlers", headers=OTHER).json()["external"] == []


@pytest.mark.needs_own_server("it sees what others do, too")
def test_api_13_7_version_of_a_poll_is_shown(api: Api) -> None:
    api.poll(version="1.2.3")
    assert [worker["version"] for worker in api.http.get("/workers").json()] == ["1.2.3"]
    assert (
        api.http.post("/workers/tasks/poll", json={"handler_name": "h", "worker_id": "w", "version": 1}).status_code
        == 422
    )


# -- commands --------------------------------------------------------------------------------------------------------


def tell(api: Api, **fields: Any) -> Any:
    return api.http.post("/workers/commands", json={"worker_id": "w/1", "command": "drain", **fields})


def test_api_13_7_worker_is_told(api: Api) -> None:
    name = f"w/{uuid4()}"
    first = tell(api, worker_id=name)
    assert first.status_code == 201
    assert list(first.json()) == ["id", "worker_id", "command", "payload", "created_at"]
    assert (first.json()["worker_id"], first.json()["command"], first.json()["payload"]) == (name, "drain", None)
    second = tell(api, worker_id=name, command="place", payload={"zone": "b"})
    tell(api, worker_id="another", command="ping")
    assert api.http.get(f"/workers/{name}/commands").json() == [first.json(), second.json()]
    assert len(api.http.get(f"/workers/{name.replace('/', '%2F')}/commands").json()) == 2
    assert api.http.get("/workers/nobody/commands").json() == []
    path = f"/workers/commands/{first.json()['id']}"
    assert api.http.delete(path).status_code == 204
    assert api.http.delete(path).status_code == 404
    assert api.http.get(f"/workers/{name}/commands").json() == [second.json()]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"worker_id": " "}, 400),
        ({"worker_id": "w" * 256}, 400),
        ({"worker_id": "ü" * 128}, 400),
        ({"worker_id": None}, 422),
        ({"command": "dance"}, 422),
        ({"command": None}, 422),
    ],
)
def test_api_13_7_command_is_refused(api: Api, fields: dict[str, Any], status: int) -> None:
    assert tell(api, **fields).status_code == status


# -- version pins ----------------------------------------------------------------------------------------------------


def pin(api: Api, **fields: Any) -> Any:
    body = {"tenant_id": TENANT, "handler_name": "outside", "min_version": "1.10.0", **fields}
    return api.http.post("/workers/version-pins", json=body)


def test_api_13_7_pin_is_set_replaced_listed_and_deleted(api: Api) -> None:
    assert pin(api, min_version="1").status_code == 200
    made = pin(api).json()
    assert (made["tenant_id"], made["handler_name"], made["min_version"]) == (TENANT, "outside", "1.10.0")
    assert api.http.get("/workers/version-pins").json() == [made]
    assert api.http.get("/workers/version-pins", headers=OTHER).json() == []
    path = f"/workers/version-pins/{TENANT}/outside"
    assert api.http.delete(path, headers=OTHER).status_code == 404
    assert api.http.delete(path).status_code == 204
    assert api.http.delete(path).status_code == 404


@pytest.mark.parametrize(
    ("version", "gets"),
    [("1.9.9", 0), (None, 0), ("nonsense", 0), ("1.10.0-rc.1", 0), ("1.10", 1), ("v1.10.0+b", 1), ("2", 1)],
)
def test_api_13_7_workers_below_the_pin_poll_empty(api: Api, version: str | None, gets: int) -> None:
    pin(api)
    api.start(step("a"))
    api.start(step("a", queue_name="gpu"))
    fields = {} if version is None else {"version": version}
    assert len(api.poll(**fields)) == gets
    assert len(api.poll(queue_name="gpu", **fields)) == gets


def test_api_13_7_pin_holds_for_its_handler_and_tenant_alone(api: Api) -> None:
    pin(api, handler_name="another")
    assert (
        api.http.post(
            "/workers/version-pins",
            json={"tenant_id": "other", "handler_name": "outside", "min_version": "9"},
            headers=OTHER,
        ).status_code
        == 200
    )
    api.start(step("a"))
    assert len(api.poll()) == 1


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"handler_name": " "}, 400),
        ({"min_version": ""}, 400),
        ({"min_version": "newest"}, 400),
        ({"min_version": "1." * 7 + "1"}, 400),
        ({"min_version": 1}, 422),
        ({"tenant_id": ""}, 422),
        ({"tenant_id": "other"}, 403),
    ],
)
def test_api_13_7_pin_is_refused(api: Api, fields: dict[str, Any], status: int) -> None:
    assert pin(api, **fields).status_code == status
    assert api.http.get("/workers/version-pins").json() == []


# -- routing rules ---------------------------------------------------------------------------------------------------


def rule(api: Api, **fields: Any) -> Any:
    body = {"tenant_id": TENANT, "handler_name": "outside", "queue_override": "fast", **fields}
    return api.http.post("/routing-rules", json=body)


def test_api_13_7_rule_is_made_read_listed_and_deleted(api: Api) -> None:
    answer = rule(api)
    made = answer.json()
    assert answer.status_code == 201
    assert {name: made[name] for name in made if name != "id" and not name.endswith("_at")} == {
        "tenant_id": TENANT,
        "handler_name": "outside",
        "match_queue": None,
        "queue_override": "fast",
        "priority": 0,
        "enabled": True,
    }
    path = f"/routing-rules/{made['id']}"
    assert api.http.get(path).json() == made
    higher = rule(api, handler_name="another", priority=1).json()
    assert api.http.get("/routing-rules").json() == [higher, made]
    assert api.http.get("/routing-rules?handler_name=outside").json() == [made]
    assert api.http.get(f"/routing-rules?tenant_id={TENANT}", headers=OTHER).json() == []
    for verb in (api.http.get, api.http.delete):
        assert verb(path, headers=OTHER).status_code == 404
        assert verb(f"/routing-rules/{uuid4()}").status_code == 404
    assert api.http.delete(path).status_code == 204
    assert api.http.get(path).status_code == 404


def queues(api: Api, *blocks: dict[str, Any]) -> list[str | None]:
    """Start an instance and tell the queues of its open tasks."""
    instance_id = api.start(*blocks)
    tasks = api.http.get("/workers/tasks").json()
    return [task["queue_name"] for task in tasks if task["instance_id"] == instance_id]


def test_api_13_7_new_tasks_follow_the_rule_at_once(api: Api) -> None:
    assert queues(api, step("a")) == [None]
    made = rule(api).json()
    assert queues(api, step("a")) == ["fast"]
    assert queues(api, step("a", queue_name="slow")) == ["fast"]
    assert queues(api, step("a", "another")) == [None]
    assert len(api.poll(queue_name="fast", limit=5)) == 2
    api.http.delete(f"/routing-rules/{made['id']}")
    assert queues(api, step("a")) == [None]


def test_api_13_7_new_tasks_of_every_process_follow_the_rule_at_once(
    api: Api, store: Store, settings: Settings
) -> None:
    elsewhere = Engine(store, lambda _hints: None, settings)
    with (
        serving(create_app(elsewhere, settings)) as address,
        httpx.Client(base_url=f"{address}/api/v1", headers={"X-Tenant-Id": TENANT}, **CALL) as http,
    ):
        there = Api(http, elsewhere)
        assert queues(there, step("a")) == [None]
        made = rule(api).json()
        assert queues(there, step("a")) == ["fast"]
        api.http.delete(f"/routing-rules/{made['id']}")
        assert queues(there, step("a")) == [None]


def test_api_13_7_highest_enabled_match_counts(api: Api) -> None:
    rule(api, queue_override="low", priority=1)
    rule(api, queue_override="of-slow", match_queue="slow", priority=2)
    rule(api, queue_override="off", priority=3, enabled=False)
    assert queues(api, step("a")) == ["low"]
    assert queues(api, step("a", queue_name="slow")) == ["of-slow"]
    assert queues(api, step("a", queue_name="other")) == ["low"]


def test_api_13_7_retried_task_stays_where_the_rule_has_led_it(api: Api) -> None:
    made = rule(api).json()
    api.start(step("a", retry={"max_attempts": 2, "initial_backoff": 1, "max_backoff": 1}))
    api.http.delete(f"/routing-rules/{made['id']}")
    [task] = api.poll(queue_name="fast")
    api.report(task, "fail", message="again", retryable=True)
    api.pass_time()
    assert [task["attempt"] for task in api.poll(queue_name="fast")] == [1]


def test_api_13_7_rules_of_another_tenant_lead_nobody(api: Api) -> None:
    body = {"tenant_id": "other", "handler_name": "outside", "queue_override": "fast"}
    assert api.http.post("/routing-rules", json=body, headers=OTHER).status_code == 201
    assert queues(api, step("a")) == [None]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"handler_name": ""}, 400),
        ({"queue_override": " "}, 400),
        ({"queue_override": "ü" * 128}, 400),
        ({"match_queue": ""}, 400),
        ({"match_queue": "ü" * 128}, 400),
        ({"queue_override": None}, 422),
        ({"priority": 2**31}, 422),
        ({"priority": "high"}, 422),
        ({"enabled": 1}, 422),
        ({"tenant_id": " "}, 422),
        ({"tenant_id": "other"}, 403),
    ],
)
def test_api_13_7_rule_is_refused(api: Api, fields: dict[str, Any], status: int) -> None:
    assert rule(api, **fields).status_code == status
    assert api.http.get("/routing-rules").json() == []
