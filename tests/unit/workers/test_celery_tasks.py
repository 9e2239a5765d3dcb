import asyncio
from uuid import uuid4

import pytest
from celery import Celery, Task
from celery.exceptions import Ignore, Reject

from orchestrator.core.outcomes import Completed, Failed, FailureKind, Outcome
from workers.celery_tasks import CeleryTasks
from workers.context import StepContext
from workers.failures import outcome_of_exception

CTX = StepContext(
    instance_id=uuid4(), sequence="s", block_id="b", handler="celery:t", idempotency_key="flow:b", attempt=2
)


@pytest.fixture
def app() -> Celery:
    return Celery("shop", broker="memory://", set_as_current=False)


def run(app: Celery, name: str, params: object) -> Outcome:
    handler = CeleryTasks(app).find(f"celery:{name}")
    assert handler is not None
    call = handler.bind(CTX, params)
    assert not isinstance(call, Failed)
    try:
        value = call()
        return handler.outcome_of(asyncio.run(value) if handler.is_async else value)
    except BaseException as exc:
        return outcome_of_exception(exc)


def test_task_runs_with_params_as_arguments_and_merges(app: Celery):
    @app.task(shared=False, name="shop.charge")
    def charge(order_id, amount=1):
        return {"order": order_id, "amount": amount}

    assert run(app, "shop.charge", {"order_id": 3}) == Completed(output={"order": 3, "amount": 1}, merges=True)


def test_only_registered_tasks_are_found(app: Celery):
    @app.task(shared=False, name="shop.charge")
    def charge():
        return None

    tasks = CeleryTasks(app)
    assert tasks.names() == ("celery:shop.charge",)
    assert tasks.find("celery:shop.refund") is None
    assert tasks.find("shop.charge") is None
    assert tasks.find("celery:shop.charge") is tasks.find("celery:shop.charge")


def test_bound_task_sees_the_steps_key_and_attempt(app: Celery):
    @app.task(shared=False, name="t", bind=True)
    def bound(self, a):
        return [self.name, self.request.id, self.request.retries, self.request.kwargs, a]

    assert run(app, "t", {"a": 1}).output == ["t", "flow:b", 2, {"a": 1}, 1]
    assert bound.request.id is None, "the request must be taken off again"


def test_retry_becomes_a_retryable_failure(app: Celery):
    @app.task(shared=False, name="bare", bind=True, max_retries=0)
    def bare(self):
        self.retry(countdown=5)

    @app.task(shared=False, name="with_cause", bind=True)
    def with_cause(self):
        try:
            {}["gone"]
        except KeyError as exc:
            self.retry(exc=exc)

    @app.task(shared=False, name="automatic", autoretry_for=(OSError,), retry_backoff=True)
    def automatic():
        raise OSError("disk")

    assert run(app, "bare", {}).message == "the task asked for a retry: Task can be retried"
    assert run(app, "with_cause", {}).message == "KeyError: 'gone'"
    assert run(app, "automatic", {}).message == "OSError: disk"
    assert all(run(app, name, {}).retryable for name in ("bare", "with_cause", "automatic"))


def test_ignore_completes_with_null_and_reject_fails(app: Celery):
    def raising(exc):
        def run():
            raise exc

        return run

    app.task(raising(Ignore()), shared=False, name="ignore")
    app.task(raising(Reject("bad", requeue=False)), shared=False, name="reject")
    app.task(raising(Reject("busy", requeue=True)), shared=False, name="requeue")
    assert run(app, "ignore", None) == Completed(output=None)
    assert run(app, "reject", None) == Failed(message="the task rejected its message: bad", retryable=False)
    assert run(app, "requeue", None) == Failed(message="the task rejected its message: busy", retryable=True)


def test_replaced_task_fails_for_good(app: Celery):
    @app.task(shared=False, name="other")
    def other():
        return 1

    @app.task(shared=False, name="t", bind=True)
    def replacing(self):
        return self.replace(other.s())

    failure = run(app, "t", {})
    assert isinstance(failure, Failed)
    assert not failure.retryable
    assert "replaced itself" in failure.message


def test_base_class_with_its_own_call_is_respected(app: Celery):
    class InContext(Task):
        def __call__(self, *args, **kwargs):
            return ["entered", super().__call__(*args, **kwargs)]

    @app.task(shared=False, name="t", base=InContext, bind=True)
    def inside(self, a):
        return a

    assert run(app, "t", {"a": 1}).output == ["entered", 1]


def test_coroutine_task_is_awaited(app: Celery):
    @app.task(shared=False, name="t")
    async def later(a):
        await asyncio.sleep(0)
        return a

    assert run(app, "t", {"a": 1}).output == 1


@pytest.mark.parametrize("params", [{}, {"b": 1}, {"a": 1, "b": 2}, [1], "x"])
def test_params_that_do_not_fit_fail_for_good(app: Celery, params: object):
    @app.task(shared=False, name="t", bind=True)
    def one(self, a):
        return a

    failure = run(app, "t", params)
    assert isinstance(failure, Failed)
    assert (failure.kind, failure.retryable) == (FailureKind.INPUT, False)


def test_type_error_inside_the_task_is_no_wrong_input(app: Celery):
    @app.task(shared=False, name="t")
    def buggy(a):
        return a + 1

    failure = run(app, "t", {"a": "x"})
    assert isinstance(failure, Failed)
    assert failure.retryable
    assert failure.message.startswith("TypeError: ")
