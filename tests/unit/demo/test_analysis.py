"""Reading one module: what is public, what is documented, how complex it is."""

import ast
import textwrap
import warnings

import pytest

from workers.demo.analysis import Unreadable, analyse, complexity, is_test, module_name


def analysed(text: str, path: str = "shop/cart.py"):
    return analyse(path, textwrap.dedent(text).encode())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("pass", 1),
        ("if a: pass", 2),
        ("if a: pass\n elif b: pass\n else: pass", 3),
        ("return a and b and c", 3),
        ("return a and b or c", 3),
        ("return 1 if a else 2", 2),
        ("for x in a: pass\n else: pass", 2),
        ("while a: pass", 2),
        ("try: pass\n except A: pass\n except B: pass\n finally: pass", 3),
        ("with a: pass", 1),
        ("assert a", 2),
        ("return [x for x in a if x if y]", 4),
        ("return {x: y for x in a for y in b}", 3),
        ("match a:\n  case 1: pass\n  case 2 if b: pass", 3),
        ("return lambda: a or b", 2),
        ("def g():\n  if a: pass\n return g", 2),
    ],
)
def test_complexity_counts_decisions(body: str, expected: int) -> None:
    assert complexity(ast.parse(f"def f():\n {body}")) == expected


def test_public_names_and_their_docstrings() -> None:
    record = analysed(
        '''
        """Carts.

        More about carts.
        """

        def total(cart):
            """

            Add it up.
            """

        async def send(): ...
        def _hidden(): ...

        class Cart:
            """A cart."""
            def add(self): ...
            def __init__(self): ...
            class Inner: ...

        class _Secret:
            def seen(self): ...
        '''
    )
    assert record.doc == "Carts."
    assert [(f.name, f.doc, f.line) for f in record.functions] == [("total", "Add it up.", 7), ("send", None, 13)]
    assert [(c.name, c.doc, [m.name for m in c.methods]) for c in record.classes] == [("Cart", "A cart.", ["add"])]
    assert len(record.complexity) == 6, "every function counts here, public or not"
    assert record.lines == 23


def test_definitions_for_one_platform_are_found() -> None:
    record = analysed(
        """
        if windows:
            def a(): ...
        elif mac:
            def b(): ...
        else:
            class C:
                if new:
                    def d(self): ...
        try:
            def e(): ...
        except ImportError:
            def f(): ...
        finally:
            def g(): ...
        """
    )
    assert [f.name for f in record.functions] == ["a", "b", "e", "f", "g"]
    assert [m.name for m in record.classes[0].methods] == ["d"]


def test_functions_in_functions_are_part_of_the_outer_one() -> None:
    record = analysed("def outer():\n    def inner():\n        if a: pass\n    if b: pass\n")
    assert record.complexity == (3,)
    assert [f.name for f in record.functions] == ["outer"]


@pytest.mark.parametrize(
    ("source", "line"),
    [
        (b"print 'old'\n", 1),
        (b"x = 1\n\n\xf6\n", None),
        (b"# coding: no-such-coding\n", None),
        (b"x = '\0'\n", None),
        (b"(" * 300, None),
        (b"x = 1\n  y = 2\n", 2),
    ],
    ids=["python 2", "not utf-8", "unknown coding", "nul", "too deep", "indentation"],
)
def test_what_does_not_parse_is_unreadable(source: bytes, line: int | None) -> None:
    with pytest.raises(Unreadable) as caught:
        analyse("bad.py", source)
    assert caught.value.reason
    assert line is None or caught.value.line == line


def test_the_coding_line_is_obeyed() -> None:
    record = analyse("latin.py", '# coding: latin-1\n"""Grün."""\n'.encode("latin-1"))
    assert record.doc == "Grün."


def test_a_docstring_is_cut_and_can_be_stored() -> None:
    record = analysed('"""' + "x" * 300 + '"""')
    assert record.doc == "x" * 200
    assert analysed(r'"""a\0b\ud800c"""').doc == "a\N{REPLACEMENT CHARACTER}b?c"
    assert analysed('"""   """').doc is None
    assert analysed("").lines == 0


def test_warnings_about_the_source_stay_silent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        analysed(r"x = '\d'")


@pytest.mark.parametrize(
    ("path", "name", "test"),
    [
        ("abc.py", "abc", False),
        ("xml/__init__.py", "xml", False),
        ("__init__.py", "__init__", False),
        ("test/support/__init__.py", "test.support", True),
        ("lib2to3/tests/data/bom.py", "lib2to3.tests.data.bom", True),
        ("test.py", "test", False),
    ],
)
def test_paths_become_names(path: str, name: str, test: bool) -> None:
    assert (module_name(path), is_test(path)) == (name, test)
