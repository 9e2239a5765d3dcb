"""Conditions: grammar, parser and evaluator (§7).

The parser never raises. A bad character becomes a `Bad` operand, which is null and never turns true, not by `!` and not
by `==`; a text without a tree is `Bad` as a whole. So one tree serves both modes: lenient evaluation uses it as it is,
strict evaluation first asks whether anything was wrong. Chains (`a + b + c`) are flat nodes and nesting is limited, so
neither parsing nor evaluating can recurse deeply; a budget bounds the work of functions.

Loosest first: `c ? a : b` · `||` · `&&` · one comparison or `in` · `+ -` · `* /` · `! -` · primary.
"""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sequences.braces import single_expression
from sequences.functions import FUNCTIONS, Call, is_member
from sequences.json_values import MAX_TEXT_BYTES, Budget, OutOfBudget, equal, is_number, to_number, truthy
from sequences.scope import ROOTS, Scope, follow, resolve

__all__ = ["Expression", "ExpressionError", "compile_expression", "truthy"]

MAX_DEPTH: Final = 64
MAX_TEXT: Final = 65_536
_LEVELS: Final = 8
"""Grammar levels a parenthesis, an argument or an array element passes: 64 / 8 = 8 of them fit into each other."""


class ExpressionError(ValueError):
    """A condition cannot be read; the author's fault, and a permanent failure of a step guarded by it."""


@dataclass(frozen=True, slots=True)
class Run:
    """One evaluation: what it reads and how much it may do."""

    scope: Scope
    budget: Budget


@dataclass(frozen=True, slots=True)
class Literal:
    """A constant."""

    value: Any

    def evaluate(self, run: Run) -> Any:
        """Return the constant."""
        return self.value


@dataclass(frozen=True, slots=True)
class Bad:
    """A place where an operand was expected and none could be read: null, and never made true."""

    def evaluate(self, run: Run) -> Any:
        """Return null."""
        return None


BAD: Final = Bad()


@dataclass(frozen=True, slots=True)
class PathNode:
    """A path from one of the roots."""

    root: str
    keys: tuple[str, ...]

    def evaluate(self, run: Run) -> Any:
        """Look the path up."""
        return resolve(run.scope, self.root, self.keys)


@dataclass(frozen=True, slots=True)
class WordNode:
    """A path from a bare word: a binding, a key of `context.data`, or a variable."""

    word: str
    keys: tuple[str, ...]

    def evaluate(self, run: Run) -> Any:
        """Look the word up, then the rest in it."""
        return follow(run.scope.bare(self.word), self.keys)


@dataclass(frozen=True, slots=True)
class CallNode:
    """A function call; an unknown function is null."""

    name: str
    args: tuple["Node", ...]

    def evaluate(self, run: Run) -> Any:
        """Evaluate the arguments, then the function."""
        args = tuple(arg.evaluate(run) for arg in self.args)
        function = FUNCTIONS.get(self.name)
        return None if function is None else function(Call(args, run.scope, run.budget))


@dataclass(frozen=True, slots=True)
class ArrayNode:
    """An array of expressions."""

    elements: tuple["Node", ...]

    def evaluate(self, run: Run) -> Any:
        """Evaluate every element."""
        return [element.evaluate(run) for element in self.elements]


@dataclass(frozen=True, slots=True)
class NotNode:
    """`!a`."""

    operand: "Node"

    def evaluate(self, run: Run) -> Any:
        """Return whether the operand is falsy."""
        return not truthy(self.operand.evaluate(run))


@dataclass(frozen=True, slots=True)
class NegativeNode:
    """`-a`."""

    operand: "Node"

    def evaluate(self, run: Run) -> Any:
        """Negate a number; null for anything that is none."""
        value = self.operand.evaluate(run)
        number = to_number(value)
        if number is None:
            return None
        return -value if isinstance(value, int) and not isinstance(value, bool) else -number


@dataclass(frozen=True, slots=True)
class ArithmeticNode:
    """A chain of `+ -` or of `* /`, worked off from the left."""

    first: "Node"
    rest: tuple[tuple[str, "Node"], ...]

    def evaluate(self, run: Run) -> Any:
        """Fold the chain in float64; `+` of two texts joins them."""
        result = self.first.evaluate(run)
        for sign, node in self.rest:
            operand = node.evaluate(run)
            if sign == "+" and isinstance(result, str) and isinstance(operand, str):
                run.budget.charge(len(operand) >> 6)
                if len(result) + len(operand) > MAX_TEXT_BYTES:
                    result = None
                else:
                    result += operand
            else:
                result = _arithmetic(sign, result, operand)
        return result


def _arithmetic(sign: str, left: Any, right: Any) -> float | None:
    a, b = to_number(left), to_number(right)
    if a is None or b is None or (sign == "/" and b == 0):
        return None
    return to_number(_ARITHMETIC[sign](a, b))


_ARITHMETIC: Final[dict[str, Callable[[float, float], float]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
}
_ORDER: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True, slots=True)
class ComparisonNode:
    """One comparison, or `x in array`."""

    sign: str
    left: "Node"
    right: "Node"

    def evaluate(self, run: Run) -> Any:
        """Compare; operands of unlike types are unequal and in no order."""
        left, right = self.left.evaluate(run), self.right.evaluate(run)
        match self.sign:
            case "==":
                return equal(left, right, run.budget)
            case "!=":
                return not equal(left, right, run.budget)
            case "in":
                return is_member(left, right, run.budget)
        if (is_number(left) and is_number(right)) or (isinstance(left, str) and isinstance(right, str)):
            return _ORDER[self.sign](left, right)
        return False


@dataclass(frozen=True, slots=True)
class BooleanNode:
    """A chain of `&&` or of `||`; every operand is evaluated."""

    sign: str
    operands: tuple["Node", ...]

    def evaluate(self, run: Run) -> Any:
        """Return a boolean."""
        values = [truthy(operand.evaluate(run)) for operand in self.operands]
        return all(values) if self.sign == "&&" else any(values)


@dataclass(frozen=True, slots=True)
class ChoiceNode:
    """`condition ? yes : no`."""

    condition: "Node"
    yes: "Node"
    no: "Node"

    def evaluate(self, run: Run) -> Any:
        """Evaluate the chosen side only."""
        return (self.yes if truthy(self.condition.evaluate(run)) else self.no).evaluate(run)


Node = (
    Literal
    | Bad
    | PathNode
    | WordNode
    | CallNode
    | ArrayNode
    | NotNode
    | NegativeNode
    | ArithmeticNode
    | ComparisonNode
    | BooleanNode
    | ChoiceNode
)


@dataclass(frozen=True, slots=True)
class Expression:
    """A compiled condition.

    Attributes:
        text: As it was written.
        node: Its tree; always there, `Bad` where the text could not be read.
        error: Why strict evaluation refuses it; None when the text is well formed.
    """

    text: str
    node: Node
    error: str | None

    def evaluate(self, scope: Scope) -> Any:
        """Return the value; never raises by itself. What could not be read, or is too much work, is null."""
        try:
            return self.node.evaluate(Run(scope, Budget()))
        except OutOfBudget:
            return None

    def evaluate_strict(self, scope: Scope) -> Any:
        """Return the value of a well-formed text.

        Raises:
            ExpressionError: The text cannot be read, has left-over tokens, or is too much work.
        """
        if self.error is not None:
            raise ExpressionError(f"invalid expression {_shown(self.text)}: {self.error}")
        try:
            return self.node.evaluate(Run(scope, Budget()))
        except OutOfBudget as error:
            raise ExpressionError(f"expression {_shown(self.text)} is too much work") from error


def compile_expression(text: str) -> Expression:
    """Read a condition; an outer `{{ … }}` is stripped. Never raises: what is wrong is kept for strict evaluation.

    >>> compile_expression("{{ data.n + 1 > 2 }}").evaluate(Scope(data={"n": 2}))
    True
    """
    return _compile_cached(text) if len(text) <= 4096 else _compile(text)


def _compile(text: str) -> Expression:
    if len(text) > MAX_TEXT:
        return Expression(text, BAD, f"longer than {MAX_TEXT} characters")
    inside = single_expression(text)
    source = text if inside is None else inside
    if not source.strip():
        return Expression(text, Literal(None), None)
    parser = _Parser(source)
    node = parser.expression(0)
    if not parser.error and parser.current:
        parser.error = f"unexpected {parser.current!r}"
    return Expression(text, BAD if parser.broken else node, parser.error)


_compile_cached = lru_cache(maxsize=4096)(_compile)

_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<word>[A-Za-z_][A-Za-z0-9_.]*)|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)
    |(?P<text>"[^"]*"?|'[^']*'?)|(?P<sign>[=!<>]=|&&|\|\||[<>+\-*/!?:,()\[\]])|(?P<bad>\S))""",
    re.VERBOSE | re.ASCII,
)
_BLANKS: Final = " \t\n\r\f\v"
_COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">="})
_CONSTANTS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}


class _Parser:
    """Recursive descent over the tokens of one text; `current` is empty at the end.

    `error` is the first thing that is wrong; `broken` says that it leaves no tree at all (an operand or `:` is missing,
    nested too deeply), as opposed to a bad character, which is null, or a left-over token, which is ignored.
    """

    def __init__(self, source: str) -> None:
        text = source.rstrip(_BLANKS)  # blanks with no token behind them would be tried from every one of them
        self._tokens = [(found[found.lastgroup or 0], found.lastgroup or "") for found in _TOKEN.finditer(text)]
        self._next = 0
        self.current = self.kind = ""
        self.error: str | None = None
        self.broken = False
        self.advance()

    def advance(self) -> str:
        """Step to the next token and return the one left behind."""
        left = self.current
        self.current, self.kind = self._tokens[self._next] if self._next < len(self._tokens) else ("", "end")
        self._next += 1
        return left

    def fail(self, reason: str) -> Node:
        """Note what is wrong; the text has no tree."""
        self.broken = True
        return self.note(reason)

    def note(self, reason: str) -> Node:
        """Note what is wrong; the rest can still be read."""
        self.error = self.error or reason
        return BAD

    def take(self, sign: str) -> bool:
        """Step over an expected sign; false, and an error, if it is not there."""
        if self.current == sign:
            self.advance()
            return True
        self.note(f"expected {sign!r}")
        return False

    def expression(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            return self.fail("nested too deeply")
        condition = self._boolean("||", depth)
        if self.current != "?":
            return condition
        self.advance()
        yes = self._boolean("||", depth)
        if not self.take(":"):
            return self.fail("expected ':'")
        return ChoiceNode(condition, yes, self._boolean("||", depth))

    def _boolean(self, sign: str, depth: int) -> Node:
        operands = [self._operand_of(sign, depth)]
        while self.current == sign:
            self.advance()
            operands.append(self._operand_of(sign, depth))
        return operands[0] if len(operands) == 1 else BooleanNode(sign, tuple(operands))

    def _operand_of(self, sign: str, depth: int) -> Node:
        return self._boolean("&&", depth) if sign == "||" else self._comparison(depth)

    def _comparison(self, depth: int) -> Node:
        left = self._sum(depth)
        if not (self.current in _COMPARISONS or self.current == "in"):
            return left
        sign = self.advance()
        right = self._sum(depth)
        return BAD if left is BAD or right is BAD else ComparisonNode(sign, left, right)

    def _sum(self, depth: int) -> Node:
        first = self._product(depth)
        if self.current not in ("+", "-"):
            return first
        rest = []
        while self.current in ("+", "-"):
            rest.append((self.advance(), self._product(depth)))
        return _chain(first, rest)

    def _product(self, depth: int) -> Node:
        first = self._unary(depth)
        if self.current not in ("*", "/"):
            return first
        rest = []
        while self.current in ("*", "/"):
            rest.append((self.advance(), self._unary(depth)))
        return _chain(first, rest)

    def _unary(self, depth: int) -> Node:
        if self.current not in ("!", "-"):
            return self._primary(depth)
        if depth > MAX_DEPTH:
            return self.fail("nested too deeply")
        sign = self.advance()
        operand = self._unary(depth + 1)
        if operand is BAD:
            return BAD
        return NotNode(operand) if sign == "!" else NegativeNode(operand)

    def _primary(self, depth: int) -> Node:
        match self.kind:
            case "word":
                return self._word(self.advance(), depth)
            case "number":
                return Literal(_number(self.advance()))
            case "text":
                token = self.advance()
                return Literal(token[1:-1] if len(token) > 1 and token[-1] == token[0] else token[1:])
            case "sign" if self.current == "(":
                return self._group(depth)
            case "sign" if self.current == "[":
                self.advance()
                return ArrayNode(self._list("]", depth))
            case "bad":
                return self.note(f"unexpected {self.advance()!r}")
            case _:
                return self.fail(f"unexpected {self.current!r}" if self.current else "unexpected end")

    def _group(self, depth: int) -> Node:
        self.advance()
        inside = self.expression(depth + _LEVELS)
        self.take(")")
        return inside

    def _word(self, word: str, depth: int) -> Node:
        if word in _CONSTANTS:
            return Literal(_CONSTANTS[word])
        if self.current == "(":
            self.advance()
            return CallNode(word, self._list(")", depth))
        first, *keys = word.split(".")
        return PathNode(first, tuple(keys)) if first in ROOTS else WordNode(first, tuple(keys))

    def _list(self, end: str, depth: int) -> tuple[Node, ...]:
        """Read expressions up to the closing sign; a comma may stand before it."""
        members = []
        while self.kind != "end" and self.current != end:
            members.append(self.expression(depth + _LEVELS))
            if self.current != ",":
                break
            self.advance()
        self.take(end)
        return tuple(members)


def _chain(first: Node, rest: list[tuple[str, Node]]) -> Node:
    is_bad = first is BAD or any(operand is BAD for _, operand in rest)
    return BAD if is_bad else ArithmeticNode(first, tuple(rest))


def _number(token: str) -> float | None:
    if token.isdigit() and len(token) < 19:
        return int(token)
    return to_number(token)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:200]}…")
