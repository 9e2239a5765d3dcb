"""Expressions and templates, a second time: a useful subset, by the shortest way that follows the contract (§6, §7).

Nothing here is shared with `sequences`. The subset leaves out what only the parser's own tests care about: calls beyond
`len contains sum first last`, the budget of work, filters with strange arguments.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

ROOTS = ("context", "data", "config", "outputs", "steps", "input", "instance_id", "runtime", "state", "session")


class BadExpression(Exception):
    """Strict evaluation refuses the text."""


class BadTemplate(Exception):
    """A template cannot be resolved."""


class View:
    """What conditions and templates of one place can read.

    Args:
        sections: `data`, `config`, `state`, `runtime`, `session` and `instance_id`.
        output: Gives the newest row of a block as the reader sees it; raises KeyError without one.
        items: Bindings of the for_eachs around, which are laid over `data`.
        variables: `index`, `item_index`, `iteration`: names that `data` hides in expressions.
    """

    def __init__(
        self,
        sections: Mapping[str, Any],
        output: Callable[[str], Any],
        items: Mapping[str, Any] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> None:
        data = sections["data"]
        self.sections = {**sections, "data": {**(data if isinstance(data, dict) else {}), **(items or {})}}
        self.output = output
        self.items = dict(items or {})
        self.variables = dict(variables or {})

    def filtered(self, access: Mapping[str, Any] | None) -> "View":
        """Hide the sections and fields that a step has no access to (§8.2)."""
        if access is None:
            return self
        shown = {name: _visible(self.sections[name], access.get(name, True)) for name in ("data", "config")}
        if access.get("runtime", False) in {False, "none"}:
            shown["runtime"] = {"attempt": 0, "dry_run": False}
        return View({**self.sections, **shown}, self.output, self.items, self.variables)

    def path(self, root: str, keys: list[str]) -> Any:
        """Look up a path from a known root; null for anything missing."""
        if root == "context":
            known = bool(keys) and keys[0] in {"data", "config"}
            return self.path(keys[0], keys[1:]) if known else None
        if root == "input":
            return self.path("data", ["input", *keys])
        if root in {"outputs", "steps"}:
            return self._row(keys)
        return dig(self.sections.get(root), keys)

    def _row(self, keys: list[str]) -> Any:
        try:
            row = self.output(keys[0])
        except (KeyError, IndexError):
            return None
        rest = keys[1:]
        if rest[:1] == ["output"] and not (isinstance(row, dict) and "output" in row):
            rest = rest[1:]
        if isinstance(row, list) and rest and not rest[0].isdigit():
            row, rest = _newest(row, rest[0]), rest[1:]
        return dig(row, rest)


def _visible(section: Any, access: Any) -> Any:
    if isinstance(access, Mapping):
        return {name: section[name] for name in access["fields"] if name in section}
    return section if access in {True, "all"} else {}


def _newest(rows: list[Any], block_id: str) -> Any:
    found = [row["output"] for row in rows if isinstance(row, dict) and row.get("block_id") == block_id]
    return found[-1] if found else None


def dig(value: Any, keys: list[str]) -> Any:
    """Follow keys and array indices; null for anything missing."""
    for key in keys:
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list) and key.isdigit() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def truthy(value: Any) -> bool:
    """Say whether a value counts as true: every object does."""
    return True if isinstance(value, dict) else bool(value)


def number(value: Any) -> float | None:
    """Coerce for arithmetic: numbers, booleans, numeric text."""
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d+)?", value):
        return float(value)
    return None


def same(left: Any, right: Any) -> bool:
    """Compare by value, never across types; numbers are one type."""
    kinds = [_kind(left), _kind(right)]
    if kinds[0] != kinds[1]:
        return False
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    return bool(left == right)


def _kind(value: Any) -> str:
    if value is None or isinstance(value, bool | str | list | dict):
        return type(value).__name__
    return "number"


# -- expressions -----------------------------------------------------------------------------------------------------

TOKEN = re.compile(
    r"""\s*(?:(?P<word>[A-Za-z_][A-Za-z0-9_.]*)|(?P<number>\d+(?:\.\d+)?)|(?P<text>"[^"]*"|'[^']*')"""
    r"""|(?P<sign>[=!<>]=|&&|\|\||[-<>+*/!?:,()\[\]])|(?P<bad>\S))"""
)
ORDER = {"<": lambda a, b: a < b, "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b}


def evaluate(text: str, view: View, *, strict: bool = False) -> Any:
    """Evaluate a condition.

    Raises:
        BadExpression: In strict mode, for a text that does not parse or has left-over tokens.
    """
    text = text.strip()
    if text.startswith("{{") and text.endswith("}}"):
        text = text[2:-2]
    if not text.strip():
        return None
    reader = _Reader(text, view)
    try:
        value = reader.choice()
    except BadExpression:
        if strict:
            raise
        return None
    if strict and (reader.wrong or reader.left):
        raise BadExpression(text)
    return value


class _Reader:
    """Reads and evaluates in one go: both sides of everything are evaluated, which nothing here can notice."""

    def __init__(self, text: str, view: View) -> None:
        self.left = [(m[m.lastgroup or 0], m.lastgroup or "") for m in TOKEN.finditer(text)]
        self.view = view
        self.wrong = False

    def next_is(self, *signs: str) -> bool:
        return bool(self.left) and self.left[0][0] in signs and self.left[0][1] in {"sign", "word"}

    def take(self) -> tuple[str, str]:
        if not self.left:
            raise BadExpression("unexpected end")
        return self.left.pop(0)

    def need(self, sign: str) -> None:
        if self.take()[0] != sign:
            raise BadExpression(f"{sign} expected")

    def choice(self) -> Any:
        condition = self.either()
        if not self.next_is("?"):
            return condition
        self.take()
        yes = self.either()
        self.need(":")
        no = self.either()
        return yes if truthy(condition) else no

    def either(self) -> Any:
        value = self.both()
        while self.next_is("||"):
            self.take()
            other = self.both()
            value = truthy(value) or truthy(other)
        return value

    def both(self) -> Any:
        value = self.comparison()
        while self.next_is("&&"):
            self.take()
            other = self.comparison()
            value = truthy(value) and truthy(other)
        return value

    def comparison(self) -> Any:
        left = self.sum()
        if not self.next_is("==", "!=", "<", "<=", ">", ">=", "in"):
            return left
        sign = self.take()[0]
        right = self.sum()
        if sign == "==":
            return same(left, right)
        if sign == "!=":
            return not same(left, right)
        if sign == "in":
            return isinstance(right, list) and any(same(left, each) for each in right)
        comparable = _kind(left) == _kind(right) and _kind(left) in {"number", "str"}
        return comparable and ORDER[sign](left, right)

    def sum(self) -> Any:
        value = self.product()
        while self.next_is("+", "-"):
            sign, other = self.take()[0], self.product()
            if sign == "+" and isinstance(value, str) and isinstance(other, str):
                value += other
            else:
                value = _calculate(sign, value, other)
        return value

    def product(self) -> Any:
        value = self.unary()
        while self.next_is("*", "/"):
            value = _calculate(self.take()[0], value, self.unary())
        return value

    def unary(self) -> Any:
        if self.next_is("!"):
            self.take()
            return not truthy(self.unary())
        if self.next_is("-"):
            self.take()
            value = self.unary()
            if isinstance(value, int) and not isinstance(value, bool):
                return -value
            negated = number(value)
            return None if negated is None else -negated
        return self.primary()

    def primary(self) -> Any:
        text, kind = self.take()
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind == "text":
            return text[1:-1]
        if kind == "bad":
            self.wrong = True
            return None
        if text == "(":
            value = self.choice()
            self.need(")")
            return value
        if text == "[":
            return self.members("]")
        if kind == "sign":
            raise BadExpression(f"unexpected {text}")
        if text in {"true", "false", "null"}:
            return {"true": True, "false": False, "null": None}[text]
        if self.next_is("("):
            self.take()
            return _call(text, self.members(")"))
        return self.name(text)

    def members(self, end: str) -> list[Any]:
        found: list[Any] = []
        while not self.next_is(end):
            found.append(self.choice())
            if not self.next_is(","):
                break
            self.take()
        self.need(end)
        return found

    def name(self, text: str) -> Any:
        first, *keys = text.split(".")
        if first in ROOTS:
            return self.view.path(first, keys)
        data = self.view.sections["data"]
        if first in data:
            return dig(data[first], keys)
        return dig(self.view.variables.get(first), keys)


def _calculate(sign: str, left: Any, right: Any) -> float | None:
    a, b = number(left), number(right)
    if a is None or b is None or (sign == "/" and b == 0):
        return None
    return {"+": a + b, "-": a - b, "*": a * b, "/": a / (b or 1)}[sign]


def _call(name: str, args: list[Any]) -> Any:
    first = args[0] if args else None
    if name == "len":
        return len(first.encode()) if isinstance(first, str) else len(first) if isinstance(first, list | dict) else 0
    if name == "contains":
        if isinstance(first, str):
            return isinstance(args[1], str) and args[1] in first
        return isinstance(first, list) and any(same(args[1], each) for each in first)
    if not isinstance(first, list):
        return None
    if name == "sum":
        return sum(each for each in first if _kind(each) == "number")
    if name in {"first", "last"}:
        return (first[0] if name == "first" else first[-1]) if first else None
    return None


# -- templates -------------------------------------------------------------------------------------------------------

EXPRESSION = re.compile(r"\{\{(.*?)\}\}")


def render(value: Any, view: View) -> Any:
    """Resolve every template in a JSON value; keys are left alone.

    Raises:
        BadTemplate: A root is unknown.
    """
    if isinstance(value, dict):
        return {key: render(member, view) for key, member in value.items()}
    if isinstance(value, list):
        return [render(member, view) for member in value]
    if not isinstance(value, str):
        return value
    if (whole := EXPRESSION.fullmatch(value)) and "{{" not in whole[1]:
        return _chain(whole[1], view)
    return EXPRESSION.sub(lambda found: as_text(_chain(found[1], view)), value)


def as_text(value: Any) -> str:
    """Put a value into text: strings as they are, everything else as compact JSON."""
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _chain(text: str, view: View) -> Any:
    """Try segments from the left until one is not null; a literal ends the search; filters always apply."""
    first, *rest = [part.strip() for part in text.split("|")]
    value, found = _path(first, view), False
    if value is BadTemplate:
        raise BadTemplate(f"unknown template root: {first}")
    for part in rest:
        if filtered := re.fullmatch(r"(upper|lower|default)(?:\((.*)\))?", part):
            value = _filter(filtered[1], filtered[2], value)
        elif value is None and not found:
            value = _path(part, view)
            if value is BadTemplate:
                value, found = _literal(part), True
    return value


def _path(text: str, view: View) -> Any:
    """Resolve a path; the class `BadTemplate` itself if the text is none."""
    if call := re.fullmatch(r"(len|json)\((.*)\)", text):
        inner = _path(call[2].strip(), view)
        if inner is BadTemplate:
            return BadTemplate
        if call[1] == "json":
            return json.dumps(inner, separators=(",", ":"), ensure_ascii=False)
        return _call("len", [inner])
    root, *keys = text.split(".")
    if root == "context" and keys and keys[0] not in {"data", "config"}:
        raise BadTemplate(f"unknown context section: {keys[0]}")
    if root in ROOTS:
        return view.path(root, keys)
    for names in (view.items, view.variables):
        if root in names:
            return dig(names[root], keys)
    return BadTemplate


def _literal(text: str) -> Any:
    if text in {"true", "false", "null"}:
        return {"true": True, "false": False, "null": None}[text]
    if re.fullmatch(r"-?\d+(\.\d+)?", text):
        return float(text)
    return text[1:-1] if len(text) > 1 and text[0] in "'\"" and text[-1] == text[0] else text


def _filter(name: str, argument: str | None, value: Any) -> Any:
    if name == "default":
        return _literal(argument or "") if value is None or value == "" else value
    text = value if isinstance(value, str) else ""
    return text.upper() if name == "upper" else text.lower()
