"""The tree of a condition, and what each of its nodes gives (§7). Chains (`a + b + c`) are flat nodes."""

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from sequences.functions import FUNCTIONS, Call, is_member
from sequences.json_values import MAX_TEXT_BYTES, MIN_INTEGER, Budget, equal, is_number, to_number, truthy
from sequences.scope import Scope, follow, resolve


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
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return -value if is_whole and -value >= MIN_INTEGER else -number


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
