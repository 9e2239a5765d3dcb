"""Copies of frozen values."""

import dataclasses
from datetime import UTC, datetime
from uuid import UUID

import pytest

from orchestrator.core.model import Instance
from orchestrator.core.states import InstanceState
from orchestrator.core.values import replace

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
INSTANCE = Instance(
    id=UUID(int=1),
    tenant_id="t",
    namespace="n",
    sequence_id=UUID(int=2),
    state=InstanceState.RUNNING,
    created_at=MOMENT,
    updated_at=MOMENT,
)


def test_copy_is_what_the_standard_library_makes() -> None:
    copy = replace(INSTANCE, version=7, parked_reason="x")
    assert copy == dataclasses.replace(INSTANCE, version=7, parked_reason="x")
    assert (type(copy), repr(copy)) == (Instance, repr(dataclasses.replace(INSTANCE, version=7, parked_reason="x")))
    assert INSTANCE.version == 0


def test_copy_is_as_frozen_as_its_original() -> None:
    copy = replace(INSTANCE, version=7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        copy.version = 8  # type: ignore[misc]  # that is the point


def test_copy_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(AttributeError):
        replace(INSTANCE, wersion=7)
