"""Reads the text of a condition into a tree (§7).

Never raises: a bad character becomes a `Bad` operand, a text without a tree is `Bad` as a whole. Nesting is limited, so
reading cannot recurse deeply.

Loosest first: `c ? a : b` · `||` · `&&` · one comparison or `in` · `+ -` · `* /` · `! -` · primary.
"""

import re
from typing import Final

from sequences.expression_nodes import (
    BAD,
    ArithmeticNode,
    ArrayNode,
    BooleanNode,
    CallNode,
    ChoiceNode,
    ComparisonNode,
    Literal,
    NegativeNode,
    Node,
    NotNode,
    PathNode,
    WordNode,
)
from sequences.json_values import MAX_INTEGER, to_number
from sequences.scope import ROOTS

MAX_DEPTH: Final = 64
_LEVELS: Final = 8
"""Grammar levels a parenthesis, an argument or an array element passes: 64 / 8 = 8 of them fit into each other."""
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<word>[A-Za-z_][A-Za-z0-9_.]*)|(?P<number>\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)
    |(?P<text>"[^"]*"?|'[^']*'?)|(?P<sign>[=!<>]=|&&|\|\||[<>+\-*/!?:,()\[\]])|(?P<bad>\S))""",
    re.VERBOSE | re.ASCII,
)
_BLANKS: Final = " \t\n\r\f\v"
_COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">="})
_CONSTANTS: Final[dict[str, bool | None]] = {"true": True, "false": False, "null": None}


class Parser:
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
        """Read one expression, and leave what stands behind it."""
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
    """Read a number as JSON is read: one of 64 bits stays exact, so that it equals the same number in the data."""
    if token.isdigit() and len(token) <= len(str(MAX_INTEGER)) and (whole := int(token)) <= MAX_INTEGER:
        return whole
    return to_number(token)
