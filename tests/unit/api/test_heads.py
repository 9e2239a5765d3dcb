"""What a process remembers of sequences between two starts."""

from uuid import UUID

from orchestrator.api.heads import MOST, REST_SECONDS, Heads
from orchestrator.store.definitions import Head


def head(number: int) -> Head:
    return Head(
        id=UUID(int=number),
        tenant_id="t",
        namespace="n",
        name=f"s{number}",
        version=1,
        deprecated=False,
        content_hash="h",
    )


def noted(heads: Heads, *numbers: int) -> None:
    found = {UUID(int=number): head(number) for number in numbers}
    heads.note(found.keys(), found)


def test_heads_are_given_when_all_of_them_have_been_seen() -> None:
    heads = Heads()
    noted(heads, 1, 2)
    assert heads.seen([UUID(int=1), UUID(int=2)]) == {UUID(int=1): head(1), UUID(int=2): head(2)}
    assert heads.seen([UUID(int=1), UUID(int=3)]) is None


def test_what_is_no_longer_found_is_forgotten() -> None:
    heads = Heads()
    noted(heads, 1)
    heads.note([UUID(int=1)], {})
    assert heads.seen([UUID(int=1)]) is None


def test_heads_that_were_of_no_use_rest_for_a_while() -> None:
    now = [0.0]
    heads = Heads(lambda: now[0])
    noted(heads, 1, 2)
    heads.rest([UUID(int=1)])
    noted(heads, 1)
    assert heads.seen([UUID(int=1)]) is None
    assert heads.seen([UUID(int=2)]) is not None
    now[0] = REST_SECONDS
    assert heads.seen([UUID(int=1)]) is not None


def test_those_that_were_seen_longest_ago_are_forgotten_first() -> None:
    heads = Heads()
    noted(heads, *range(MOST))
    noted(heads, 0)
    noted(heads, MOST)
    assert heads.seen([UUID(int=1)]) is None
    assert heads.seen([UUID(int=0), UUID(int=MOST)]) is not None
