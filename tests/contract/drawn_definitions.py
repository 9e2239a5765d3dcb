"""Definitions drawn at random: those of the model's programs, as they are or with something wrong in them."""

from datetime import UTC, datetime
from random import Random
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from tests.model.generate import Maker

MOST_BLOCKS = 8
"""Of a program, about: what goes wrong goes wrong in small ones."""
WRONG: list[Any] = [
    None,
    True,
    -1,
    0,
    2**63,
    1e308,
    "",
    " ",
    "x" * 300,
    "\u00e9\U0001f600",
    "{{",
    "{{ data.n | nobody }}",
    "n > ",
    "15m",
    "PT15M",
    "-1s",
    [],
    {},
    [[]],
    [None],
    {"": None},
    {"type": "step"},
    {"type": "nothing", "id": "a"},
]
POSITIONS = (None, 0, 1, 10_000, -1)


def definitions(tenant: str) -> st.SearchStrategy[Any]:
    """Draw definitions, canonical and short, of a tenant: half of them valid, the others nearly so."""
    return _random().map(lambda random: _spoilt(_definition(random, tenant), random))


def injections() -> st.SearchStrategy[Any]:
    """Draw bodies that inject blocks."""
    return _random().map(lambda random: _spoilt(_injection(random), random))


def _random() -> st.SearchStrategy[Random]:
    """Draw a source of choices, by its seed: one that shrinks choice by choice costs ten times as much."""
    return st.integers(min_value=0, max_value=2**64).map(Random)


def _definition(random: Random, tenant: str) -> dict[str, Any]:
    program = Maker(random, MOST_BLOCKS).program()
    document: dict[str, Any] = {"blocks": program.blocks, **program.members}
    if random.random() < 0.2:
        return document
    return {
        "id": str(UUID(int=random.getrandbits(128), version=4)),
        "tenant_id": tenant,
        "namespace": random.choice(["default", "other"]),
        "name": f"drawn-{random.randrange(1000)}",
        "version": random.randrange(1, 1000),
        "created_at": datetime(2026, 1, 1, tzinfo=UTC).isoformat(),
        **document,
    }


def _injection(random: Random) -> dict[str, Any]:
    return {"blocks": Maker(random, 3).program().blocks, "position": random.choice(POSITIONS)}


def _spoilt(document: Any, random: Random) -> Any:
    """Put something wrong in some places; in none of every other document."""
    for _ in range(random.choice([0, 0, 1, 2])):
        places = list(_places(document))
        if not places:
            break
        holder, key = random.choice(places)
        action = random.randrange(4)
        if action == 0:
            del holder[key]
        elif action == 1 and isinstance(holder, list):
            holder.insert(key, holder[key])
        elif action == 2:
            other, name = random.choice(places)
            holder[key] = other[name] if not isinstance(other[name], dict | list) else random.choice(WRONG)
        else:
            holder[key] = random.choice(WRONG)
    return document


def _places(value: Any) -> Any:
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inside in members:
        yield value, key
        yield from _places(inside)
