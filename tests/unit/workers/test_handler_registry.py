import asyncio
import dataclasses
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, field_validator

from orchestrator.core.outcomes import Completed, Failed, FailureKind, Suspended
from orchestrator.errors import ConfigurationError
from workers.context import StepContext
from workers.registry import DEFAULT_REGISTRY, HandlerSources, Registry, handler, load

CTX = StepContext(instance_id=uuid4(), sequence="orders", block_id="charge", handler="h", idempotency_key="k")


class Order(BaseModel):
    order_id: int
    amount: Decimal = Decimal(1)

    @field_validator("order_id")
    @classmethod
    def _no_thirteen(cls, value: int) -> int:
        return {13: lambda: {}["bug"]}.get(value, lambda: value)()


class Client:
    pass


def registered(function: Any, **options: Any):
    return Registry().register("h", function, **options)


def call(function: Any, params: Any = None) -> Any:
    bound = registered(function).bind(CTX, params)
    return bound if isinstance(bound, Failed) else bound()


def test_parameters_are_taken_by_name_and_coerced():
    def charge(order_id: int, wait: timedelta, *, key: UUID | None = None, note="none"):
        return order_id, wait, key, note

    assert call(charge, {"order_id": "7", "wait": "PT2S"}) == (7, timedelta(seconds=2), None, "none")


def test_context_comes_by_annotation_or_by_name():
    def annotated(step: StepContext, a: int):
        return step, a

    def optional(a: int, step: StepContext | None = None):
        return step, a

    def named(a, ctx):
        return ctx, a

    for function in (annotated, optional, named):
        assert call(function, {"a": 1}) == (CTX, 1)


def test_context_cannot_be_given_as_a_param():
    def greedy(ctx, **others):
        return ctx, others

    assert call(greedy, {"a": 1}) == (CTX, {"a": 1})
    assert call(greedy, {"ctx": "forged"}).message == "unknown param: ctx"


def test_single_model_gets_the_whole_params():
    def charge(ctx: StepContext, order: Order):
        return order

    assert call(charge, {"order_id": "5"}) == Order(order_id=5)
    failure = call(charge, None)
    assert failure.message == "parameter 'order_id': Field required"
    assert (failure.kind, failure.retryable) == (FailureKind.INPUT, False)


def test_model_beside_another_parameter_is_taken_by_name():
    def charge(order: Order, times: int):
        return order.order_id * times

    assert call(charge, {"order": {"order_id": 5}, "times": 2}) == 10
    assert call(charge, {"order": {}, "times": "x"}).message == (
        "parameter 'order.order_id': Field required; "
        "parameter 'times': Input should be a valid integer, unable to parse string as an integer"
    )


def test_raw_params_arrive_as_they_are():
    def raw(params):
        return params

    for value in (None, [1], {"a": 1}, "text"):
        assert call(raw, value) is value


def test_typed_raw_params_are_validated_and_null_is_empty():
    def typed(params: dict[str, int]):
        return params

    assert call(typed, None) == {}
    assert call(typed, {"a": "1"}) == {"a": 1}
    assert call(typed, {"a": "x"}).message.startswith("parameter 'params.a': ")


def test_raw_params_beside_named_ones():
    def both(order_id: int, params):
        return order_id, params

    assert call(both, {"order_id": 1, "more": 2}) == (1, {"order_id": 1, "more": 2})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "missing required param: a"),
        (None, "missing required param: a"),
        ({"a": 1, "b": 2}, "unknown param: b"),
        ([1], "params must be an object, not an array"),
        ("x", "params must be an object, not a string"),
        (True, "params must be an object, not a boolean"),
    ],
)
def test_wrong_params_fail_for_good_and_name_the_param(params: Any, message: str):
    def one(a):
        return a

    failure = call(one, params)
    assert failure == Failed(message=message, retryable=False, kind=FailureKind.INPUT)


def test_validation_messages_do_not_carry_values():
    def one(card: int):
        return card

    assert "4111secret" not in call(one, {"card": "4111secret"}).message


def test_bug_in_a_validator_is_a_retryable_failure():
    def charge(order: Order):
        return order

    failure = call(charge, {"order_id": 13})
    assert failure.message == "KeyError: 'bug'"
    assert failure.retryable


def test_default_of_a_type_json_cannot_give_stays_usable():
    fallback = Client()

    def charge(a: int, client: Client = fallback):
        return client

    assert call(charge, {"a": 1}) is fallback
    assert call(charge, {"a": 1, "client": {}}).message.startswith("parameter 'client': ")


def test_signatures_that_cannot_work_are_refused_at_registration():
    def positional(a, /):
        return a

    def generator(a):
        yield a

    async def async_generator(a):
        yield a

    def needs_client(client: Client):
        return client

    def unknown_annotation(a: "Nowhere"):  # noqa: F821
        return a

    for function in (positional, generator, async_generator, needs_client, unknown_annotation):
        with pytest.raises(ConfigurationError, match="handler 'h'"):
            registered(function)


def test_async_functions_and_objects_are_recognised():
    async def function(a):
        return a

    class Callable:
        async def __call__(self, a):
            return a

    for source in (function, Callable()):
        known = registered(source)
        assert known.is_async
        assert asyncio.run(known.bind(CTX, {"a": 3})()) == 3
    assert not registered(lambda a: a).is_async


def test_returned_values_become_outcomes():
    @dataclasses.dataclass
    class Receipt:
        total: int

    known = registered(lambda: None)
    assert known.outcome_of(None) == Completed(output=None, merges=True)
    assert known.outcome_of(Receipt(total=3)) == Completed(output={"total": 3}, merges=True)
    assert known.outcome_of(Order(order_id=1)) == Completed(output={"order_id": 1, "amount": "1"}, merges=True)
    for outcome in (
        Completed(output=1),
        Failed(message="no", retryable=True),
        Suspended(duration=timedelta(1), output=2),
    ):
        assert known.outcome_of(outcome) is outcome
    assert registered(lambda: None, merge_output=False).outcome_of({}) == Completed(output={})


def test_model_that_cannot_be_dumped_fails_the_step():
    class Binary(BaseModel):
        data: bytes

    failure = registered(lambda: None).outcome_of(Binary(data=b"\xff"))
    assert (failure.kind, failure.retryable) == (FailureKind.OUTPUT, False)


def test_second_function_under_a_name_is_refused_and_both_are_named():
    registry = Registry()
    registry.register("h", test_async_functions_and_objects_are_recognised)
    registry.register("h", test_async_functions_and_objects_are_recognised)
    with pytest.raises(ConfigurationError, match=r"registered twice: by .*recognised and by .*become_outcomes"):
        registry.register("h", test_returned_values_become_outcomes)


def test_reimported_module_may_register_again(tmp_path, monkeypatch):
    (tmp_path / "shop_handlers.py").write_text(
        "from workers.registry import handler\n@handler('shop_pay')\ndef pay(a: int) -> int:\n    return a\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    load(["shop_handlers"])
    first = DEFAULT_REGISTRY.find("shop_pay")
    monkeypatch.delitem(__import__("sys").modules, "shop_handlers")
    load(["shop_handlers"])
    assert first is not None
    assert DEFAULT_REGISTRY.find("shop_pay") is not first


def test_closures_over_different_values_are_different_handlers():
    def make(n):
        return lambda: n

    registry = Registry()
    registry.register("h", make(1))
    with pytest.raises(ConfigurationError):
        registry.register("h", make(2))


def test_load_names_the_module_and_the_reason(tmp_path, monkeypatch):
    (tmp_path / "broken_handlers.py").write_text("import not_installed_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigurationError, match=r"'broken_handlers'.*not_installed_anywhere"):
        load(["broken_handlers"])


@pytest.mark.parametrize("name", ["", " x", "celery:tasks.add", "https://x.test/h", "http_request", "agent"])
def test_names_that_mean_something_else_cannot_be_registered(name: str):
    with pytest.raises(ConfigurationError):
        handler(name)(lambda: None)
    assert DEFAULT_REGISTRY.find(name) is None


def test_earlier_source_wins():
    first, second = Registry(), Registry()
    mine = first.register("a", lambda: 1)
    second.register("a", lambda: 2)
    other = second.register("b", lambda: 3)
    sources = HandlerSources(first, second)
    assert (sources.find("a"), sources.find("b"), sources.find("c")) == (mine, other, None)
    assert sources.names() == ("a", "b")
