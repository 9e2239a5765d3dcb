import doctest
from typing import Any

import httpx
import orjson
import pydantic
import pytest
from celery.exceptions import SoftTimeLimitExceeded
from hypothesis import given
from hypothesis import strategies as st

import orchestrator.egress.addresses
import workers.failures
import workers.handlers.params
import workers.outputs
from orchestrator.core.outcomes import Failed, FailureKind
from workers.failures import PermanentError, RetryableError, StepError, failed, outcome_of_exception
from workers.outputs import check_output


class RudeError(Exception):
    def __str__(self) -> str:
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("exc", "message", "retryable", "kind"),
    [
        (RetryableError("busy"), "busy", True, FailureKind.HANDLER),
        (PermanentError("no"), "no", False, FailureKind.HANDLER),
        (StepError("either", retryable=True), "either", True, FailureKind.HANDLER),
        (TimeoutError(), "TimeoutError", True, FailureKind.TIMEOUT),
        (SoftTimeLimitExceeded(), "SoftTimeLimitExceeded: SoftTimeLimitExceeded()", True, FailureKind.TIMEOUT),
        (httpx.ReadTimeout("slow"), "ReadTimeout: slow", True, FailureKind.TIMEOUT),
        (ConnectionResetError("gone"), "ConnectionResetError: gone", True, FailureKind.NETWORK),
        (httpx.ConnectError("refused"), "ConnectError: refused", True, FailureKind.NETWORK),
        (MemoryError(), "the handler ran out of memory", True, FailureKind.HANDLER),
        (RecursionError("deep"), "the handler recursed too deeply", True, FailureKind.HANDLER),
        (SystemExit(3), "the handler exited with status 3", True, FailureKind.HANDLER),
        (KeyboardInterrupt(), "the handler was interrupted from the keyboard", True, FailureKind.HANDLER),
        (GeneratorExit(), "GeneratorExit", True, FailureKind.HANDLER),
        (ValueError("a\x00b\ud800"), "ValueError: a\ufffdb\ufffd", True, FailureKind.HANDLER),
        (RudeError(), "RudeError: <RudeError without text: SystemExit>", True, FailureKind.HANDLER),
        (ExceptionGroup("many", [ValueError()]), "ExceptionGroup: many (1 sub-exception)", True, FailureKind.HANDLER),
    ],
)
def test_every_exception_becomes_a_typed_failure(exc: BaseException, message: str, retryable: bool, kind: FailureKind):
    failure = outcome_of_exception(exc)
    assert (failure.message, failure.retryable, failure.kind) == (message, retryable, kind)


def test_validation_error_is_permanent_input():
    with pytest.raises(pydantic.ValidationError) as caught:
        pydantic.TypeAdapter(dict[str, int]).validate_python({"a": "4111x"})
    failure = outcome_of_exception(caught.value)
    assert (failure.kind, failure.retryable) == (FailureKind.INPUT, False)
    assert failure.message.startswith("parameter 'a': ")
    assert "4111x" not in failure.message


def test_code_stands_in_the_details():
    assert outcome_of_exception(PermanentError("x", code="card_declined", details={"a": 1})).details == {
        "code": "card_declined",
        "a": 1,
    }
    assert outcome_of_exception(PermanentError("x")).details is None


def test_other_exceptions_keep_their_type_and_nearest_frames():
    def fall(depth: int) -> None:
        if depth == 0:
            raise ValueError("bottom")
        fall(depth - 1)

    with pytest.raises(ValueError, match="bottom") as caught:
        fall(100)
    details = outcome_of_exception(caught.value).details
    assert details is not None
    assert details["type"] == "ValueError"
    assert len(details["traceback"]) == workers.failures.MAX_FRAMES
    assert details["traceback"][-1].endswith("in fall")


def test_messages_are_cut():
    failure = outcome_of_exception(ValueError("x" * 10_000_000))
    assert len(failure.message) == workers.failures.MAX_MESSAGE_CHARACTERS


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.integers() | st.text(), inner) | st.tuples(inner),
    max_leaves=20,
)


@given(st.text(), st.dictionaries(st.text(), anything))
def test_failures_can_always_be_stored(message: str, details: dict[str, Any]):
    failure = failed(message, retryable=True, details=details)
    assert not isinstance(check_output([failure.message, failure.details]), Failed)


def test_endless_details_end():
    ring: dict[str, Any] = {}
    ring["self"] = [ring] * 50
    details = failed("x", retryable=True, details=ring).details
    assert len(orjson.dumps(details)) < 100_000


def test_recursion_error_of_a_real_recursion_is_recorded():
    def endless() -> None:
        endless()

    with pytest.raises(RecursionError) as caught:
        endless()
    failure = outcome_of_exception(caught.value)
    assert failure.retryable
    assert failure.details is not None
    assert len(failure.details["traceback"]) == workers.failures.MAX_FRAMES


@pytest.mark.parametrize(
    "module",
    [workers.failures, workers.outputs, orchestrator.egress.addresses, workers.handlers.params],
    ids=lambda m: m.__name__,
)
def test_examples_in_docstrings_are_true(module: Any):
    tried = doctest.testmod(module)
    assert tried.attempted
    assert not tried.failed
