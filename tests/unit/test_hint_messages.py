"""Hints as messages: what is written is read, and nothing else is taken for a hint."""

from base64 import b64encode
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from queues.messages import HINT_TASK, Hint, NoHint, packed, unpacked

STEP = UUID(int=7)


def _message(task: object, body: object) -> bytes:
    return orjson.dumps({"headers": {"task": task}, "body": body})


def _body(arguments: object) -> str:
    return b64encode(orjson.dumps([arguments, {}, {}])).decode()


def test_a_hint_that_was_written_names_its_step() -> None:
    hint = Hint(step_id=STEP, attempt=3, queue="gpu", hint_id=uuid4())
    assert unpacked(packed(hint)) == STEP
    assert len(packed(hint)) < 1536


@pytest.mark.parametrize(
    "message",
    [
        _message("shop.charge", _body([str(STEP), 0, "x"])),
        _message(HINT_TASK, _body(["no id", 0, "x"])),
        _message(HINT_TASK, _body([7, 0, "x"])),
        _message(HINT_TASK, _body([])),
        _message(HINT_TASK, _body(None)),
        _message(HINT_TASK, "no base64"),
        _message(HINT_TASK, None),
        _message(None, _body([str(STEP)])),
        b'{"headers": null}',
        b"[]",
        b"7",
        b"",
        b"\xff",
    ],
)
def test_what_is_no_hint_is_told_from_one(message: bytes) -> None:
    with pytest.raises(NoHint):
        unpacked(message)


@given(
    st.binary() | st.recursive(st.none() | st.text(), lambda each: st.lists(each) | st.dictionaries(st.text(), each))
)
def test_nothing_that_is_read_does_harm(message: object) -> None:
    with pytest.raises(NoHint):
        unpacked(message if isinstance(message, bytes) else orjson.dumps(message))
