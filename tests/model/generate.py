"""Random valid programs: sequences that do interesting things, and scripts that do interesting things to them.

The maker draws everything from one object with the face of `random.Random`. Given a seeded one it is fast; given one of
Hypothesis's (`strategies.randoms`) its programs shrink.
"""

from collections import Counter
from random import Random
from typing import Any

from hypothesis import strategies as st

from tests.model.compare import Program
from tests.model.reference.places import everything_in

Block = dict[str, Any]
COMPOSITES = {
    "parallel": 4,
    "race": 3,
    "loop": 3,
    "for_each": 3,
    "router": 3,
    "try_catch": 5,
    "a_b_split": 1,
    "cancellation_scope": 2,
    "saga": 3,
}
"""How often each composite is chosen; one that the core cannot run yet is left out by `without`."""
HANDLERS = {"worker": 9, "log": 5, "noop": 3, "sleep": 3, "fail": 2, "set_state": 2, "merge_state": 1, "get_state": 1}
HANDLERS |= {"delete_state": 1, "transform": 2, "assert": 2}
MAX_BLOCKS = 22
MAX_DEPTH = 5
OUTPUTS = [
    {"n": 1},
    {"n": 7},
    {"flag": False},
    {"flag": True},
    {"category": "A"},
    {"items": []},
    {"deep": {"x": [1, 2]}},
    {},
    "text",
    None,
    [1, 2],
]
DETAILS = [None, {"code": "busy"}, {"status": 503}, {"error_code": "E1", "code": "busy"}]


class Maker:
    """Makes one program.

    Args:
        random: Where every choice comes from.
        without: Block types to leave out.
    """

    def __init__(self, random: Random, without: frozenset[str] = frozenset()) -> None:
        self.random = random
        self.kinds = {kind: weight for kind, weight in COMPOSITES.items() if kind not in without}
        self.left = self.pick([4, 8, 14, MAX_BLOCKS])
        self.count = 0
        self.ids: list[str] = []
        self.items: list[str] = []
        self.in_lane = self.in_loop = 0

    # -- choosing ------------------------------------------------------------------------------------------------

    def chance(self, percent: int) -> bool:
        return self.random.randrange(100) >= 100 - percent

    def pick(self, values: Any) -> Any:
        return values[self.random.randrange(len(values))]

    def weighted(self, weights: dict[str, int]) -> str:
        return str(self.pick([name for name, weight in weights.items() for _ in range(weight)]))

    # -- the program ---------------------------------------------------------------------------------------------

    def program(self) -> Program:
        """Make a document and its script."""
        blocks = self.blocks(0, 1, 5)
        steps = [block for block in everything_in(blocks) if block["type"] == "step"]
        return Program(
            blocks=blocks,
            data=self.data(),
            config={"limit": 3, "name": "cfg"},
            outcomes={step["id"]: self.outcomes() for step in steps if step["handler"] == "worker"},
            answers={step["id"]: self.replies() for step in steps if has_gate(step)},
            choices=[self.random.randrange(100) for _ in range(self.pick([0, 10, 30]))],
            signals=self.signals(),
        )

    def data(self) -> dict[str, Any]:
        return {
            "n": self.pick([0, 1, 3, 10]),
            "flag": self.chance(60),
            "category": self.pick(["A", "B", ""]),
            "items": self.pick([[], [1], ["a", "b"], [{"id": 1}, {"id": 2}, {"id": 3}]]),
            "input": {"text": "hi", "list": [5, 6]},
        }

    def signals(self) -> list[dict[str, Any]]:
        """Make signals for some programs: pauses with or without a resume, changes of the context, a cancel."""
        found: list[dict[str, Any]] = []
        if not self.chance(45):
            return found
        for _ in range(self.pick([1, 1, 2, 3])):
            at = self.random.randrange(self.pick([5, 12, 25]))
            kind = self.pick(["pause", "pause", "resume", "update_context", "cancel", "cancel"])
            payload = self.pick([{"data": {"n": 5, "flag": True}}, {"data": {"new": 1}}, {"n": 1}, None])
            found.append({"at": at, "type": kind, "payload": payload if kind == "update_context" else None})
            if kind == "pause" and self.chance(70):
                found.append({"at": at + self.random.randrange(4), "type": "resume", "payload": None})
        return sorted(found, key=lambda signal: signal["at"])

    def outcomes(self) -> list[dict[str, Any]]:
        return [self.outcome() for _ in range(self.pick([1, 2, 3]))]

    def outcome(self) -> dict[str, Any]:
        if self.chance(75):
            return {"output": self.pick(OUTPUTS)}
        if self.chance(15):
            return {"silent": True}
        return {"fail": self.pick(["boom", "later"]), "retryable": self.chance(60), "details": self.pick(DETAILS)}

    def replies(self) -> list[Any]:
        good = {"value": self.pick(["yes", "no"]), "comment": "c"}
        return self.pick([[good], [good, good], [{"value": "maybe"}, good], [None, good], [{"value": 1}], []])

    # -- blocks --------------------------------------------------------------------------------------------------

    def blocks(self, depth: int, low: int, high: int) -> list[Block]:
        """Make a list; shorter when the program has grown large."""
        wanted = low + self.random.randrange(high - low + 1)
        found = [self.block(depth) for _ in range(wanted) if self.left > 0 or wanted == low]
        return found or ([self.step()] if low else [])

    def block(self, depth: int) -> Block:
        self.left -= 1
        if depth >= MAX_DEPTH or self.left <= 0 or self.chance(45):
            return self.step()
        kind = self.weighted(self.kinds)
        block = {"type": kind, "id": self.name(kind[:2])}
        made = getattr(self, f"make_{kind}")(depth + 1)
        if kind != "for_each":
            self.ids.append(block["id"])
        return {**block, **made}

    def name(self, stem: str) -> str:
        self.count += 1
        return f"{stem}{self.count}"

    def make_parallel(self, depth: int) -> Block:
        fields = {"failure_policy": self.pick(["wait_all", "fail_fast"])} if self.chance(50) else {}
        return {"branches": self.branches(depth), **fields}

    def make_race(self, depth: int) -> Block:
        fields = {"semantics": self.pick(["first_to_resolve", "first_to_succeed"])} if self.chance(60) else {}
        return {"branches": self.branches(depth), **fields}

    def branches(self, depth: int) -> list[list[Block]]:
        return [self.blocks(depth, 0, 2) for _ in range(self.pick([1, 2, 2, 3]))]

    def make_loop(self, depth: int) -> Block:
        self.in_loop += 1
        body = self.blocks(depth, 1, 3)
        fields: Block = {"condition": self.condition(body), "max_iterations": self.pick([1, 2, 3])}
        if self.chance(25):
            fields["break_on"] = self.condition(body)
        if self.chance(35):
            fields["continue_on_error"] = True
        if self.chance(15):
            fields["poll_interval"] = 5
        self.in_loop -= 1
        return {"body": body, **fields}

    def make_for_each(self, depth: int) -> Block:
        fields: Block = {"collection": self.pick(["items", "items", "input.list", "{{ data.items }}", "data.items"])}
        if self.chance(10):
            fields["collection"] = self.pick(["missing", "n", "{{ nowhere.x }}", "context.data.items"])
        name = "item" if not self.items else f"item{len(self.items)}"
        if name != "item":
            fields["item_var"] = name
        if self.chance(40):
            fields["concurrency"] = self.pick([2, 3])
        if self.chance(20):
            fields["max_iterations"] = 2
        is_lane = fields.get("concurrency", 1) > 1
        self.items.append(name)
        self.in_lane += is_lane
        body = self.blocks(depth, 1, 3)
        self.in_lane -= is_lane
        self.items.pop()
        return {**fields, "body": body}

    def make_router(self, depth: int) -> Block:
        count = self.pick([1, 1, 2])
        routes = [{"condition": self.condition(), "blocks": self.blocks(depth, 0, 2)} for _ in range(count)]
        return {"routes": routes, **({"default": self.blocks(depth, 0, 2)} if self.chance(60) else {})}

    def make_try_catch(self, depth: int) -> Block:
        found = {"try_block": self.blocks(depth, 1, 3), "catch_block": self.blocks(depth, 0, 2)}
        return {**found, **({"finally_block": self.blocks(depth, 0, 2)} if self.chance(50) else {})}

    def make_a_b_split(self, depth: int) -> Block:
        weights = self.pick([[1, 1], [3, 1, 0], [0, 2]])
        return {
            "variants": [
                {"name": f"v{index}", "weight": weight, "blocks": self.blocks(depth, 0, 2)}
                for index, weight in enumerate(weights)
            ]
        }

    def make_cancellation_scope(self, depth: int) -> Block:
        return {"blocks": self.blocks(depth, 1, 3)}

    def make_saga(self, depth: int) -> Block:
        steps = []
        for _ in range(self.pick([1, 2, 3])):
            step: Block = {"id": self.name("st"), "action": self.block(depth)}
            if self.chance(70):
                step["compensation"] = self.block(depth)
            steps.append(step)
        return {"steps": steps}

    # -- steps ---------------------------------------------------------------------------------------------------

    def step(self) -> Block:
        handler = self.weighted(HANDLERS)
        step: Block = {"type": "step", "id": self.name("s"), "handler": handler}
        params = getattr(self, f"params_of_{handler}", self.any_params)()
        if params is not None:
            step["params"] = params
        self.add_gates(step)
        if handler in {"worker", "fail"} and self.chance(35):
            step["retry"] = self.retry()
        if handler in {"worker", "sleep"} and self.chance(15):
            step["timeout"] = self.pick([300, 2000])
        if self.chance(10):
            step["cancellable"] = False
        if not has_gate(step):
            self.ids.append(step["id"])
        return step

    def add_gates(self, step: Block) -> None:
        if self.chance(12):
            step["when"] = self.condition() if self.chance(85) else self.pick(["n >", "flag flag", "", "n # 1"])
        if self.chance(6):
            step["delay"] = {"duration": self.pick([500, 90_000])}
        if self.chance(3):
            step["send_window"] = {"start_hour": self.pick([9, 14]), "end_hour": self.pick([16, 6])}
        if self.in_lane:
            return
        if self.chance(6):
            step["wait_for_input"] = self.human_gate()
        elif self.chance(2):
            step["wait_for_signal"] = self.pick([True, {"timeout": 5000}])

    def human_gate(self) -> Block:
        gate: Block = {"prompt": "?"}
        if self.chance(50):
            gate["timeout"] = self.pick([1000, 60_000])
            if self.chance(50):
                gate["escalation_handler"] = "log"
        if self.chance(30):
            gate["store_as"] = "decision"
        if self.chance(30):
            gate["allow_comment"] = True
        return gate

    def retry(self) -> Block:
        retry: Block = {"max_attempts": self.pick([1, 2, 3]), "initial_backoff": 100, "max_backoff": 300}
        if self.chance(30):
            retry["backoff_multiplier"] = self.pick([1.0, 3.0])
        if self.chance(20):
            retry["retry_if"] = self.pick(
                [
                    "_error.message == 'later'",
                    "data._error.details.code == 'busy'",
                    "flag",
                    "_error.details.status == 503",
                ]
            )
        if self.chance(20):
            retry["non_retryable_codes"] = self.pick([["busy"], ["503"], ["E1"], ["E2"]])
        return retry

    # -- params, templates, conditions ---------------------------------------------------------------------------

    def params_of_log(self) -> Any:
        return {"message": self.template()}

    def params_of_worker(self) -> Any:
        return {"a": self.template(), "b": [1, {"c": self.template()}]} if self.chance(60) else None

    def params_of_noop(self) -> Any:
        return None

    def params_of_sleep(self) -> Any:
        return {"duration_ms": self.pick([10, 500, 5000])}

    def params_of_fail(self) -> Any:
        return {"message": self.pick(["boom", "later", "n={{ data.n }}"]), "retryable": self.chance(40)}

    def params_of_set_state(self) -> Any:
        return {"key": self.pick(["k", "m"]), "value": self.template()}

    def params_of_merge_state(self) -> Any:
        return {"values": {"k": self.template(), "z": 1}}

    def params_of_get_state(self) -> Any:
        return {"key": self.pick(["k", "m", "z"])}

    params_of_delete_state = params_of_get_state

    def params_of_transform(self) -> Any:
        target = self.pick(["data.n", "context.data.made.x", "state.k", "data.flag"])
        source = {"value": self.template()} if self.chance(50) else {"expression": self.condition()}
        return {"target": target, **source} if self.chance(70) else {"x": self.template(), "y": [self.template()]}

    def params_of_assert(self) -> Any:
        return {"condition": self.condition(), "message": "no"}

    def any_params(self) -> Any:
        return None

    def path(self) -> str:
        """Make a path that leads somewhere, mostly."""
        known = ["data.n", "context.data.flag", "data.items.0", "data.input.text", "input.list.1", "config.limit"]
        known += ["data.missing", "state.k", "context.config.name", "data._error.block_id", "runtime.attempt"]
        known += [f"data.{name}" for name in self.items]
        if self.ids and self.chance(50):
            block_id = self.pick(self.ids)
            return str(self.pick([f"outputs.{block_id}", f"steps.{block_id}.message", f"outputs.{block_id}.output.n"]))
        return str(self.pick(known))

    def template(self) -> Any:
        """Make a value with templates in it, or a plain one."""
        path = self.path()
        whole = "{{ " + path + " }}"
        forms = [
            whole,
            whole,
            f"v=[{whole}] {{{{ data.n }}}}",
            f"{{{{ {path} | {self.path()} }}}}",
            f"{{{{ {path}|none }}}}",
            f"{{{{ {path} | default('d') | upper }}}}",
            f"{{{{ len({path}) }}}}",
            "plain",
            7,
            None,
        ]
        forms += [f"{{{{ {name} }}}}-{{{{ index }}}}" for name in self.items]
        return "{{ nowhere.x }}" if self.chance(2) else self.pick(forms)

    def condition(self, body: list[Block] | None = None) -> str:
        """Make a condition; one that asks for what a loop's body says, sometimes."""
        if self.chance(25):
            return str(self.pick(["true", "true", "false", "!flag", "data.n < 3 && flag"]))
        if body and self.chance(50):
            ids = [block["id"] for block in everything_in(body) if block["type"] != "for_each" and not has_gate(block)]
            block_id = self.pick(ids or ["nothing"])
            return str(
                self.pick([f"outputs.{block_id}.n != 7", f"iteration < 2 || steps.{block_id} == 1", "iteration < 2"])
            )
        left = self.operand()
        forms = [
            f"{left} {self.pick(['==', '!=', '<', '>=', '>'])} {self.operand()}",
            f"{left} || {self.operand()}",
            f"!({left})",
            f"{left} in [1, 'A', {self.operand()}]",
            f"({left} + 1) * 2 > {self.operand()}",
            f"len({left}) > 1 ? {self.operand()} : {self.operand()}",
            f"contains(items, {left})",
            f"{{{{ {left} }}}}",
            left,
        ]
        return str(self.pick(forms))

    def operand(self) -> str:
        words = ["n", "flag", "category", "items", "missing.x", "1", "3", "'A'", "null", "-n", "data.n", "state.k"]
        return (
            self.path()
            if self.chance(40)
            else str(self.pick([*words, *self.items, *(["index"] if self.items else [])]))
        )


def has_gate(step: Block) -> bool:
    """Say whether a step waits for a person."""
    return "wait_for_input" in step or "wait_for_signal" in step


def program_of(seed: int, without: frozenset[str] = frozenset()) -> Program:
    """Make the program of a seed."""
    return Maker(Random(seed), without).program()


def programs(without: frozenset[str] = frozenset()) -> st.SearchStrategy[Program]:
    """Give programs that shrink."""
    return st.randoms(use_true_random=False).map(lambda random: Maker(random, without).program())


def features(program: Program) -> Counter[str]:
    """Count what a program has: block types, failures, gates, signals."""
    found: Counter[str] = Counter()
    for block in everything_in(program.blocks):
        found[f"block {block['type']}"] += 1
        if block["type"] == "step":
            found[f"handler {block['handler']}"] += 1
            for member in ("when", "delay", "send_window", "wait_for_input", "wait_for_signal", "retry", "timeout"):
                found[f"step with {member}"] += member in block
            found["step not cancellable"] += not block.get("cancellable", True)
    for signal in program.signals:
        found[f"signal {signal['type']}"] += 1
    return found
