"""Random valid programs: sequences that do interesting things, and scripts that do interesting things to them.

The maker draws everything from one object with the face of `random.Random`. Given a seeded one it is fast; given one of
Hypothesis's (`strategies.randoms`) its programs shrink.
"""

from collections import Counter
from random import Random
from typing import Any

from hypothesis import strategies as st

from tests.model.program import Program
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
    "sub_sequence": 2,
}
"""How often each composite is chosen."""
HANDLERS = {"worker": 9, "log": 5, "noop": 3, "sleep": 3, "fail": 2, "set_state": 2, "merge_state": 1, "get_state": 1}
HANDLERS |= {"delete_state": 1, "transform": 2, "assert": 2, "self_modify": 1}
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
    {"item": 3},
    {"_error": {"message": "rewritten", "block_id": "w"}},
    {},
    "text",
    None,
    [1, 2],
]
DETAILS = [None, {"code": "busy"}, {"status": 503}, {"error_code": "E1", "code": "busy"}, {"status": 429}]
MEMBERS = ("when", "delay", "send_window", "wait_for_input", "wait_for_signal", "retry", "timeout", "deadline")
MEMBERS += ("cache_key", "output_schema", "context_access")
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Nowhere/None"]
LOCAL = [
    "2026-03-02T18:00:00",
    "2026-03-08T02:30:00",
    "2026-03-29T02:30:00",
    "2026-11-01T01:30:00",
    "2020-01-01T00:00:00",
]
DURATIONS = [500, 90_000, 0.2, 3 * 86_400_000, 5 * 86_400_000]
TERMINAL = ["completed", "failed", "cancelled"]
RESTART_SIGNALS = [
    {"signal_type": "pause"},
    {"signal_type": "update_context", "payload": {"data": {"n": 6, "flag": False}}},
    {"signal_type": {"custom": "hello"}, "payload": 1},
]
UPDATES = [{"data": {"n": 5, "flag": True}}, {"data": {"_error": {"block_id": "told"}}}, {"n": 1}, None]
TARGETS = ["data.n", "context.data.made.x", "state.k", "data.flag", "data.item.x", "data._error.block_id"]
CHOICES = [["approve", "reject"], ["yes", "no", "maybe"], ["true", "approved"], ["go"], ["rejected", "later"]]
NAMELESS = [{"value": "approve"}, {"decision": "rejected"}, {"choice": "true"}, {"approved": False}]
NAMELESS += [
    {"value": "maybe", "decision": "yes"},
    {"decision": None, "approved": True},
    {"value": 1, "choice": "go"},
]
NAMELESS += [{"value": "yes"}, {"decision": "no"}, {"approved": True}, {"choice": "approved"}, {"x": 1}, None, "go"]


class Maker:
    """Makes one program.

    Args:
        random: Where every choice comes from.
        most: Blocks of the largest programs, about.
    """

    def __init__(self, random: Random, most: int = MAX_BLOCKS) -> None:
        self.random = random
        self.kinds = COMPOSITES
        self.handlers = HANDLERS
        self.most = most
        self.left = min(most, self.pick([4, 8, 14, MAX_BLOCKS]))
        self.count = 0
        self.ids: list[str] = []
        self.gates: list[str] = []
        self.items: list[str] = []
        self.in_lane = self.in_loop = 0
        self.children: dict[str, list[Block]] = {}
        self.spoken_by: dict[str, list[str]] = {}

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
        for _ in range(self.pick([0, 0, 1, 2])):
            self.make_child()
        blocks = self.blocks(0, 1, 5)
        every = [*blocks, *(block for child in self.children.values() for block in child)]
        steps = [block for block in everything_in(every) if block["type"] == "step"]
        signals = [*self.signals(), *self.early_answers(steps), *self.wishes()]
        if self.chance(12):
            signals.append(self.injection())
        signals.sort(key=lambda signal: signal["at"])
        afterwards = [self.follow_up() for _ in range(self.pick([1, 1, 2, 3]))] if self.chance(20) else []
        if any(pauses(asked) for asked in [*signals, *afterwards]):
            everything_asked = [*signals, *afterwards]
            injected = [block for s in everything_asked if s["type"] == "inject" for block in s["payload"]["blocks"]]
            for step in [*steps, *everything_in(injected)]:
                step.pop("deadline", None)
                step.pop("on_deadline_breach", None)
        return Program(
            blocks=blocks,
            children=self.children,
            retries=self.pick([1, 1, 2]) if self.chance(30) else 0,
            members={"interceptors": self.interceptors()} if self.chance(15) else {},
            timezone=self.pick(ZONES) if self.chance(20) else "UTC",
            data=self.data(),
            config={"limit": 3, "name": "cfg"},
            outcomes={step["id"]: self.outcomes() for step in steps if step["handler"] == "worker"},
            answers={step["id"]: self.replies() for step in steps if has_gate(step)},
            choices=[self.random.randrange(100) for _ in range(self.pick([0, 10, 30]))],
            signals=signals,
            afterwards=afterwards,
        )

    def make_child(self) -> None:
        """Make a sequence that others can run; it can run those made before."""
        left, self.left = self.left, min(self.most // 2, self.pick([1, 3, 5]))
        blocks = self.blocks(2, 1, 3)
        self.spoken_by[f"child{len(self.children)}"] = [b["id"] for b in everything_in(blocks) if b["type"] == "step"]
        self.children[f"child{len(self.children)}"] = blocks
        self.left, self.ids = left, []

    def make_sub_sequence(self, _depth: int) -> Block:
        name = self.pick([*self.children] * 9 + ["unknown"])
        fields: Block = {"sequence_name": name}
        if self.chance(60):
            fields["input"] = self.pick([{"n": self.template(), "flag": True}, {"items": [1, 2]}, "{{ nowhere.x }}"])
        return fields

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
            kind = self.pick(["pause", "pause", "resume", "update_context", "cancel", "cancel", "other", "nameless"])
            payload: Any = None
            if kind == "update_context":
                payload = self.pick(UPDATES)
            elif kind == "nameless":
                kind, payload = "custom", self.pick(NAMELESS)
            elif kind == "other":
                kind, payload = {"custom": "hello"}, self.pick([None, {"value": "yes"}])
            to = self.pick([0, 0, 1, 2])
            found.append({"at": at, "to": to, "type": kind, "payload": payload})
            if kind == "pause" and self.chance(70):
                found.append({"at": at + self.random.randrange(4), "to": to, "type": "resume", "payload": None})
        return sorted(found, key=lambda signal: signal["at"])

    def early_answers(self, steps: list[Block]) -> list[dict[str, Any]]:
        """Make answers that come whether or not their gate is open."""
        gates = [step["id"] for step in steps if has_gate(step)]
        if not gates or not self.chance(25):
            return []
        return [
            {
                "at": self.random.randrange(self.pick([3, 12])),
                "to": self.pick([0, 0, 1]),
                "type": {"custom": f"human_input:{self.pick(gates)}"},
                "payload": self.pick([{"value": "yes", "comment": "early"}, {"value": "no"}, {"value": "maybe"}, None]),
            }
            for _ in range(self.pick([1, 2]))
        ]

    def wishes(self) -> list[dict[str, Any]]:
        """Make what a client asks of flows that have not ended, beside signals."""
        if not self.chance(20):
            return []
        kinds = ["replace_context", "set_state", "set_state", "resume_from", "fork"]
        found = []
        for _ in range(self.pick([1, 1, 2])):
            at, to = self.random.randrange(self.pick([5, 12, 25])), self.pick([0, 0, 1])
            wish = self.wish(self.pick(kinds))
            if wish["type"] == "resume_from":
                found.append({"at": at, "to": to, "type": "pause", "payload": None})
            found.append({"at": at + self.random.randrange(2), "to": to, **wish})
        return found

    def follow_up(self) -> dict[str, Any]:
        """Make what a client asks of a flow that has ended."""
        kind = self.pick(["replace_context", "set_state", "resume_from", "resume_from", "inject", "fork"])
        if kind == "inject":
            return {**self.injection(), "at": 0}
        wish = self.wish(kind)
        if kind == "set_state":
            wish["payload"]["state"] = "scheduled"
        return {"at": 0, "to": self.pick([0, 0, 0, 1]), **wish}

    def wish(self, kind: str) -> dict[str, Any]:
        payload: dict[str, Any]
        if kind == "replace_context":
            error = {"_error": {"block_id": "told"}} if self.chance(30) else {}
            payload = {"data": {**self.data(), **error}, "config": self.pick([{}, {"limit": 4}])}
        elif kind == "set_state":
            payload = {"state": self.pick(["paused", "scheduled", "scheduled", "running", *TERMINAL])}
        else:
            signals = [self.pick(RESTART_SIGNALS) for _ in range(self.pick([0, 0, 1, 2]))]
            payload = {"block": self.random.randrange(6), "data": self.pick([{}, {"n": 4}]), "signals": signals}
            if self.chance(10):
                payload["signals"] = [*signals, {"signal_type": "cancel"}]
            elif self.ids and self.chance(20):
                answer = {"signal_type": {"custom": f"human_input:{self.pick(self.gates or ['none'])}"}}
                payload["signals"] = [{**answer, "payload": {"value": "yes"}}, *signals]
        return {"type": kind, "payload": payload}

    def injection(self) -> dict[str, Any]:
        self.left = self.pick([1, 3])
        payload = {"blocks": self.blocks(1, 1, 2), "position": self.pick([None, 0, 1, 5])}
        return {"at": self.random.randrange(self.pick([3, 10])), "to": 0, "type": "inject", "payload": payload}

    def interceptors(self) -> dict[str, Any]:
        names = ("before_step", "after_step", "on_signal", "on_complete", "on_failure")
        return {n: {"handler": self.pick(["noop", "log"]), "params": {"told": n}} for n in names if self.chance(60)}

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
        kind = self.weighted(self.kinds if self.children else {**self.kinds, "sub_sequence": 0})
        block = {"type": kind, "id": self.name(kind[:2])}
        made = getattr(self, f"make_{kind}")(depth + 1)
        if kind == "sub_sequence":
            self.ids += [f"{block['id']}.{inner}" for inner in self.spoken_by.get(made["sequence_name"], [])]
        elif kind != "for_each":
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
        if self.chance(15):
            fields["retain_iterations"] = self.pick([0, 1, 2])
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
        if self.chance(15):
            fields["retain_iterations"] = self.pick([0, 1, 2])
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
        handler = self.weighted(self.handlers)
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
        self.add_limits(step)
        if has_gate(step):
            self.gates.append(step["id"])
            self.ids.append(f"{step['id']}.value")
        else:
            self.ids.append(step["id"])
        return step

    def add_limits(self, step: Block) -> None:
        """Add what bounds a step: a deadline, a cache, a schema, less to see."""
        if self.chance(4):
            step["deadline"] = self.pick([1700, 7001, 61_111])
            if self.chance(50):
                step["on_deadline_breach"] = {"handler": "log", "params": {"message": "late"}}
        if self.chance(4):
            step["cache_key"] = self.pick(
                ["k", "k-{{ data.n }}", "{{ data.category }}", "{{ data.missing }}", "{{ no.x }}"]
            )
        if step["handler"] in {"worker", "log", "set_state"} and self.chance(6):
            step["output_schema"] = self.pick([{"type": "object"}, {"type": "object", "required": ["n"]}])
        if step["handler"] in {"worker", "log"} and not self.items and self.chance(8):
            step["context_access"] = {
                "data": self.pick([True, False, "none", {"fields": ["n", "category"]}]),
                "config": self.pick([True, False]),
            }

    def add_gates(self, step: Block) -> None:
        if self.chance(12):
            step["when"] = self.condition() if self.chance(85) else self.pick(["n >", "flag flag", "", "n # 1"])
        if self.chance(6):
            step["delay"] = self.delay()
        if self.chance(3):
            step["send_window"] = {"start_hour": self.pick([9, 14]), "end_hour": self.pick([16, 6])}
            if self.chance(40):
                step["send_window"]["days"] = self.pick([[0, 1, 2, 3, 4], [5, 6], [1]])
        if self.in_lane:
            return
        if self.chance(6):
            step["wait_for_input"] = self.human_gate()
        elif self.chance(2):
            step["wait_for_signal"] = self.pick([True, {"timeout": 5000}])

    def delay(self) -> Block:
        delay: Block = {"duration": self.pick(DURATIONS)}
        if self.chance(20):
            delay["business_days_only"] = True
            delay["holidays"] = self.pick([[], ["2026-03-09", "x"], ["2026-03-05"]])
        if self.chance(20):
            delay["fire_at_local"] = self.pick(LOCAL)
            if self.chance(50):
                delay["timezone"] = self.pick(ZONES)
        return delay

    def human_gate(self) -> Block:
        gate: Block = {"prompt": "?"}
        if self.chance(50):
            gate["timeout"] = self.pick([1000, 60_000])
            if self.chance(50):
                gate["escalation_handler"] = "log"
        if self.chance(30):
            gate["store_as"] = self.pick(["decision", "decision", "item", "_error"])
        if self.chance(30):
            gate["allow_comment"] = True
        if self.chance(30):
            gate["choices"] = [{"label": text.upper(), "value": text} for text in self.pick(CHOICES)]
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
        if self.chance(25):
            retry["retryable_errors"] = self.pick([["busy"], ["5xx", "429"], ["timeout"], ["503"], ["later"], []])
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

    def params_of_self_modify(self) -> Any:
        blocks = [
            {"type": "step", "id": self.name("s"), "handler": "log", "params": {"message": self.template()}}
            for _ in range(self.pick([1, 2]))
        ]
        return {"blocks": blocks, **({"position": self.pick([0, 1])} if self.chance(40) else {})}

    params_of_delete_state = params_of_get_state

    def params_of_transform(self) -> Any:
        target = self.pick(TARGETS)
        source = {"value": self.template()} if self.chance(50) else {"expression": self.condition()}
        return {"target": target, **source} if self.chance(70) else {"x": self.template(), "y": [self.template()]}

    def params_of_assert(self) -> Any:
        return {"condition": self.condition(), "message": "no"}

    def any_params(self) -> Any:
        return None

    def path(self) -> str:
        """Make a path that leads somewhere, mostly."""
        known = ["data.n", "context.data.flag", "data.items.0", "data.input.text", "input.list.1", "config.limit"]
        known += ["data.missing", "state.k", "context.config.name", *["data._error.block_id"] * 3, "runtime.attempt"]
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


def pauses(asked: Block) -> bool:
    """Say whether what a client asks for pauses a flow."""
    payload = asked["payload"] or {}
    match asked["type"]:
        case "set_state":
            return bool(payload["state"] == "paused")
        case "resume_from" | "fork":
            return any(signal["signal_type"] == "pause" for signal in payload["signals"])
        case kind:
            return bool(kind == "pause")


def has_gate(step: Block) -> bool:
    """Say whether a step waits for a person."""
    return "wait_for_input" in step or "wait_for_signal" in step


def program_of(seed: int, most: int = MAX_BLOCKS) -> Program:
    """Make the program of a seed."""
    return Maker(Random(seed), most).program()


def programs() -> st.SearchStrategy[Program]:
    """Give programs that shrink."""
    return st.randoms(use_true_random=False).map(lambda random: Maker(random).program())


def features(program: Program) -> Counter[str]:
    """Count what a program has: block types, failures, gates, signals."""
    found: Counter[str] = Counter()
    found["retries"] = program.retries
    for block in everything_in([*program.blocks, *(b for child in program.children.values() for b in child)]):
        found[f"block {block['type']}"] += 1
        if block["type"] == "step":
            found[f"handler {block['handler']}"] += 1
            for member in MEMBERS:
                found[f"step with {member}"] += member in block
            found["step not cancellable"] += not block.get("cancellable", True)
    for signal in [*program.signals, *program.afterwards]:
        named = signal["type"].get("custom") if isinstance(signal["type"], dict) else ""
        kind = (
            ("answer, early or late" if named.startswith("human_input:") else "of no gate") if named else signal["type"]
        )
        found[f"signal {kind}"] += 1
    return found
