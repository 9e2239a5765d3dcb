"""Conditions: what a text means, leniently and strictly (§7).

The parser never raises. A bad character becomes a `Bad` operand, which is null and never turns true, not by `!` and not
by `==`; a text without a tree is `Bad` as a whole. So one tree serves both modes: lenient evaluation uses it as it is,
strict evaluation first asks whether anything was wrong. Neither reading (`expression_parser`) nor evaluating
(`expression_nodes`) can recurse deeply; a budget bounds the work of functions.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from sequences.braces import single_expression
from sequences.expression_nodes import BAD, Literal, Node, Run
from sequences.expression_parser import Parser
from sequences.json_values import Budget, OutOfBudget, truthy
from sequences.scope import Scope

__all__ = ["Expression", "ExpressionError", "compile_expression", "truthy"]

MAX_TEXT: Final = 65_536


class ExpressionError(ValueError):
    """A condition cannot be read; the author's fault, and a permanent failure of a step guarded by it."""


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
    parser = Parser(source)
    node = parser.expression(0)
    if not parser.error and parser.current:
        parser.error = f"unexpected {parser.current!r}"
    return Expression(text, BAD if parser.broken else node, parser.error)


_compile_cached = lru_cache(maxsize=4096)(_compile)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 200 else f"{text[:200]}…")
