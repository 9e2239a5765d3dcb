"""A definition compiled for walking: where each block stands, what comes after it, which loops enclose it.

The plan of one instance is its definition and what was injected into its root list while it lived (`Injection`).
"""

from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, replace
from itertools import takewhile
from types import MappingProxyType
from typing import Any

from orchestrator.core.model import Iteration, NodeKey, OutputKey
from sequences.document import (
    Block,
    CancellationScope,
    ForEach,
    Interceptors,
    Loop,
    Parallel,
    Race,
    Saga,
    SequenceDefinition,
    Step,
    TryCatch,
    block_lists,
    walk,
)
from sequences.references import References, params_references, template_paths
from sequences.templates import Template, compile_params

TRY_LIST, CATCH_LIST, FINALLY_LIST = 0, 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a block stands in its definition.

    Args:
        parent: Id of the enclosing composite; None in the root list.
        branch: Which of the parent's lists the block is in (a branch, a route, try/catch/finally).
        following: Id of the next block of the same list; None for the last.
        loops: Ids of the enclosing loops and for_eachs, outermost first; a node's iteration has one number for each.
        lane_depth: How many leading iteration numbers name the lane of outputs (see `OutputKey`).
        is_shielded: Whether cancellation lets the block run: it is in a `finally_block` or a
            cancellation scope at some depth.
        parent_depth: How many loops and for_eachs enclose the parent.
        stops_with: Ids of the enclosing composites that may end the block although it is well, each with the number of
            loops and for_eachs around it: races, and parallels that fail fast. Those around a `finally_block` are not
            among them: it always runs.
        variables: Variables of the enclosing for_eachs that run one item after another.
    """

    block: Block
    parent: str | None
    branch: int
    following: str | None
    loops: tuple[str, ...]
    lane_depth: int
    is_shielded: bool
    parent_depth: int = 0
    stops_with: tuple[tuple[str, int], ...] = ()
    variables: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledParams:
    """The parameters of a step, compiled, and what they can read."""

    template: Template
    references: References


@dataclass(frozen=True, slots=True, kw_only=True)
class Injection:
    """Blocks that joined the root list of one instance (sequences contract §9.10).

    Args:
        number: Counts the blocks injected into the instance before these; so it orders the injections of an instance.
        before: Id of the root block they stand in front of; None puts them at the end. Where they belong is decided
            once, when they are injected: what had started by then is not asked again.
    """

    number: int
    blocks: tuple[Block, ...]
    before: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BesideParams:
    """The parameters of a call beside the flow, compiled.

    Args:
        paths: First two words of every path in them: what of `step`, `instance` and their like they can read.
    """

    template: Template
    references: References
    paths: frozenset[tuple[str, str]]

    def reads(self, root: str, member: str) -> bool:
        """Tell whether a member of a root, or the root as a whole, is read."""
        return (root, member) in self.paths or (root, "") in self.paths


class Plan:
    """A compiled definition. Immutable; made once per version and shared by all its instances without injections.

    `item_vars` names the variable of each for_each that has one item in progress at most, wherever it stands.

    Args:
        former_lanes: Loops that name the lane of blocks which the definition had and has no more; see `leaving.py`.
    """

    def __init__(
        self, definition: SequenceDefinition, *, former_lanes: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    ) -> None:
        self.definition = definition
        self._former_lanes = former_lanes
        self.interceptors: Interceptors = definition.interceptors or Interceptors()
        self.injections: tuple[Injection, ...] = ()
        self.places: dict[str, Place] = {}
        self._params: dict[str, CompiledParams] = {}
        self._beside: dict[str, BesideParams] = {}
        self._lists: dict[str, tuple[tuple[str, ...], ...]] = {}
        self._within: dict[str, tuple[str, ...]] = {}
        self.item_vars: dict[str, str] = {}
        self.root: tuple[str, ...] = tuple(block.id for block in definition.blocks)
        self._place(tuple(definition.blocks), parent=None, branch=0, loops=(), lane_depth=0, is_shielded=False)

    def _place(
        self,
        blocks: tuple[Block, ...],
        *,
        parent: str | None,
        branch: int,
        loops: tuple[str, ...],
        lane_depth: int,
        is_shielded: bool,
        parent_depth: int = 0,
        stops_with: tuple[tuple[str, int], ...] = (),
        variables: frozenset[str] = frozenset(),
    ) -> None:
        for position, block in enumerate(blocks):
            following = blocks[position + 1].id if position + 1 < len(blocks) else None
            self.places[block.id] = Place(
                block=block,
                parent=parent,
                branch=branch,
                following=following,
                loops=loops,
                lane_depth=lane_depth,
                is_shielded=is_shielded,
                parent_depth=parent_depth,
                stops_with=stops_with,
                variables=variables,
            )
            self._place_lists_of(
                block,
                loops=loops,
                lane_depth=lane_depth,
                is_shielded=is_shielded,
                stops_with=stops_with,
                variables=variables,
            )

    def _place_lists_of(
        self,
        block: Block,
        *,
        loops: tuple[str, ...],
        lane_depth: int,
        is_shielded: bool,
        stops_with: tuple[tuple[str, int], ...],
        variables: frozenset[str],
    ) -> None:
        lists = block_lists(block)
        depth = len(loops)
        self._lists[block.id] = tuple(tuple(child.id for child in blocks) for blocks in lists)
        if isinstance(block, Loop | ForEach):
            loops = (*loops, block.id)
        if _is_concurrent(block):
            lane_depth = len(loops)
        elif isinstance(block, ForEach):
            variables |= {block.item_var}
            if lane_depth == 0:
                self.item_vars[block.id] = block.item_var
        if isinstance(block, Race) or (isinstance(block, Parallel) and block.fails_fast):
            stops_with = (*stops_with, (block.id, depth))
        for branch, blocks in enumerate(lists):
            is_finally = isinstance(block, TryCatch) and branch == FINALLY_LIST
            shields = isinstance(block, CancellationScope) or is_finally
            self._place(
                blocks,
                parent=block.id,
                branch=branch,
                loops=loops,
                lane_depth=lane_depth,
                is_shielded=is_shielded or shields,
                parent_depth=depth,
                stops_with=() if is_finally else stops_with,
                variables=variables,
            )

    def with_injections(self, injections: Iterable[Injection]) -> "Plan":
        """Give the plan of an instance that these blocks were injected into, in order."""
        plan = self
        for injection in injections:
            plan = plan.with_injection(injection)
        return plan

    def with_injection(self, injection: Injection) -> "Plan":
        """Give the plan with further root blocks; the work is proportional to copying dicts, not to compiling.

        Blocks whose ids the plan has already are left out: after a migration, those of the new definition count. If
        the block they were to stand in front of is gone, they stand at the end.
        """
        blocks = tuple(b for b in injection.blocks if self.places.keys().isdisjoint(each.id for each in walk((b,))))
        plan = copy(self)
        plan.injections = (*self.injections, injection)
        if not blocks:
            return plan
        plan.places, plan._lists, plan._params = dict(self.places), dict(self._lists), dict(self._params)
        plan._beside, plan._within, plan.item_vars = dict(self._beside), dict(self._within), dict(self.item_vars)
        position = self.root.index(injection.before) if injection.before in self.root else len(self.root)
        ids = tuple(block.id for block in blocks)
        plan.root = (*self.root[:position], *ids, *self.root[position:])
        plan._place(blocks, parent=None, branch=0, loops=(), lane_depth=0, is_shielded=False)
        if position > 0:
            plan._link(self.root[position - 1], ids[0])
        if position < len(self.root):
            plan._link(ids[-1], self.root[position])
        return plan

    def _link(self, block_id: str, following: str) -> None:
        self.places[block_id] = replace(self.places[block_id], following=following)

    def params(self, block: Step) -> CompiledParams:
        """Give the parameters of a step, compiled once."""
        if block.id not in self._params:
            self._params[block.id] = CompiledParams(
                template=compile_params(block.handler, block.params),
                references=params_references(block.handler, block.params),
            )
        return self._params[block.id]

    def beside(self, name: str, handler: str, params: Any) -> BesideParams:
        """Give the parameters of something called beside the flow, compiled once; `name` says what it is."""
        if name not in self._beside:
            template = compile_params(handler, params)
            paths = frozenset((path.root, path.keys[0] if path.keys else "") for path in template_paths(template))
            read = params_references(handler, params)
            self._beside[name] = BesideParams(template=template, references=read, paths=paths)
        return self._beside[name]

    def children(self, block_id: str, branch: int = 0) -> tuple[str, ...]:
        """Give the ids of one list of a composite."""
        return self._lists[block_id][branch]

    def branches(self, block_id: str) -> tuple[tuple[str, ...], ...]:
        """Give the ids of all lists of a composite."""
        return self._lists[block_id]

    def within(self, loop_id: str) -> tuple[str, ...]:
        """Give the ids of all blocks inside a loop or for_each, at any depth."""
        if loop_id not in self._within:
            self._within[loop_id] = tuple(name for name, place in self.places.items() if loop_id in place.loops)
        return self._within[loop_id]

    def variables(self, block_id: str) -> frozenset[str]:
        """Name the variables of the for_eachs around a block that run one item after another; none of no block."""
        return self.places[block_id].variables if block_id in self.places else frozenset()

    def parent(self, key: NodeKey) -> NodeKey | None:
        """Name the node that encloses this one; None at the root."""
        place = self.places[key.block_id]
        return None if place.parent is None else NodeKey(place.parent, key.iteration[: place.parent_depth])

    def stoppers(self, key: NodeKey) -> Iterator[NodeKey]:
        """Name the nodes around this one that may end it although it is well."""
        for block_id, depth in self.places[key.block_id].stops_with:
            yield NodeKey(block_id, key.iteration[:depth])

    def is_composite(self, block_id: str) -> bool:
        """Tell whether a block has blocks inside; False for one that is not in the plan."""
        place = self.places.get(block_id)
        return place is not None and not isinstance(place.block, Step)

    def ancestors(self, key: NodeKey) -> Iterator[NodeKey]:
        """Name the enclosing nodes, innermost first."""
        parent = self.parent(key)
        while parent is not None:
            yield parent
            parent = self.parent(parent)

    def catching(self, key: NodeKey) -> Iterator[NodeKey]:
        """Name what handles an error where a node lies, innermost first.

        That is a try_catch in whose catch or finally list it is, or a saga of whose compensations it is one.
        """
        block_id = key.block_id
        while (place := self.places.get(block_id)) is not None and place.parent is not None:
            parent = self.places[place.parent]
            is_after_error = isinstance(parent.block, TryCatch) and place.branch != TRY_LIST
            is_after_error |= isinstance(parent.block, Saga) and place.branch % 2 == 1
            if is_after_error:
                yield NodeKey(place.parent, key.iteration[: len(parent.loops)])
            block_id = place.parent

    def lane(self, key: NodeKey) -> Iteration:
        """Give the lane that the outputs of a node belong to."""
        return key.iteration[: self.places[key.block_id].lane_depth]

    def output_seen_from(self, reader: NodeKey, block_id: str) -> OutputKey:
        """Name the newest output of a block that `reader` reads: the one in its own lane.

        The two share a lane as far as the same concurrent for_eachs enclose both; of those around the block alone, any
        item counts. A block outside of every such for_each has the one lane `()`.
        """
        place = self.places.get(block_id)
        loops = self._former_lanes.get(block_id, ()) if place is None else place.loops[: place.lane_depth]
        reader_loops = self.places[reader.block_id].loops if reader.block_id in self.places else ()
        if loops == reader_loops[: len(loops)]:
            return OutputKey(block_id, reader.iteration[: len(loops)])
        shared = takewhile(lambda pair: pair[0] == pair[1], zip(loops, reader_loops, strict=False))
        depths = [
            depth for depth, (loop_id, _) in enumerate(shared, start=1) if _is_concurrent(self.places[loop_id].block)
        ]
        return OutputKey(block_id, reader.iteration[: max(depths, default=0)], is_any_below=True)


def _is_concurrent(block: Block) -> bool:
    return isinstance(block, ForEach) and block.concurrency > 1
