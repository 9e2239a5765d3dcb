"""Small programs of every shape that has to do with time, with several hands, or with failure.

A program is JSON: the blocks of the sequence that is started, those of the sequences it calls, its data. Handlers of
its own are `work` (takes its time) and `quick` (takes none, and is run in batches); what they return depends on their
params, their block and their iteration alone, so that whoever runs a program must find the same outputs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

Block = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What is started, and what may be said of it beforehand.

    Attributes:
        others: Blocks of the sequences that are called, by name.
        instances: How many instances of it are started.
        is_certain: Its outputs do not depend on who comes first.
    """

    blocks: list[Block]
    others: dict[str, list[Block]] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    instances: int = 1
    is_certain: bool = True

    @property
    def writes_to_peers(self) -> bool:
        """Whether a step sends signals to the next instance."""
        lists = [self.blocks, *self.others.values()]
        return any(step["handler"] == "send_signal" for blocks in lists for step in steps_of(blocks))


class Maker:
    """Makes one program.

    Args:
        random: Where every choice comes from.
        without: Shapes to leave out.
    """

    SHAPES = ("parallel", "for_each", "loop", "race", "try_catch", "sub_sequence", "saga", "scope", "router", "notify")

    def __init__(self, random: Random, without: frozenset[str] = frozenset()) -> None:
        self.random = random
        self.shapes = [shape for shape in self.SHAPES if shape not in without]
        self.left = self.pick([3, 5, 7, 9])
        self.count = 0
        self.steps: list[str] = []
        self.gates: list[str] = []
        self.others: dict[str, list[Block]] = {}
        self.in_lane = 0
        self.is_certain = True

    def chance(self, percent: int) -> bool:
        return self.random.random() * 100 < percent

    def pick(self, values: Any) -> Any:
        return values[int(self.random.random() * len(values))]

    def program(self) -> Program:
        blocks = self.blocks(0, 2, 4)
        data = {"items": self.pick([["a", "b"], ["a", "b", "c"], [1, 2, 3, 4, 5]]), "n": 1}
        instances = self.pick([1, 1, 1, 2, 3])
        return Program(blocks=blocks, others=self.others, data=data, instances=instances, is_certain=self.is_certain)

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def blocks(self, depth: int, low: int, high: int) -> list[Block]:
        wanted = low + int(self.random.random() * (high - low + 1))
        return [self.block(depth) for number in range(wanted) if number < low or self.left > 0]

    def block(self, depth: int) -> Block:
        self.left -= 1
        if depth >= 3 or self.left <= 0 or self.chance(45):
            return self.step()
        shape = self.pick(self.shapes)
        made: Block = getattr(self, shape)(depth + 1)
        return made

    # -- composites ------------------------------------------------------------------------------------------------

    def parallel(self, depth: int) -> Block:
        branches = [self.apart(lambda: self.blocks(depth, 1, 2)) for _ in range(self.pick([2, 2, 3]))]
        self.steps += [block["id"] for branch in branches for block in branch if block["type"] == "step"]
        return {"type": "parallel", "id": self.name("p"), "branches": branches}

    def apart(self, make: Any) -> Any:
        """Make what must not read the outputs of what runs beside it."""
        known = list(self.steps)
        made = make()
        self.steps = known
        return made

    def for_each(self, depth: int) -> Block:
        name = self.name("f")
        concurrency = self.pick([1, 2, 2, 3])
        self.in_lane += concurrency > 1
        body = self.apart(lambda: self.blocks(depth, 1, 2))
        self.in_lane -= concurrency > 1
        fields = {"concurrency": concurrency} if concurrency > 1 else {}
        return {
            "type": "for_each",
            "id": name,
            "collection": "data.items",
            "item_var": f"item_{name}",
            "body": body,
            **fields,
        }

    def loop(self, depth: int) -> Block:
        body = self.apart(lambda: self.blocks(depth, 1, 2))
        fields = {"poll_interval": 2} if self.chance(30) else {}
        condition = f"iteration < {self.pick([2, 3])}"
        return {"type": "loop", "id": self.name("l"), "condition": condition, "body": body, **fields}

    def race(self, depth: int) -> Block:
        self.is_certain = False
        branches = [self.apart(lambda: self.blocks(depth, 1, 2)) for _ in range(2)]
        return {"type": "race", "id": self.name("r"), "branches": branches}

    def try_catch(self, depth: int) -> Block:
        made = {
            "type": "try_catch",
            "id": self.name("t"),
            "try_block": self.apart(lambda: [*self.blocks(depth, 0, 1), self.failing()]),
            "catch_block": self.apart(lambda: self.blocks(depth, 0, 1)),
        }
        if self.chance(50):
            made["finally_block"] = self.apart(lambda: self.blocks(depth, 1, 1))
        return made

    def saga(self, depth: int) -> Block:
        del depth
        steps = [
            {"id": self.name("u"), "action": self.work(), "compensation": self.apart(self.work)}
            for _ in range(self.pick([1, 2]))
        ]
        steps.append({"id": self.name("u"), "action": self.failing()})
        saga = {"type": "saga", "id": self.name("g"), "steps": steps}
        return {"type": "try_catch", "id": self.name("t"), "try_block": [saga], "catch_block": []}

    def scope(self, depth: int) -> Block:
        return {"type": "cancellation_scope", "id": self.name("c"), "blocks": self.blocks(depth, 1, 2)}

    def router(self, depth: int) -> Block:
        routes = [{"condition": "data.n == 1", "blocks": self.blocks(depth, 1, 1)}]
        default = self.apart(lambda: self.blocks(depth, 1, 1))
        return {"type": "router", "id": self.name("o"), "routes": routes, "default": default}

    def notify(self, depth: int) -> Block:
        """Answer a gate of the next instance, which may stand there, or be before or behind it, or have ended."""
        del depth
        self.is_certain = False
        name = f"human_input:{self.pick(self.gates)}" if self.gates else "hello"
        params = {"instance_id": "{{ data.peer }}", "signal_type": {"custom": name}, "payload": {"value": "yes"}}
        send = self.made("send_signal", params)
        return {"type": "try_catch", "id": self.name("t"), "try_block": [send], "catch_block": []}

    def sub_sequence(self, depth: int) -> Block:
        name = self.name("child")
        known, self.steps = self.steps, []
        self.others[name] = self.blocks(depth, 1, 2)
        self.steps = known
        given = {"n": "{{ data.n }}", "items": "{{ data.items }}", "peer": "{{ data.peer }}"}
        return {"type": "sub_sequence", "id": self.name("b"), "sequence_name": name, "input": given}

    # -- steps -----------------------------------------------------------------------------------------------------

    def step(self) -> Block:
        kind = self.pick(
            ["work"] * 5
            + ["quick"] * 4
            + ["log", "noop", "sleep", "state", "gate", "signal", "retry", "hasty", "letter"]
        )
        if kind in {"gate", "signal"} and self.in_lane:
            kind = "work"
        if kind == "letter":
            return self.notify(0)
        step: Block = getattr(self, kind)()
        if self.chance(12):
            step["delay"] = {"duration": self.pick([500, 3000])}
        self.steps.append(step["id"])
        return step

    def made(self, handler: str, params: Any = None, **fields: Any) -> Block:
        given = {} if params is None else {"params": params}
        return {"type": "step", "id": self.name("s"), "handler": handler, **given, **fields}

    def read(self) -> Any:
        """Make a template that reads what an earlier step has said."""
        return f"{{{{ outputs.{self.pick(self.steps)}.by | 'none' }}}}" if self.steps else "{{ data.n }}"

    def work(self) -> Block:
        return self.made("work", {"saw": self.read()})

    def quick(self) -> Block:
        return self.made("quick", {"saw": self.read()})

    def log(self) -> Block:
        return self.made("log", {"message": self.read()})

    def noop(self) -> Block:
        return self.made("noop")

    def sleep(self) -> Block:
        return self.made("sleep", {"duration_ms": self.pick([10, 1500])})

    def state(self) -> Block:
        return self.made("set_state", {"key": f"k{self.count}", "value": self.read()})

    def gate(self) -> Block:
        gate = self.made("work", wait_for_input={"prompt": "?"})
        self.gates.append(gate["id"])
        return gate

    def signal(self) -> Block:
        return self.made("quick", wait_for_signal=True)

    def retry(self) -> Block:
        fails = self.pick([1, 2])
        return self.made(
            "work", {"fails": fails}, retry={"max_attempts": fails + 2, "initial_backoff": 400, "max_backoff": 2000}
        )

    def hasty(self) -> Block:
        """Make a step that may be over its time before a worker comes to it."""
        self.is_certain = False
        retry = {"max_attempts": 3, "initial_backoff": 300, "max_backoff": 1000}
        return self.made(self.pick(["work", "quick", "sleep"]), {"duration_ms": 900}, timeout=800, retry=retry)

    def failing(self) -> Block:
        return self.made("work", {"fails": 99}) if self.chance(50) else self.made("fail", {"message": "boom"})


def program_of(seed: int, without: frozenset[str] = frozenset()) -> Program:
    """Make the program of a seed."""
    return Maker(Random(seed), without).program()


def steps_of(blocks: list[Block]) -> Iterator[Block]:
    """Give all steps of a list, at any depth."""
    for block in everything_in(blocks):
        if block["type"] == "step":
            yield block


def everything_in(blocks: list[Block]) -> Iterator[Block]:
    """Give all blocks of a list, at any depth."""
    for block in blocks:
        yield block
        for inner in lists_in(block):
            yield from everything_in(inner)


def lists_in(block: Block) -> list[list[Block]]:
    """Give the lists inside of a block."""
    found = [block[name] for name in ("body", "try_block", "catch_block", "finally_block", "blocks") if name in block]
    found += block.get("branches", [])
    found += [route["blocks"] for route in block.get("routes", [])]
    if "routes" in block:
        found.append(block.get("default", []))
    for step in block.get("steps", []):
        found += [[step["action"]], [step["compensation"]] if "compensation" in step else []]
    return found
