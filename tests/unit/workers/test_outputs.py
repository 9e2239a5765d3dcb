import datetime
import enum
import json
import time
import uuid
from collections import OrderedDict, defaultdict, namedtuple
from datetime import timedelta
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.core.outcomes import (
    Completed,
    DataWritten,
    Failed,
    FailureKind,
    StateDeleted,
    StateWritten,
    Suspended,
)
from workers.outputs import check_outcome, check_output


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


class Colour(enum.StrEnum):
    RED = "red"


class Size(enum.IntEnum):
    BIG = 2**40


class Strange(enum.StrEnum):
    NAN = "x"

    def __init__(self, _: str) -> None:
        self._value_ = float("nan")  # type: ignore[assignment]


class Ratio(float):
    pass


Point = namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, b"null"),
        (True, b"true"),
        ("", b'""'),
        ("ünïcödé 🎉", '"ünïcödé 🎉"'.encode()),
        ("\\u0000 as text", b'"\\\\u0000 as text"'),
        (-(2**63), b"-9223372036854775808"),
        (2**64 - 1, b"18446744073709551615"),
        ((1, (2,)), b"[1,[2]]"),
        (Point(1, 2), b"[1,2]"),
        (Ratio(0.5), b"0.5"),
        (Colour.RED, b'"red"'),
        (Size.BIG, b"1099511627776"),
        ({Colour.RED: 1}, b'{"red":1}'),
        (OrderedDict(a=1), b'{"a":1}'),
        (defaultdict(list, a=[]), b'{"a":[]}'),
        (5e-324, b"5e-324"),
    ],
)
def test_json_values_are_written(value: Any, text: bytes):
    assert check_output(value) == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "output: NaN is not JSON"),
        ({"a": [1, float("-inf")]}, "output.a[1]: Infinity is not JSON"),
        ([Ratio("nan")], "output[0]: NaN is not JSON"),
        (Strange.NAN, "output: NaN is not JSON"),
        ({"a": "x\x00"}, "output.a: \\u0000 cannot be stored"),
        ({"a\x00": 1}, "output.a\ufffd: \\u0000 cannot be stored"),
        ({"b": {"a\ud800": 1}}, "output.b.a\ufffd: a lone surrogate is not Unicode text"),
        (["\udfff"], "output[0]: a lone surrogate is not Unicode text"),
        ({"a": {1: 2}}, "output.a: key of type int; JSON keys are strings"),
        ({"a": {1, 2}}, "output.a: set is not a JSON type"),
        ([b"x"], "output[0]: bytes is not a JSON type"),
        ({"at": datetime.datetime.now(datetime.UTC)}, "output.at: datetime is not a JSON type"),
        ({"id": uuid.uuid4()}, "output.id: UUID is not a JSON type"),
        (2**64, "output: integer outside of 64 bit"),
        (-(2**63) - 1, "output: integer outside of 64 bit"),
        (10**4000, "output: integer outside of 64 bit"),
        (orjson.Fragment(b"NaN"), "output: Fragment is not a JSON type"),
        (enum.Enum("E", "A").A, "output: E is not a JSON type"),  # type: ignore[attr-defined]
        (nested(65), "output" + "[0]" * 64 + ": nested deeper than 64"),
        ((i for i in [1]), "output: generator is not a JSON type"),
    ],
)
def test_what_cannot_be_stored_is_refused_with_its_path(value: Any, message: str):
    failure = check_output(value)
    assert failure == Failed(message=message, retryable=False, kind=FailureKind.OUTPUT)


def test_depth_64_is_allowed():
    assert check_output(nested(64)) == b"[" * 64 + b"1" + b"]" * 64


def test_cycles_and_shared_references_end_soon():
    ring: list[Any] = []
    ring.append(ring)
    laughs: Any = "ha"
    for _ in range(60):
        laughs = [laughs] * 10
    started = time.thread_time()
    assert isinstance(check_output(ring), Failed)
    assert isinstance(check_output(laughs), Failed)
    assert time.thread_time() - started < 20


def test_huge_values_are_refused_without_being_read():
    started = time.thread_time()
    for value in ("x" * 100_000_000, {"a": ["\x01" * 100_000_000]}, [0] * 20_000_000, {"k" * 50_000_000: 1}):
        failure = check_output(value)
        assert isinstance(failure, Failed)
        assert "larger than 8388608 bytes" in failure.message
        assert len(failure.message) < 500
    assert time.thread_time() - started < 20


def test_cap_counts_bytes_of_json():
    assert check_output("é" * 49, max_bytes=100) == b'"' + "é".encode() * 49 + b'"'
    assert isinstance(check_output("é" * 50, max_bytes=100), Failed)
    assert isinstance(check_output("\x01" * 20, max_bytes=100), Failed)


def json_values() -> st.SearchStrategy[Any]:
    text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"))
    leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False) | text  # fmt: skip # noqa: E501
    return st.recursive(leaves, lambda inner: st.lists(inner) | st.dictionaries(text, inner), max_leaves=30)


@given(json_values())
def test_every_json_value_survives(value: Any):
    text = check_output(value)
    assert isinstance(text, bytes)
    assert json.loads(text) == value


BAD = [float("nan"), float("inf"), "\x00", "\ud834", {3: 1}, {1}, 2**70, object()]


@given(st.data())
def test_one_bad_leaf_anywhere_is_found(data: st.DataObject):
    value: Any = data.draw(st.sampled_from(BAD))
    for _ in range(data.draw(st.integers(0, 8))):
        others = data.draw(st.lists(json_values(), max_size=2))
        value = [*others, value] if data.draw(st.booleans()) else {"a": others, "b": value}
    assert isinstance(check_output(value), Failed)


@pytest.mark.parametrize(
    "outcome",
    [
        Completed(output={1}),
        Completed(output=1, effects=(StateWritten(key="k", value=float("nan")),)),
        Completed(output=1, effects=(StateWritten(key="\x00", value=1),)),
        Completed(output=1, effects=(StateDeleted(key="\ud800"),)),
        Completed(output=1, effects=(DataWritten(path=("a", "\x00"), value=1),)),
        Suspended(duration=timedelta(1), output=float("nan")),
    ],
)
def test_everything_an_outcome_stores_is_checked(outcome: Any):
    checked = check_outcome(outcome)
    assert isinstance(checked, Failed)
    assert checked.kind is FailureKind.OUTPUT


def test_good_outcomes_pass_and_failures_are_cleaned():
    good = Completed(output=1, effects=(StateWritten(key="k", value=[1]), DataWritten(path=("a",), value=None)))
    assert check_outcome(good) is good
    failure = Failed(message="a\x00b", retryable=True, details={"at": {1}}, kind=FailureKind.NETWORK)
    assert check_outcome(failure) == Failed(
        message="a\ufffdb", retryable=True, details={"at": "{1}"}, kind=FailureKind.NETWORK
    )
