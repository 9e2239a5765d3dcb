"""What a decision reads: the slice, and over it what the decision has changed so far."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

from orchestrator.core.changes import ContextPut
from orchestrator.core.facts import Facts
from orchestrator.core.leaving import former_plan
from orchestrator.core.model import (
    BESIDE,
    Instance,
    ItemKey,
    KeptSignal,
    Node,
    NodeKey,
    OutputKey,
    Shared,
    Step,
)
from orchestrator.core.plan import Plan
from orchestrator.core.sections import merged, runtime_section
from orchestrator.core.slice import ABSENT, Needs, Slice, Unloaded
from orchestrator.core.states import Activity, NodeState
from sequences.document import ForEach
from sequences.durations import after
from sequences.references import ALL, References
from sequences.scope import Scope

ERROR: Final = "_error"
"""Member of `context.data` that tells of a failure that is handled."""

_TICK: Final = timedelta(microseconds=1)
"""What the database's clock tells apart: every turn is later than the one before."""


def handled_error(handler: Node) -> dict[str, Any]:
    """Give the `_error` that the lists of a block read, as members of the data; none if it was taken from them."""
    caught = handler.memory.get("caught")
    rewritten: dict[str, Any] | None = handler.memory.get("rewritten")
    if rewritten is not None:
        return rewritten
    return {ERROR: caught} if caught is not None else {}


class Overlay:
    """Reads what was written, else what was loaded; Unloaded where the slice has to hold more. It writes nothing.

    Attributes:
        has_leaving: Whether any step is leaving, or was before this turn closed it: spares the look for each.
    """

    def __init__(self, current: Slice, facts: Facts) -> None:
        self.slice = current
        self.facts = facts
        self.plan: Plan = current.plan
        self.instance: Instance = current.instance
        self.now: datetime = max(facts.now, current.instance.updated_at + _TICK)
        self.has_leaving = current.instance.leaving > 0
        self._nodes: dict[NodeKey, Node] = {}
        self._steps: dict[NodeKey, Step | None] = {}
        self._outputs: dict[OutputKey, Any] = {}
        self._state: dict[str, Any] = {}
        self._context: ContextPut | None = None
        self._session: Shared | None = None
        self._items: dict[ItemKey, Any] = {}
        self._consumed: set[UUID] = set()
        self._kept: dict[UUID, KeptSignal] = {}
        self._forgotten: frozenset[str] = frozenset()

    def node(self, key: NodeKey) -> Node | None:
        """Give a node, None if it was not entered."""
        if key in self._nodes:
            return self._nodes[key]
        return None if key.block_id in self._forgotten else self.slice.node(key)

    def open_node(self, key: NodeKey) -> Node:
        """Give a composite that is known to be open."""
        node = self.node(key)
        if node is None:
            raise LookupError(f"composite {key!r} is not open")
        return node

    def step(self, key: NodeKey) -> Step | None:
        """Give an open step, None if it is not open."""
        return self._steps[key] if key in self._steps else self.slice.step(key)

    def open_steps(self) -> tuple[Step, ...]:
        """Give every open step of the flow."""
        return tuple(step for step in self._all_steps() if step.activity is not Activity.ASIDE)

    def open_asides(self) -> tuple[Step, ...]:
        """Give every call beside the flow that has not ended."""
        return tuple(step for step in self._all_steps() if step.activity is Activity.ASIDE)

    def _all_steps(self) -> list[Step]:
        if not self.slice.open_work:
            raise Unloaded(Needs(open_work=True))
        return [step for step in {**self.slice.steps, **self._steps}.values() if step is not None]

    def steps_touched(self) -> tuple[tuple[NodeKey, Step | None], ...]:
        """Give the steps of the flow written in this turn, as they read now; None for those that were closed."""
        return tuple((key, step) for key, step in self._steps.items() if key.iteration[:1] != (BESIDE,))

    def open_nodes(self) -> tuple[Node, ...]:
        """Give every composite that is open."""
        if not self.slice.open_work:
            raise Unloaded(Needs(open_work=True))
        return tuple(n for n in self._known_nodes() if n.state in {NodeState.RUNNING, NodeState.WAITING})

    def ended_badly(self) -> tuple[Node, ...]:
        """Give every node that failed or was cancelled."""
        if not self.slice.ended_badly:
            raise Unloaded(Needs(ended_badly=True))
        return tuple(n for n in self._known_nodes() if n.state in {NodeState.FAILED, NodeState.CANCELLED})

    def _known_nodes(self) -> list[Node]:
        stored = {key: node for key, node in self.slice.nodes.items() if key.block_id not in self._forgotten}
        return [node for node in {**stored, **self._nodes}.values() if node is not None]

    def kept_signals(self) -> tuple[KeptSignal, ...]:
        """Give the custom signals that wait for their gate, oldest first."""
        kept = {signal.id: signal for signal in self.slice.kept_signals()} | self._kept
        return tuple(signal for signal in kept.values() if signal.id not in self._consumed)

    def item(self, key: ItemKey) -> Any:
        """Give one captured item of a for_each."""
        return self._items[key] if key in self._items else self.slice.item(key)

    @property
    def context(self) -> ContextPut:
        """The data and config sections as they read now."""
        return self._context if self._context is not None else self.slice.sections()

    @property
    def session_id(self) -> UUID:
        """The session of an instance that is known to have one."""
        if self.instance.session_id is None:
            raise LookupError(f"instance {self.instance.id} has no session")
        return self.instance.session_id

    @property
    def session_data(self) -> Any:
        """The data of the session as they read now; None without a session."""
        return self._session.data if self._session is not None else self.slice.session_data()

    def state_value(self, name: str) -> Any:
        """Give one key of the key-value state, `ABSENT` if it is not set."""
        return self._state[name] if name in self._state else self.slice.state_value(name)

    def scope(
        self,
        key: NodeKey,
        references: References,
        *,
        bindings: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> Scope:
        """Build what expressions and templates of a node see, holding just what they can read.

        Raises Unloaded with everything that is missing at once, and always where the slice stands for many instances:
        expressions see ids, and draw random numbers.
        """
        if self.slice.is_anyone:
            raise Unloaded(Needs(context=True))
        plan = self.plan_of(key)
        items, counters = self._for_each_names(plan, key)
        wanted = self.plan.places if references.outputs is ALL else references.outputs
        # A block that is not in the plan may have a row all the same, if the plan was another once.
        outputs_wanted = {
            block_id: plan.output_seen_from(key, block_id)
            for block_id in wanted
            if block_id in self.plan.places or self.instance.round > 0
        }
        self._require(references, outputs_wanted.values())
        outputs = {
            block_id: value
            for block_id, output_key in outputs_wanted.items()
            if (value := self._output(output_key)) is not ABSENT
        }
        reads_context = references.data or references.config
        return Scope(
            data=self.data_seen(key) if reads_context else None,
            config=self.context.config if reads_context else None,
            outputs=outputs,
            state=self._state_seen(references),
            runtime=self.runtime(key),
            session=self.session_data if references.session else None,
            instance_id=str(self.instance.id),
            bindings={**items, **(bindings or {})},
            variables={**counters, **(variables or {})},
            now=self.now,
            random=self.facts.random,
            new_uuid=self.random_uuid,
        )

    def _require(self, references: References, outputs: Any) -> None:
        if self.slice.is_new:
            return
        names = frozenset() if references.state is ALL or self.slice.whole_state else references.state
        lacking = frozenset(key for key in outputs if key not in self._outputs and key not in self.slice.outputs)
        unset = frozenset(name for name in names if name not in self._state and name not in self.slice.state)
        whole_state = references.state is ALL and not self.slice.whole_state
        context = (references.data or references.config) and self._context is None and self.slice.context is None
        session = references.session and self._lacks_session()
        if lacking or unset or whole_state or context or session:
            raise Unloaded(
                Needs(outputs=lacking, state=unset, whole_state=whole_state, context=context, session=session)
            )

    def _lacks_session(self) -> bool:
        return self.instance.session_id is not None and self._session is None and self.slice.session is None

    def _output(self, key: OutputKey) -> Any:
        if key in self._outputs:
            return self._outputs[key]
        return ABSENT if key.block_id in self._forgotten else self.slice.output(key)

    def _state_seen(self, references: References) -> Mapping[str, Any]:
        if references.state is ALL:
            seen = {**self.slice.state, **self._state}
        else:
            seen = {name: self.state_value(name) for name in references.state}
        return {name: value for name, value in seen.items() if value is not ABSENT}

    def _for_each_names(self, plan: Plan, key: NodeKey) -> tuple[dict[str, Any], dict[str, Any]]:
        """Give the item variables and the index variables of the for_eachs around a node; inner ones win."""
        items: dict[str, Any] = {}
        counters: dict[str, Any] = {}
        place = plan.places.get(key.block_id)
        for depth, loop_id in enumerate(place.loops if place is not None else ()):
            block = plan.places[loop_id].block
            if isinstance(block, ForEach):
                index = key.iteration[depth]
                items[block.item_var] = self.item(ItemKey(NodeKey(loop_id, key.iteration[:depth]), index))
                counters |= {"index": index, "item_index": index}
        return items, counters

    def handler_of(self, key: NodeKey) -> Node | None:
        """Give the block in whose catch, finally or compensation list a node lies, the innermost one with an error."""
        around = (self.node(ancestor) for ancestor in self.plan_of(key).catching(key))
        return next((node for node in around if node is not None and node.memory.get("caught")), None)

    def data_seen(self, key: NodeKey) -> Any:
        """Give the data with the `_error` that a node handles; others may have overwritten the shared one."""
        handler = self.handler_of(key)
        if handler is None:
            return self.context.data
        data, error = self.context.data, handled_error(handler)
        if error:
            return merged(data, error)
        # A client has replaced the data by some that have none: what is there by now is another's.
        return {name: value for name, value in data.items() if name != ERROR} if isinstance(data, dict) else data

    def is_leaving(self, key: NodeKey) -> bool:
        """Tell whether a step was entered under a definition that the instance has left since."""
        if not self.has_leaving:
            return False
        step = self._seen_step(key)
        return step is not None and step.former is not None

    def plan_of(self, key: NodeKey) -> Plan:
        """Give the plan a step was entered under: for one that is leaving, what is left of the former one."""
        if not self.has_leaving:
            return self.plan
        step = self._seen_step(key)
        return self.plan if step is None or step.former is None else former_plan(self.plan, step.former)

    def _seen_step(self, key: NodeKey) -> Step | None:
        """Give a step that is open, or was before this turn closed it."""
        return self._steps.get(key) or self.slice.steps.get(key)

    def runtime(self, key: NodeKey) -> dict[str, Any]:
        """Give the runtime section of the context as a node of this instance sees it."""
        step = self._seen_step(key)
        return runtime_section(self.instance, attempt=step.attempt if step is not None else 0)

    def new_id(self) -> UUID:
        """Make an id that sorts behind all earlier ones of this instance."""
        return self.facts.new_id(self.now)

    def random_uuid(self) -> UUID:
        """Make the random UUID that `uuid()` gives."""
        return UUID(int=self.facts.random.getrandbits(128), version=4)

    def after_seconds(self, seconds: float) -> datetime:
        """Give the moment that many seconds from now."""
        return after(self.now, timedelta(seconds=seconds))
