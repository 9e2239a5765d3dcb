"""Polls that arrive together share a claim, reports a transaction, and nothing else (contract, api §13.2, §13.4)."""

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from starlette.responses import Response

from orchestrator.api import reporting
from orchestrator.api.pollers import Poller, Wanted
from orchestrator.api.polling import GATHERED_LIMIT, deal_out
from orchestrator.api.services import Services
from orchestrator.api.task_shapes import Lease, TaskReport
from orchestrator.core.model import Claim
from orchestrator.core.outcomes import Completed
from orchestrator.encryption import FREE, Unreadable
from orchestrator.engine import Engine
from orchestrator.errors import Conflict, NotFound
from orchestrator.exchange import Report
from tests.contract.client import TENANT, Api, step
from tests.support.serving import Reception

AT_ONCE = 16
WANTED = Wanted(tenant=TENANT, handler="outside", queue=None)


@pytest.fixture
def services(api: Api, reception: Reception) -> Services:
    return reception.services(api.engine)


def pollers(*limits: int) -> list[Poller]:
    return [Poller(worker=f"w{number}", limit=limit) for number, limit in enumerate(limits)]


def tasks_of(answer: Response | Exception) -> list[dict[str, Any]]:
    assert isinstance(answer, Response), answer
    return list(orjson.loads(answer.body))


# -- polls -------------------------------------------------------------------------------------------------------------


def test_api_13_2_tasks_of_a_group_are_dealt_out_as_if_its_polls_had_come_one_by_one(api: Api, services: Services):
    sequence = api.sequence(step("a"))
    instances = [api.start_of(sequence) for _ in range(7)]
    asked = [*pollers(2, 0, 1, 3, 5), Poller(worker="w0", limit=4)]
    dealt = [tasks_of(answer) for answer in deal_out(services, WANTED, asked)]
    assert [[task["instance_id"] for task in share] for share in dealt] == [
        instances[:2],
        [],
        instances[2:3],
        instances[3:6],
        instances[6:],
        [],
    ]
    for poller, share in zip(asked, dealt, strict=True):
        assert all((task["worker_id"], task["claim_epoch"]) == (poller.worker, 1) for task in share)
        assert all(api.report(task, "complete", output=1).status_code == 200 for task in share)


def test_api_13_2_a_worker_that_asks_twice_in_a_group_is_given_its_tasks_once(api: Api, services: Services):
    sequence = api.sequence(step("a"))
    instances = [api.start_of(sequence) for _ in range(3)]
    dealt = deal_out(services, WANTED, [Poller(worker="w", limit=2), Poller(worker="w", limit=2)])
    assert [[task["instance_id"] for task in tasks_of(each)] for each in dealt] == [instances[:2], instances[2:]]


def test_api_13_2_each_task_names_its_worker_whatever_that_is_called(api: Api, services: Services):
    names = ['"', "\\", "{a,b}", "NULL", "", "it's", "a\nb", "é ♥", "%s", "$1", "w"]
    sequence = api.sequence(step("a"))
    for _ in names:
        api.start_of(sequence)
    dealt = deal_out(services, WANTED, [Poller(worker=name, limit=1) for name in names])
    tasks = [task for each in dealt for task in tasks_of(each)]
    assert [task["worker_id"] for task in tasks] == names
    assert all(api.report(task, "complete", output=1).status_code == 200 for task in tasks)


def test_api_13_2_groups_that_claim_at_the_same_time_never_share_a_task(api: Api, services: Services):
    sequence = api.sequence(step("a"))
    for _ in range(60):
        api.start_of(sequence)
    groups = [[Poller(worker=f"w{group}-{n}", limit=2) for n in range(5)] for group in range(8)]
    with ThreadPoolExecutor(len(groups)) as threads:
        answers = list(threads.map(partial(deal_out, services, WANTED), groups))
    tasks = [task for answer in answers for each in answer for task in tasks_of(each)]
    tasks += [task for each in deal_out(services, WANTED, pollers(60)) for task in tasks_of(each)]
    assert len(tasks) == 60
    assert set(Counter(task["id"] for task in tasks).values()) == {1}
    assert {task["claim_epoch"] for task in tasks} == {1}


@pytest.mark.parametrize("limit", [1, GATHERED_LIMIT, GATHERED_LIMIT + 1])
def test_api_13_2_polls_of_two_tenants_at_once_see_their_own(api: Api, limit: int):
    tenants = (TENANT, "other")
    for tenant in tenants:
        body = {"sequence_id": None, "tenant_id": tenant, "namespace": "default"}
        written = {"id": str(uuid4()), "tenant_id": tenant, "namespace": "default", "name": "s", "version": 1}
        written |= {"created_at": "2026-01-01T00:00:00Z", "blocks": [step("a", queue_name="shared")]}
        headers = {"X-Tenant-Id": tenant}
        body["sequence_id"] = api.http.post("/sequences", json=written, headers=headers).json()["id"]
        assert api.http.post("/instances/batch", json={"instances": [body] * 8}, headers=headers).status_code == 201

    def poll(number: int) -> tuple[str, list[dict[str, Any]]]:
        tenant = tenants[number % 2]
        body = {"handler_name": "outside", "queue_name": "shared", "worker_id": f"w{number}", "limit": limit}
        answer = api.http.post("/workers/tasks/poll/queue", json=body, headers={"X-Tenant-Id": tenant})
        return tenant, answer.json()

    with ThreadPoolExecutor(AT_ONCE) as threads:
        answers = list(threads.map(poll, range(AT_ONCE)))
    for tenant in tenants:
        own = [task for asked, tasks in answers if asked == tenant for task in tasks]
        assert len({task["id"] for task in own}) == len(own) == 8
        listed = api.http.get("/workers/tasks", headers={"X-Tenant-Id": tenant}).json()
        assert {task["id"] for task in own} == {task["id"] for task in listed}


def test_a_claim_that_forgets_the_tenant_shows_nothing_of_it(
    api: Api, services: Services, monkeypatch: pytest.MonkeyPatch
):
    api.start(step("a"))
    claim = services.engine.claim_tasks
    monkeypatch.setattr(
        services.engine, "claim_tasks", lambda takers, **asked: claim(takers, **{**asked, "tenant_id": None})
    )
    other = Wanted(tenant="other", handler="outside", queue=None)
    assert [tasks_of(each) for each in deal_out(services, other, pollers(1, 1))] == [[], []]


def test_a_poll_whose_claim_fails_does_not_fail_those_beside_it(
    api: Api, services: Services, monkeypatch: pytest.MonkeyPatch
):
    sequence = api.sequence(step("a"))
    instances = [api.start_of(sequence) for _ in range(2)]
    claim = services.engine.claim_tasks

    def refusing(takers: Sequence[str], **asked: Any) -> Any:
        if "w1" in takers:
            raise RuntimeError("refused")
        return claim(takers, **asked)

    monkeypatch.setattr(services.engine, "claim_tasks", refusing)
    first, refused, last = deal_out(services, WANTED, pollers(1, 1, 1))
    assert isinstance(refused, RuntimeError)
    assert [task["instance_id"] for each in (first, last) for task in tasks_of(each)] == instances


def test_a_task_that_cannot_be_shown_fails_the_poll_it_was_claimed_for_alone(
    api: Api, services: Services, monkeypatch: pytest.MonkeyPatch
):
    sequence = api.sequence(step("a"))
    instances = [api.start_of(sequence) for _ in range(3)]
    inputs = services.engine.inputs

    def refusing(claims: Sequence[Claim]) -> Any:
        if UUID(instances[1]) in {claim.instance_id for claim in claims}:
            raise RuntimeError("refused")
        return inputs(claims)

    monkeypatch.setattr(services.engine, "inputs", refusing)
    first, refused, last = deal_out(services, WANTED, pollers(1, 1, 1))
    assert isinstance(refused, RuntimeError)
    assert [task["instance_id"] for each in (first, last) for task in tasks_of(each)] == [instances[0], instances[2]]
    assert api.http.get("/workers/tasks/stats").json()["by_state"] == {"claimed": 3}, "its lease gives the task back"


@pytest.mark.parametrize("section", ["data", "config"])
def test_a_task_whose_context_cannot_be_opened_fails_the_poll_it_was_claimed_for_alone(
    api: Api, services: Services, section: str
):
    sequence = api.sequence(step("a"))
    instances = [api.start_of(sequence) for _ in range(3)]
    with services.store.transaction() as tx:
        sealed = f'"{FREE}nobody has the key"'
        tx.execute(f"UPDATE contexts SET {section} = %s WHERE instance_id = %s", (sealed, instances[1]))
    first, refused, last = deal_out(services, WANTED, pollers(1, 1, 1))
    assert isinstance(refused, Unreadable)
    assert [task["instance_id"] for each in (first, last) for task in tasks_of(each)] == [instances[0], instances[2]]


def test_a_task_whose_instance_has_gone_since_the_claim_is_left_out(api: Api, services: Services):
    sequence = api.sequence(step("a"))
    instances = [api.start_of(sequence) for _ in range(2)]
    held = services.engine.claim_tasks(["w", "w"], handler="outside", queue=None, tenant_id=TENANT)
    with services.store.transaction() as tx:
        tx.execute("DELETE FROM contexts WHERE instance_id = %s", (instances[0],))
    another = Engine(services.store, None, services.settings)
    work = another.inputs([task.claim for task in held])
    assert [str(each.instance.id) for each in work] == instances[1:]


# -- reports -----------------------------------------------------------------------------------------------------------


def claimed(api: Api, count: int) -> list[dict[str, Any]]:
    sequence = api.sequence(step("a"))
    for _ in range(count):
        api.start_of(sequence)
    return api.poll(limit=count)


def report_of(task: dict[str, Any], output: Any = None, **lease: Any) -> TaskReport:
    held = Lease.model_validate({"worker_id": task["worker_id"], "claim_epoch": task["claim_epoch"], **lease})
    return TaskReport(
        task_id=UUID(task["id"]), lease=held, act="complete", outcome=Completed(output=output, merges=True)
    )


def test_api_13_4_reports_of_a_group_are_answered_as_if_they_were_alone(api: Api, services: Services):
    tasks = claimed(api, 4)
    cancelled = tasks[3]["instance_id"]
    api.signal(cancelled, "cancel")
    reports = [
        report_of(tasks[0], {"n": 0}),
        report_of(tasks[1], {"n": 1}, worker_id="w2"),
        report_of({**tasks[2], "id": str(uuid4())}),
        report_of(tasks[0], {"n": "again"}),
        report_of(tasks[2], {"n": 2}),
        report_of(tasks[1], {"n": 1}, claim_epoch=7),
        report_of(tasks[3], {"n": 3}),
    ]
    refusals = [type(each) for each in reporting.commit(services, TENANT, reports)]
    assert refusals == [type(None), Conflict, NotFound, Conflict, type(None), Conflict, type(None)]
    assert [api.state(task["instance_id"]) for task in tasks] == ["completed", "waiting", "completed", "cancelled"]
    assert [row["output"] for row in api.outputs(tasks[0]["instance_id"])] == [{"n": 0}]
    assert api.outputs(cancelled) == []


def test_a_group_of_reports_takes_one_transaction(api: Api, services: Services):
    tasks = claimed(api, 5)
    assert reporting.commit(services, TENANT, [report_of(task) for task in tasks]) == [None] * 5
    assert len({api.instance(task["instance_id"])["updated_at"] for task in tasks}) == 1


def test_a_report_that_cannot_be_committed_does_not_fail_those_beside_it(
    api: Api, services: Services, monkeypatch: pytest.MonkeyPatch
):
    tasks = claimed(api, 3)
    finish = services.engine.finish

    def refusing(reports: Sequence[Report]) -> Any:
        if tasks[1]["id"] in {str(report.claim.step_id) for report in reports}:
            raise RuntimeError("refused")
        return finish(reports)

    monkeypatch.setattr(services.engine, "finish", refusing)
    first, refused, last = reporting.commit(services, TENANT, [report_of(task) for task in tasks])
    assert (first, type(refused), last) == (None, RuntimeError, None)
    assert [api.state(task["instance_id"]) for task in tasks] == ["completed", "waiting", "completed"]


def test_reports_of_another_tenant_find_nothing(api: Api, services: Services):
    tasks = claimed(api, 2)
    refusals = reporting.commit(services, "other", [report_of(task) for task in tasks])
    assert [type(each) for each in refusals] == [NotFound, NotFound]
    assert {api.state(task["instance_id"]) for task in tasks} == {"waiting"}


def test_api_13_4_many_reports_at_once_each_get_their_own_answer(api: Api):
    tasks = claimed(api, AT_ONCE)
    bad = [{"worker_id": "thief"}, {"claim_epoch": 9}, {"worker_id": 5}, {"output": "x" * 40_000}]

    def complete(number: int) -> int:
        lease = {"worker_id": "w1", "claim_epoch": 1, "output": {"n": number}}
        change = bad[number % 8 // 2] if number % 2 else {}
        path = f"/workers/tasks/{tasks[number]['id']}/complete"
        return api.http.post(path, json={**lease, **change}).status_code

    with ThreadPoolExecutor(AT_ONCE) as threads:
        statuses = list(threads.map(complete, range(AT_ONCE)))
    assert statuses == [200, 409, 200, 409, 200, 422, 200, 200] * 2
