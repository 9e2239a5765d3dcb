"""Transport, errors, keys and tenants, health and metrics (contract, api §1-4)."""

import asyncio
import re
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import structlog
from starlette.types import Message

from orchestrator.api import check_configuration, create_app
from orchestrator.api.app import THREADS
from orchestrator.engine import Engine
from orchestrator.errors import ConfigurationError
from orchestrator.settings import Settings
from orchestrator.store import installation
from orchestrator.store.postgres import PostgresStore
from orchestrator.store.row_security import RowSecurity, RowSecurityMode
from orchestrator.store.session import Store
from tests.contract.client import CALL, TENANT, Api, step
from tests.support.serving import Reception, serving

KEY = "root-key"


@pytest.fixture
def guarded(reception: Reception, engine: Engine, settings: Settings) -> Iterator[httpx.Client]:
    """A client without credentials of a server that asks for a key."""
    url = reception.address(engine, settings.model_copy(update={"api_key": KEY}))
    with httpx.Client(base_url=url, **CALL) as client:
        yield client


# -- §1 --------------------------------------------------------------------------------------------------------------


def test_api_1_bare_addresses_carry_deprecation_headers(api: Api):
    answer = api.http.get(f"{api.root}/instances?limit=1&x=%20y")
    assert answer.status_code == 200
    assert answer.headers["deprecation"] == "@1767225600"
    assert answer.headers["sunset"] == "Sat, 01 Jan 2028 00:00:00 GMT"
    assert answer.headers["link"] == '</api/v1/instances?limit=1&x=%20y>; rel="successor-version"'


@pytest.mark.parametrize(
    ("headers", "status"), [({}, 401), ({"x-api-key": KEY}, 400), ({"x-api-key": KEY, "X-Tenant-Id": "t"}, 200)]
)
def test_api_1_refusals_at_bare_addresses_carry_deprecation_headers(
    guarded: httpx.Client, headers: dict[str, str], status: int
):
    for path, is_legacy in (("/instances?limit=1", True), ("/api/v1/instances?limit=1", False), ("/metrics", False)):
        answer = guarded.get(path, headers=headers)
        assert (answer.status_code, "deprecation" in answer.headers) == (status, is_legacy)
        link = answer.headers.get("link")
        assert link == ('</api/v1/instances?limit=1>; rel="successor-version"' if is_legacy else None)


def test_api_1_canonical_addresses_carry_no_deprecation_headers(api: Api):
    assert not {"deprecation", "sunset", "link"} & api.http.get("/instances").headers.keys()


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/info", "/metrics", "/swagger-ui"])
def test_api_1_root_only_paths_are_not_under_the_prefix(api: Api, path: str):
    at_root = api.http.get(f"{api.root}{path}")
    assert at_root.status_code in {200, 503}
    assert "deprecation" not in at_root.headers
    assert api.http.get(path).status_code == 404


def test_api_1_request_id_is_echoed_cleaned_and_cut(api: Api):
    written = "ab c<>_-" + "x" * 200
    answer = api.http.get("/instances", headers={"x-request-id": written})
    assert answer.headers["x-request-id"] == ("abc_-" + "x" * 200)[:128]


@pytest.mark.parametrize("written", [None, "", "<>"])
def test_api_1_request_id_is_made_when_there_is_none(api: Api, written: str | None):
    headers = {} if written is None else {"x-request-id": written}
    made = api.http.get("/nowhere", headers=headers).headers["x-request-id"]
    assert uuid.UUID(made).version == 4


def test_api_1_head_answers_like_get_without_a_body(api: Api):
    answer = api.http.head("/instances")
    assert (answer.status_code, answer.content) == (200, b"")


def test_api_1_unknown_fields_and_query_parameters_are_ignored(api: Api):
    sequence = api.sequence(step("a"), nobody_knows=1)
    assert api.start_of(sequence, nobody_knows={"x": []})
    assert api.http.get("/instances", params={"nobody_knows": "1"}).status_code == 200


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "application/vnd.api+json", "Application/JSON"]
)
def test_api_1_json_content_types_are_accepted(api: Api, content_type: str):
    answer = api.http.post("/instances/batch", content=b'{"instances": []}', headers={"content-type": content_type})
    assert answer.status_code == 200


def test_api_1_too_large_body_is_413_also_without_a_length(api: Api):
    chunk = b" " * (1024 * 1024)

    def body() -> Iterator[bytes]:
        yield b"{"
        for _ in range(11):
            yield chunk
        yield b"}"

    json_type = {"content-type": "application/json"}
    assert api.http.post("/instances", content=body(), headers=json_type).status_code == 413
    counted = api.http.post("/instances", content=b"{" + chunk * 11 + b"}", headers=json_type)
    assert counted.status_code == 413
    assert counted.json()["error"].startswith("payload too large: ")


def test_api_1_cors_answers_configured_origins(engine: Engine, settings: Settings):
    app = create_app(engine, settings.model_copy(update={"cors_origins": ("https://a.example",)}))
    with serving(app) as url:
        answer = httpx.get(f"{url}/instances", headers={"Origin": "https://a.example", "X-Tenant-Id": "t"}, **CALL)
        asked = httpx.options(
            f"{url}/instances", headers={"Origin": "https://a.example", "Access-Control-Request-Method": "GET"}, **CALL
        )
    assert answer.headers["access-control-allow-origin"] == "https://a.example"
    assert asked.status_code == 200
    assert "x-request-id" in asked.headers


def test_api_1_cors_wildcard_with_a_key_is_refused_at_start(engine: Engine, settings: Settings):
    with pytest.raises(ConfigurationError, match="CORS"):
        create_app(engine, settings.model_copy(update={"cors_origins": ("*",), "api_key": KEY}))


def test_api_1_more_requests_than_slots_wait_their_turn(engine: Engine, settings: Settings):
    app = create_app(engine, settings.model_copy(update={"max_concurrent_requests": 1}))
    with serving(app) as url, httpx.Client(headers={"X-Tenant-Id": "t"}, **CALL) as client:
        assert [client.get(f"{url}/instances").status_code for _ in range(5)] == [200] * 5


# -- §2 --------------------------------------------------------------------------------------------------------------


def test_api_2_not_json_content_type_is_415_in_plain_text(api: Api):
    answer = api.http.post("/instances", content=b"{}", headers={"content-type": "text/plain"})
    assert answer.status_code == 415
    assert answer.headers["content-type"].startswith("text/plain")
    assert api.http.post("/instances", content=b"{}").status_code == 415


def test_api_2_malformed_json_is_400_in_plain_text(api: Api):
    answer = api.http.post("/instances", content=b'{"a":', headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")


def test_api_2_wrong_shape_is_422_in_plain_text(api: Api):
    answer = api.http.post("/instances", json={"tenant_id": TENANT, "namespace": "default"})
    assert answer.status_code == 422
    assert answer.headers["content-type"].startswith("text/plain")
    assert "missing field `sequence_id`" in answer.text


def test_api_2_malformed_uuid_in_the_path_is_400_in_plain_text(api: Api):
    answer = api.http.get("/instances/not-a-uuid")
    assert answer.status_code == 400
    assert answer.headers["content-type"].startswith("text/plain")


def test_api_2_missing_query_parameter_is_400_and_named(api: Api):
    answer = api.http.get("/sequences/by-name", params={"tenant_id": TENANT, "namespace": "default"})
    assert answer.status_code == 400
    assert "missing field `name`" in answer.text


def test_api_2_unknown_path_and_method_have_empty_bodies(api: Api):
    unknown, wrong = api.http.get("/nowhere"), api.http.put("/instances")
    assert (unknown.status_code, unknown.content) == (404, b"")
    assert (wrong.status_code, wrong.content) == (405, b"")
    assert api.http.get("/instances/").status_code == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/instances/batch"),
        ("GET", "/instances/batch-action"),
        ("GET", "/sequences/migrate-instance"),
        ("DELETE", "/sequences/by-name"),
        ("GET", "/events/batch"),
    ],
)
def test_api_1_static_paths_win_over_parameters_whatever_the_method(api: Api, method: str, path: str):
    for address in (path, f"{api.root}{path}"):
        answer = api.http.request(method, address)
        assert (answer.status_code, answer.content) == (405, b"")
        assert ("deprecation" in answer.headers) is address.startswith("http")


def test_api_1_escaped_slash_is_part_of_a_name(api: Api):
    plugin = {"name": "mail/per hour", "plugin_type": "grpc", "source": "s"}
    assert api.http.post("/plugins", json=plugin).status_code == 201
    for address in ("/plugins/mail%2Fper%20hour", f"{api.root}/plugins/mail%2fper%20hour"):
        assert api.http.get(address).json()["name"] == plugin["name"]
    assert api.http.delete("/plugins/mail%2Fper%20hour").status_code == 204
    sequence = api.sequence(step("a"), name="of/two")
    assert api.http.post("/sequences/of%2Ftwo/instances", json={}).status_code == 201
    assert api.http.get(f"sequences%2F{sequence}").status_code == 404


def test_api_1_a_name_may_hold_a_line_break(api: Api):
    answer = api.http.get("/plugins/a%0Ab%2F%0A")
    assert (answer.status_code, answer.json()["error"]) == (404, "not found: plugin a\nb/\n")
    resumed = api.http.post(f"/instances/{uuid.uuid4()}/resume-from/%0Aa")
    assert (resumed.status_code, resumed.headers["content-type"]) == (404, "application/json")


def test_api_3_2_escaped_slash_opens_no_other_door(guarded: httpx.Client):
    for path in ("/health%2Flive", "/api%2Fv1/instances", "/api/v1%2Finstances", "/instances%2F"):
        assert guarded.get(path).status_code == 401
        assert guarded.get(path, headers={"x-api-key": KEY, "X-Tenant-Id": TENANT}).status_code == 404


def test_api_1_wrong_methods_are_told_all_right_ones(api: Api):
    nobody = uuid.uuid4()
    allowed = {path: api.http.put(path).headers["allow"] for path in ("/instances", f"/sequences/{nobody}")}
    assert allowed == {"/instances": "GET, HEAD, POST", f"/sequences/{nobody}": "DELETE, GET, HEAD"}


def test_api_2_client_that_leaves_within_its_body_is_no_failure_of_ours(engine: Engine, settings: Settings):
    sent: list[Message] = []
    parts = iter([{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(parts)

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"x-tenant-id", TENANT.encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/api/v1/sequences", "query_string": b"", "headers": headers}
    with structlog.testing.capture_logs() as logs:
        asyncio.run(create_app(engine, settings)(scope, receive, send))
    assert (sent, logs) == ([], [])


def test_api_2_errors_have_exactly_one_key(api: Api):
    missing = uuid.uuid4()
    answer = api.http.get(f"/instances/{missing}")
    assert answer.status_code == 404
    assert answer.json() == {"error": f"not found: instance {missing}"}


def test_api_2_internal_errors_say_nothing(api: Api, monkeypatch: pytest.MonkeyPatch):
    def broken(*_args: object, **_kwargs: object) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(api.engine, "start_many", broken)
    answer = api.http.post("/instances", json=api.body(api.sequence(step("a"))))
    assert answer.status_code == 500
    assert answer.content == b'{"error":"internal server error"}'
    assert "x-request-id" in answer.headers


def test_api_2_unreachable_store_is_503(settings: Settings):
    store = PostgresStore("postgresql://nobody@127.0.0.1:1/nothing")
    app = create_app(Engine(store, lambda _hints: None, settings), settings)
    with serving(app) as url:
        answer = httpx.get(f"{url}/instances", headers={"X-Tenant-Id": "t"}, **CALL)
        assert answer.status_code == 503
        assert answer.json()["error"].startswith("unavailable: ")
        assert "127.0.0.1" not in answer.text
        assert httpx.get(f"{url}/health/ready", **CALL).status_code == 503
        assert httpx.get(f"{url}/health/live", **CALL).status_code == 200


# -- §3 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("headers", [{}, {"x-api-key": "wrong"}, {"authorization": "Bearer wrong"}, {"x-api-key": ""}])
@pytest.mark.parametrize(
    "path", ["/instances", "/api/v1/instances", "/metrics", "/swagger-ui", "/api-docs/openapi.json"]
)
def test_api_3_1_missing_or_wrong_key_is_401_and_empty(guarded: httpx.Client, headers: dict[str, str], path: str):
    answer = guarded.get(path, headers={"X-Tenant-Id": "t", **headers})
    assert (answer.status_code, answer.content) == (401, b"")


@pytest.mark.parametrize(
    "headers", [{"x-api-key": KEY}, {"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer {KEY}"}]
)
def test_api_3_1_root_key_opens(guarded: httpx.Client, headers: dict[str, str]):
    assert guarded.get("/instances", headers={"X-Tenant-Id": "t", **headers}).status_code == 200


def test_api_20_19_api_key_wins_over_bearer(guarded: httpx.Client):
    headers = {"X-Tenant-Id": "t", "x-api-key": "wrong", "authorization": f"Bearer {KEY}"}
    assert guarded.get("/instances", headers=headers).status_code == 401


def test_api_20_19_insecure_mode_looks_at_no_key(api: Api):
    assert api.http.get("/instances", headers={"authorization": "Bearer whatever"}).status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/info"])
def test_api_3_1_public_paths_need_neither_key_nor_tenant(guarded: httpx.Client, path: str):
    assert guarded.get(path).status_code in {200, 503}


@pytest.mark.needs_own_server("it asks for a tenant but for no key")
@pytest.mark.parametrize("headers", [{}, {"X-Tenant-Id": ""}])
def test_api_3_3_missing_tenant_is_400_and_empty(address: str, headers: dict[str, str]):
    answer = httpx.get(f"{address}/instances", headers=headers, **CALL)
    assert (answer.status_code, answer.content) == (400, b"")


def test_api_3_3_key_is_checked_before_the_tenant(guarded: httpx.Client):
    assert guarded.get("/instances").status_code == 401
    assert guarded.get("/instances", headers={"x-api-key": KEY}).status_code == 400


def test_api_3_3_unscoped_callers_see_all_tenants(api: Api, engine: Engine, settings: Settings):
    instance = api.start(step("a"))
    app = create_app(engine, settings.model_copy(update={"require_tenant_header": False}))
    with serving(app) as url:
        assert httpx.get(f"{url}/instances/{instance}", **CALL).status_code == 200
        assert [each["id"] for each in httpx.get(f"{url}/instances", **CALL).json()["items"]] == [instance]
        assert httpx.get(f"{url}/instances", params={"tenant_id": "other"}, **CALL).json()["items"] == []
        assert httpx.get(f"{url}/instances/{instance}", headers={"X-Tenant-Id": "other"}, **CALL).status_code == 404


def test_api_3_3_start_up_guards(settings: Settings):
    with pytest.raises(ConfigurationError, match="ORCH8_API_KEY"):
        check_configuration(settings, is_insecure=False)
    open_to_all = settings.model_copy(update={"api_key": KEY, "require_tenant_header": False})
    with pytest.raises(ConfigurationError, match="ISOLATION"):
        check_configuration(open_to_all, is_insecure=False)
    check_configuration(open_to_all.model_copy(update={"allow_no_tenant_isolation": True}), is_insecure=False)
    check_configuration(settings, is_insecure=True)


def test_api_3_3_things_of_other_tenants_do_not_exist(api: Api):
    sequence = api.sequence(step("a"))
    instance = api.start_of(sequence)
    (task,) = api.poll()
    foreign = {"X-Tenant-Id": "other"}
    lease = {"worker_id": "w1", "claim_epoch": 1}
    calls: list[tuple[str, str, object]] = [
        ("GET", f"/sequences/{sequence}", None),
        ("POST", f"/sequences/{sequence}/deprecate", None),
        ("GET", f"/instances/{instance}", None),
        ("GET", f"/instances/{instance}/outputs", None),
        ("GET", f"/instances/{instance}/tree", None),
        ("GET", f"/instances/{instance}/audit", None),
        ("GET", f"/instances/{instance}/attempts", None),
        ("PATCH", f"/instances/{instance}/state", {"state": "cancelled"}),
        ("PATCH", f"/instances/{instance}/context", {"context": {}}),
        ("POST", f"/instances/{instance}/retry", None),
        ("POST", f"/instances/{instance}/signals", {"signal_type": "cancel"}),
        ("POST", f"/workers/tasks/{task['id']}/complete", {**lease, "output": 1}),
        ("POST", f"/workers/tasks/{task['id']}/fail", {**lease, "message": "x"}),
        ("POST", f"/workers/tasks/{task['id']}/heartbeat", lease),
        ("POST", f"/sequences/{sequence}/instances", {}),
    ]
    for method, path, body in calls:
        answer = api.http.request(method, path, json=body, headers=foreign)
        assert answer.status_code == 404, (path, answer.text)
    own = {"tenant_id": "other"}
    answer = api.http.post("/instances", json={**api.body(sequence), **own}, headers=foreign)
    assert answer.json() == {"error": f"not found: sequence {sequence}"}
    assert api.http.get("/instances", params={"tenant_id": TENANT}, headers=foreign).json()["items"] == []
    assert api.http.get("/workers/tasks", headers=foreign).json() == []
    poll = {"handler_name": "outside", "worker_id": "w"}
    assert api.http.post("/workers/tasks/poll", json=poll, headers=foreign).json() == []
    assert api.state(instance) == "waiting"


def test_api_3_3_foreign_tenant_in_the_body_is_403(api: Api):
    answer = api.http.post("/instances", json={**api.body(api.sequence(step("a"))), "tenant_id": "other"})
    assert answer.status_code == 403
    assert answer.json() == {"error": "forbidden: tenant_id in body does not match X-Tenant-Id header"}


# -- §4 --------------------------------------------------------------------------------------------------------------


def test_api_4_live_is_200_and_empty(address: str):
    answer = httpx.get(f"{address}/health/live", **CALL)
    assert (answer.status_code, answer.content) == (200, b"")


def test_api_4_ready_needs_a_fresh_heartbeat_of_the_service(address: str, store: Store):
    assert httpx.get(f"{address}/health/ready", **CALL).status_code == 503
    for age, status in ((timedelta(0), 200), (timedelta(minutes=5), 503)):
        with store.transaction() as tx:
            installation.write(tx, "service_heartbeat", (datetime.now(UTC) - age).isoformat())
        answer = httpx.get(f"{address}/health/ready", **CALL)
        assert (answer.status_code, answer.content) == (status, b"")


@pytest.mark.parametrize(
    ("mode", "status", "header"), [("auto", 200, "x-ready-without"), ("required", 503, "x-not-ready")]
)
def test_ready_says_that_the_role_of_tenants_is_missing(
    database_url: str, settings: Settings, mode: str, status: int, header: str
):
    lacking = PostgresStore(database_url, row_security=RowSecurity(RowSecurityMode(mode), "made_by_nobody"))
    engine = Engine(lacking, lambda _hints: None, settings)
    with serving(create_app(engine, settings.model_copy(update={"ready_without_service": True}))) as url:
        listed = httpx.get(f"{url}/instances", headers={"X-Tenant-Id": "acme"}, **CALL)
        answer = httpx.get(f"{url}/health/ready", **CALL)
    lacking.close()
    assert listed.status_code == status
    assert (answer.status_code, answer.headers[header]) == (status, "row_security")


def test_api_4_ready_without_service_is_a_setting(engine: Engine, settings: Settings):
    with serving(create_app(engine, settings.model_copy(update={"ready_without_service": True}))) as url:
        assert httpx.get(f"{url}/health/ready", **CALL).status_code == 200


def test_api_4_info(address: str):
    answer = httpx.get(f"{address}/info", **CALL).json()
    assert answer.keys() == {"version", "storage_schema_version", "contract_schema_version", "env_label", "env_color"}


NAMES = [
    "orch8_instances_claimed_total",
    "orch8_instances_completed_total",
    "orch8_instances_failed_total",
    "orch8_steps_executed_total",
    "orch8_steps_failed_total",
    "orch8_steps_retried_total",
    "orch8_signals_delivered_total",
    "orch8_rate_limits_exceeded_total",
    "orch8_recovery_stale_instances_total",
    "orch8_webhooks_sent_total",
    "orch8_webhooks_failed_total",
    "orch8_webhooks_parked_total",
    "orch8_cron_triggered_total",
    "orch8_cron_skipped_total",
    'orch8_sla_breached_total{type="max_runtime"}',
    'orch8_sla_breached_total{type="max_step_runtime"}',
    "orch8_loop_outputs_compacted_total",
    "orch8_tasks_pushed_total",
    "orch8_tasks_push_failed_total",
    "orch8_cache_hits_total",
    "orch8_cache_misses_total",
    "orch8_tick_duration_seconds_count",
    "orch8_step_duration_seconds_count",
    "orch8_instance_processing_seconds_count",
    "orch8_queue_depth",
    "orch8_active_tasks",
]


def _metrics(api: Api) -> dict[str, float]:
    answer = api.http.get(f"{api.root}/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = [line.rpartition(" ") for line in answer.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


@pytest.mark.needs_own_server("it sees what others do, too")
def test_api_4_all_metrics_exist_from_the_start(api: Api):
    found = _metrics(api)
    assert {name: found.get(name) for name in NAMES} == dict.fromkeys(NAMES, 0.0)
    text = api.http.get(f"{api.root}/metrics").text
    for name in NAMES:
        bare = re.sub(r"(_count)?(\{.*)?$", "", name)
        assert f"# HELP {bare} " in text
        assert f"# TYPE {bare} " in text


@pytest.mark.needs_own_server("it sees what others do, too")
def test_api_4_metrics_count_what_happens(api: Api):
    api.start(step("a", "noop"))
    api.run_builtins()
    failing = api.start(step("a"), step("b"))
    api.complete({})
    api.signal(failing, {"custom": "x"})
    found = _metrics(api)
    assert found["orch8_instances_completed_total"] == 1
    assert found["orch8_steps_executed_total"] == 2
    assert found["orch8_signals_delivered_total"] == 1
    assert found["orch8_queue_depth"] == 1
    assert found['orchestrator_backlog{queue="default",state="ready"}'] == 1
    api.fail()
    assert _metrics(api)["orch8_instances_failed_total"] == 1
    assert _metrics(api)["orch8_steps_executed_total"] == 2


def test_openapi_describes_every_endpoint(api: Api):
    document = api.http.get(f"{api.root}/api-docs/openapi.json").json()
    assert "/api/v1/instances/{id}/signals" in document["paths"]
    for shape in ("SequenceDefinition", "CreateInstance", "TaskInstance", "WorkerTask", "BlockOutput"):
        assert shape in document["components"]["schemas"]
    page = api.http.get(f"{api.root}/swagger-ui")
    assert page.headers["content-type"].startswith("text/html")
    assert "/api/v1/workers/tasks/poll" in page.text
    assert "<script" not in page.text


def test_openapi_describes_every_refusal(api: Api):
    document = api.http.get(f"{api.root}/api-docs/openapi.json").json()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            described = operation["responses"].keys()
            assert {"400", "401", "403", "404", "409", "500", "503"} <= described, (method, path)
            assert "requestBody" not in operation or {"413", "415", "422"} <= described, (method, path)
            assert any(status.startswith("2") for status in described), (method, path)
    assert document["components"]["schemas"]["Refusal"]["required"] == ["error"]


def test_threads_are_no_more_than_connections(engine: Engine):
    assert THREADS == 20
