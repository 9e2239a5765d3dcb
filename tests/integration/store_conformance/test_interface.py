"""The verbs of both stores are those of the interface."""

import inspect

import pytest

from orchestrator.store import interface
from orchestrator.store.memory import MemoryTransaction
from orchestrator.store.postgres import PostgresTransaction


def verbs(protocol: type) -> set[str]:
    return {name for name, member in vars(protocol).items() if inspect.isfunction(member) and name[0] != "_"}


@pytest.mark.parametrize("kind", [MemoryTransaction, PostgresTransaction])
def test_every_verb_is_kept_with_the_same_parameters(kind: type) -> None:
    for verb in sorted(verbs(interface.Transaction)):
        asked = list(inspect.signature(getattr(interface.Transaction, verb)).parameters)[1:]
        kept = list(inspect.signature(getattr(kind, verb)).parameters)[1:]
        assert kept[: len(asked)] == asked, verb
