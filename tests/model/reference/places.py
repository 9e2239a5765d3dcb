"""Where things are in a document, and what surrounds a running block: iterations, bindings, cancellation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

Json = Mapping[str, Any]
EXTERNAL, INTERNAL = "external", "internal"
"""Who cancels: a signal from outside, or a sibling (a race that is won, a parallel that fails fast)."""

NOTHING = object()


def lists_of(block: Json) -> list[list[Json]]:
    """Give the lists of a block, in the order of the document; a saga's action and compensation are lists of one."""
    match block["type"]:
        case "parallel" | "race":
            return list(block["branches"])
        case "loop" | "for_each":
            return [block["body"]]
        case "router":
            return [*(route["blocks"] for route in block["routes"]), block.get("default") or []]
        case "try_catch":
            return [block["try_block"], block["catch_block"], block.get("finally_block") or []]
        case "a_b_split":
            return [variant["blocks"] for variant in block["variants"]]
        case "cancellation_scope":
            return [block["blocks"]]
        case "saga":
            parts = [part for step in block["steps"] for part in (step["action"], step.get("compensation"))]
            return [[part] if part else [] for part in parts]
        case _:
            return []


def everything_in(blocks: list[Json]) -> Iterator[Json]:
    """Give all blocks of a list, at any depth, outer ones first."""
    for block in blocks:
        yield block
        for inner in lists_of(block):
            yield from everything_in(inner)


def ancestors(blocks: list[Json], above: tuple[str, ...] = ()) -> dict[str, tuple[str, ...]]:
    """Give the ids of the blocks around each block."""
    found: dict[str, tuple[str, ...]] = {}
    for block in blocks:
        found[block["id"]] = above
        for inner in lists_of(block):
            found.update(ancestors(inner, (*above, block["id"])))
    return found


@dataclass
class Fence:
    """A place that a cancellation can reach (`cancelled`), or that keeps some kinds of it out (`keeps_out`)."""

    kind: str = INTERNAL
    cancelled: bool = False
    keeps_out: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Binding:
    """An item of a for_each around."""

    name: str
    item: Any
    index: int
    is_alone: bool = True


@dataclass
class Handled:
    """The `_error` that a catch list and the finally list behind it, or the compensations of a saga, read and write.

    It is `NOTHING` when a client has replaced the data by some that have none.
    """

    error: Any

    def members(self) -> dict[str, Any]:
        """Give it as members of the data."""
        return {} if self.error is NOTHING else {"_error": self.error}


@dataclass(frozen=True)
class Place:
    """What surrounds a block that runs.

    Attributes:
        iteration: Numbers of the loops and for_eachs around, outermost first.
        bindings: Items of the for_eachs around, outermost first.
        fences: What a cancellation from outside meets on its way in, innermost last.
        is_root: The block stands in the root list.
        handled: The `_error` that is handled here, if one is.
    """

    iteration: tuple[int, ...] = ()
    bindings: tuple[Binding, ...] = ()
    fences: tuple[Fence, ...] = field(default=())
    is_root: bool = False
    handled: Handled | None = None

    def handling(self, handled: Handled | None) -> "Place":
        """Go into a list that handles an error; None if there was none."""
        return replace(self, handled=handled) if handled is not None else self

    def inside(self, *fences: Fence) -> "Place":
        """Go into a block."""
        return replace(self, fences=(*self.fences, *fences), is_root=False)

    def turn(self, number: int, binding: Binding | None = None) -> "Place":
        """Go into an iteration."""
        bindings = (*self.bindings, binding) if binding else self.bindings
        return replace(self, iteration=(*self.iteration, number), bindings=bindings, is_root=False)

    def stopped_by(self) -> str | None:
        """Name the kind of cancellation that has reached this place, if one has."""
        kept_out: frozenset[str] = frozenset()
        for fence in reversed(self.fences):
            if fence.cancelled and fence.kind not in kept_out:
                return fence.kind
            kept_out |= fence.keeps_out
        return None


def lanes_of(blocks: list[Json]) -> dict[str, dict[str, int]]:
    """Give, for each block, the concurrent for_eachs around it, with the number of iterations down to each."""
    found: dict[str, dict[str, int]] = {}

    def walk(inside: list[Json], lanes: dict[str, int], depth: int) -> None:
        for block in inside:
            found[block["id"]] = lanes
            turns = block["type"] in {"loop", "for_each"}
            is_lane = block["type"] == "for_each" and block.get("concurrency", 1) > 1
            inner = {**lanes, block["id"]: depth + 1} if is_lane else lanes
            for each in lists_of(block):
                walk(each, inner, depth + turns)

    walk(blocks, {}, 0)
    return found
