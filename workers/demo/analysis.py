"""What one module of Python source says about itself: its public API, its docstrings, its complexity. Pure.

Public is a name without a leading underscore, in the body of the module or of a public class. Cyclomatic complexity is
the number of decisions in a function plus one (McCabe, "A Complexity Measure", 1976). A decision is an `if`, a loop, an
`except`, an `assert`, a conditional expression, a case of a `match`, each `for` and `if` of a comprehension, and each
`and` or `or`; a function inside a function counts for the outer one.
"""

import ast
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_ONE_DECISION = frozenset(
    {ast.If, ast.IfExp, ast.For, ast.AsyncFor, ast.While, ast.ExceptHandler, ast.Assert, ast.match_case}
)


class Unreadable(Exception):
    """Raised for source that is no Python of this version.

    Args:
        reason: What the compiler said.
        line: From 1; None if it could not say where.
    """

    def __init__(self, reason: str, line: int | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionRecord:
    """A public function or method; `doc` is the first line of its docstring, None without one."""

    name: str
    line: int
    doc: str | None
    complexity: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRecord:
    """A public class and its public methods."""

    name: str
    line: int
    doc: str | None
    methods: tuple[FunctionRecord, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleRecord:
    """A module: what a reader finds in it.

    Args:
        path: Relative to the root of the source, with `/`.
        is_test: Whether it lies in a folder of tests.
        complexity: Cyclomatic complexity of every function, public or not, in the order of the source.
    """

    path: str
    module: str
    is_test: bool
    lines: int
    doc: str | None
    functions: tuple[FunctionRecord, ...]
    classes: tuple[ClassRecord, ...]
    complexity: tuple[int, ...]


def analyse(path: str, source: bytes) -> ModuleRecord:
    """Read one module.

    Args:
        path: Relative to the root of the source, with `/`.
        source: As it is in the file; its coding line is obeyed.

    Raises:
        Unreadable: It does not parse, or cannot be decoded.
    """
    tree = _parse(source)
    measured = {node: complexity(node) for node in _outermost_functions(tree)}
    return ModuleRecord(
        path=path,
        module=module_name(path),
        is_test=is_test(path),
        lines=len(source.splitlines()),
        doc=_first_line(tree),
        functions=tuple(_function(node, measured) for node in _functions(tree.body) if _is_public(node.name)),
        classes=tuple(_class(node, measured) for node in _classes(tree.body) if _is_public(node.name)),
        complexity=tuple(measured.values()),
    )


def module_name(path: str) -> str:
    """Give the name a module is imported by.

    >>> module_name("email/mime/text.py"), module_name("json/__init__.py")
    ('email.mime.text', 'json')
    """
    parts = PurePosixPath(path).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def is_test(path: str) -> bool:
    """Tell whether a module lies in a folder of tests.

    >>> is_test("test/test_json/test_scanstring.py"), is_test("unittest/case.py")
    (True, False)
    """
    return not TEST_FOLDERS.isdisjoint(PurePosixPath(path).parts[:-1])


def complexity(function: ast.AST) -> int:
    """Count the decisions of a function, plus one.

    >>> complexity(ast.parse("def f(a, b):\\n  return [x for x in a if x and b]").body[0])
    4
    """
    return 1 + sum(_decisions(node) for node in ast.walk(function))


def _decisions(node: ast.AST) -> int:
    kind = type(node)
    if kind in _ONE_DECISION:
        return 1
    if isinstance(node, ast.BoolOp):
        return len(node.values) - 1
    return 1 + len(node.ifs) if isinstance(node, ast.comprehension) else 0


def _parse(source: bytes) -> ast.Module:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about invalid escapes and the like: not ours to repair
            return ast.parse(source)
    except SyntaxError as error:
        raise Unreadable(error.msg or "invalid syntax", error.lineno if (error.lineno or 0) > 0 else None) from error
    except (ValueError, RecursionError, MemoryError) as error:  # NUL bytes; nesting the parser gives up on
        raise Unreadable(str(error) or type(error).__name__, None) from error


def _functions(body: Iterable[ast.stmt]) -> Iterator[_Function]:
    return (node for node in _statements(body) if isinstance(node, _Function))


def _classes(body: Iterable[ast.stmt]) -> Iterator[ast.ClassDef]:
    return (node for node in _statements(body) if isinstance(node, ast.ClassDef))


def _statements(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Give the statements of a body, and those under its `if` and `try`: definitions for one platform or another."""
    for node in body:
        match node:
            case ast.If(body=then, orelse=otherwise):
                yield from _statements((*then, *otherwise))
            case ast.Try(body=tried, handlers=handlers, orelse=otherwise, finalbody=finally_):
                caught = (statement for handler in handlers for statement in handler.body)
                yield from _statements((*tried, *caught, *otherwise, *finally_))
            case _:
                yield node


def _outermost_functions(tree: ast.AST) -> Iterator[_Function]:
    """Give every function that is not inside of another one, at whatever depth of classes and blocks."""
    waiting = list(reversed(list(ast.iter_child_nodes(tree))))
    while waiting:
        node = waiting.pop()
        if isinstance(node, _Function):
            yield node
        elif isinstance(node, ast.stmt | ast.excepthandler | ast.match_case):
            waiting.extend(reversed(list(ast.iter_child_nodes(node))))


def _function(node: _Function, measured: Mapping[_Function, int]) -> FunctionRecord:
    return FunctionRecord(name=node.name, line=node.lineno, doc=_first_line(node), complexity=measured[node])


def _class(node: ast.ClassDef, measured: Mapping[_Function, int]) -> ClassRecord:
    methods = tuple(_function(method, measured) for method in _functions(node.body) if _is_public(method.name))
    return ClassRecord(name=node.name, line=node.lineno, doc=_first_line(node), methods=methods)


def _is_public(name: str) -> bool:
    return not name.startswith("_")


def _first_line(node: Any) -> str | None:
    """Give the first line of a docstring, fit to be stored: no NUL, no lone surrogates, at most 200 characters."""
    text = ast.get_docstring(node)
    line = next((stripped for part in (text or "").splitlines() if (stripped := part.strip())), None)
    if line is None:
        return None
    return line[:200].replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()
