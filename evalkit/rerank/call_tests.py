"""Split model-written asserts into an expression of the program and a comparison that the host makes.

    assert f(1, 2) == [3]          a call, and an equality with a literal
    assert math.isclose(f(2), .5)  a call, and a closeness
    assert sorted(f(1)) == [1, 2]  an expression that is no plain call, and an equality
    assert f(1) == g(2)            a call, and an equality with an expression that needs no program
    assert f(1) == f(2)            two calls, and an equality
    assert any(x for x in f(1))    opaque: a statement, which passes if it raises nothing

A call test is compared outside the program's process, on the plain form of the value. Objects that equal everything
arrive as the built-in value that they hold, or do not arrive, and a program never sees what is expected of it.

An opaque test whose calls have literal arguments runs in a guest without the program, on the values that the program
returned for these calls. Any other opaque test, such as one with a loop, runs beside the program, on values that are
first rebuilt as built-in types. That stops objects with an `__eq__` of their own, but not a program that reads the test
from the stack.
"""

from __future__ import annotations

import ast
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from evalkit.rerank.call_output import CallOutput, literal_output, value_source
from evalkit.rerank.model_tests import in_block
from evalkit.sandbox.wire.errors import UnsupportedValueError

_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError, OverflowError)
_WRAPPERS = frozenset(
    {"abs", "bool", "dict", "float", "frozenset", "int", "len", "list", "max", "min", "round", "set", "sorted"}
    | {"str", "sum", "tuple"}
)
"""Built-in functions around a call whose value is compared in the host. None of them can say what is expected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitTest:
    """One test: what is evaluated, and when it passes."""

    source: str
    """The assert statement."""
    evaluated: str
    """Source that the program's guest evaluates: an expression, or the statements of an opaque test."""
    is_call: bool = False
    """`evaluated` is one call of an entry point: an input."""
    comparison: str = ""
    """Key of `_COMPARISONS`; "" for an opaque test."""
    tolerance: tuple[float, float] = (0.0, 0.0)
    """Relative and absolute tolerance of `close`."""
    expected: CallOutput | None = None
    """The literal that the value is compared with."""
    items: tuple[str, ...] = ()
    """Digests of the items of a literal container, for `in`."""
    other: str = ""
    """Expression whose value is compared with, in place of a literal."""
    other_needs_program: bool = False
    """`other` calls an entry point too."""
    other_is_call: bool = False
    """`other` is one call of an entry point: an input."""
    calls: tuple[str, ...] = ()
    """Of an opaque test that runs without the program: the calls in it. `evaluated` is then the rest of it."""

    @property
    def names_value(self) -> bool:
        """Whether the test says which value `evaluated` has to have."""
        return self.comparison in ("==", "is") and not self.other_needs_program

    @property
    def is_opaque(self) -> bool:
        """Whether the test runs as a statement beside the program."""
        return not self.comparison

    def statements(self, outputs: Mapping[str, CallOutput]) -> str | None:
        """Return the statements of an opaque test, with the values of its calls in place of the calls.

        Args:
            outputs: Outputs of a program, among them those for `calls`.

        Returns:
            The statements; None if a call ran into a limit or its value has no short literal. The test then fails.
        """
        values = [value_source(outputs[call]) for call in self.calls]
        if None in values:
            return None
        lines = [f"_value_{place} = lambda: {value}\n" for place, value in enumerate(values)]
        return "".join(lines) + self.evaluated

    def passes(self, output: CallOutput, other: CallOutput | None = None) -> bool:
        """Return whether a program passes.

        Args:
            output: The output for `evaluated`.
            other: The output for `other`.
        """
        if not output.is_value or self.is_opaque:
            return output.is_value
        expected = other if self.other else self.expected
        if expected is not None and not expected.is_value:
            return False
        return _COMPARISONS[self.comparison](self, output, expected or output)


def _is(test: SplitTest, output: CallOutput, expected: CallOutput) -> bool:
    return output.digest == expected.digest and output.kind == expected.kind


def _close(test: SplitTest, output: CallOutput, expected: CallOutput) -> bool:
    relative, absolute = test.tolerance
    return math.isclose(output.number, expected.number, rel_tol=relative, abs_tol=absolute)


def _distance(output: CallOutput, expected: CallOutput) -> float:
    return abs(output.number - expected.number)


_COMPARISONS: dict[str, Callable[[SplitTest, CallOutput, CallOutput], bool]] = {
    "==": lambda test, output, expected: output.digest == expected.digest,
    "!=": lambda test, output, expected: output.digest != expected.digest,
    "is": _is,
    "is not": lambda test, output, expected: not _is(test, output, expected),
    "<": lambda test, output, expected: output.number < expected.number,
    "<=": lambda test, output, expected: output.number <= expected.number,
    ">": lambda test, output, expected: output.number > expected.number,
    ">=": lambda test, output, expected: output.number >= expected.number,
    "in": lambda test, output, expected: output.digest in test.items,
    "not in": lambda test, output, expected: output.digest not in test.items,
    "true": lambda test, output, expected: output.truth == 1,
    "false": lambda test, output, expected: output.truth == 0,
    "close": _close,
    "near <": lambda test, output, expected: _distance(output, expected) < test.tolerance[1],
    "near <=": lambda test, output, expected: _distance(output, expected) <= test.tolerance[1],
}
"""Comparisons of an output with an expected one, on stored properties only."""

_OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is", ast.IsNot: "is not", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">",
    ast.GtE: ">=", ast.In: "in", ast.NotIn: "not in",
}  # fmt: skip
_MIRRORED = {"<": ">", "<=": ">=", ">": "<", ">=": "<="} | {name: name for name in ("==", "!=", "is", "is not")}


def split_test(source: str, entry_points: tuple[str, ...]) -> SplitTest:
    """Split one assert statement.

    Args:
        source: The statement.
        entry_points: Names of the functions under test.

    Returns:
        The test; an opaque one where it has no form that the host can compare.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            statements = ast.parse(source).body
        if len(statements) == 1 and isinstance(statements[0], ast.Assert):
            test = _Splitter(source, frozenset(entry_points)).split(statements[0].test)
            if test is not None:
                return test
    except (*_UNPARSABLE, UnsupportedValueError):
        pass
    return _opaque(source, entry_points)


def call_source(node: ast.expr, entry_points: frozenset[str]) -> str | None:
    """Return the normalised source of `node` if it is one call of an entry point, else None."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in entry_points:
        return ast.unparse(node)
    return None


class _Splitter:
    """Forms of tests that the host can compare. Each method returns None if the test has another form."""

    def __init__(self, source: str, names: frozenset[str]) -> None:
        self._source, self._names = source, names

    def split(self, node: ast.expr) -> SplitTest | None:
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return self._test(node.operand, "false")
        if isinstance(node, ast.Compare) and len(node.ops) == 1:
            operator = _OPERATORS[type(node.ops[0])]
            near = self._near(node.left, operator, node.comparators[0])
            return near or self._compare(node.left, operator, node.comparators[0])
        return self._isclose(node) or self._test(node, "true")

    def _test(self, node: ast.expr, comparison: str, **fields: Any) -> SplitTest | None:
        """Return a test of the value of `node`, if it is an expression that the host may compare."""
        inner = node
        while (  # sorted(f(x)), round(f(x), 2), f(x)[0]
            isinstance(inner, ast.Call)
            and isinstance(inner.func, ast.Name)
            and inner.func.id in _WRAPPERS - self._names
            and inner.args
        ) or isinstance(inner, ast.Subscript):
            inner = inner.args[0] if isinstance(inner, ast.Call) else inner.value
        if call_source(inner, self._names) is None:
            return None
        return SplitTest(
            source=self._source,
            evaluated=ast.unparse(node),
            is_call=inner is node,
            comparison=comparison,
            **fields,
        )

    def _compare(self, left: ast.expr, operator: str, right: ast.expr) -> SplitTest | None:
        if not self._needs_program(left) and operator in _MIRRORED:
            left, operator, right = right, _MIRRORED[operator], left
        if operator in ("in", "not in"):
            container = _literal(right)
            if not isinstance(container, tuple | list | set | dict):
                return None  # `f(1) in "text"` looks for a part of the text
            return self._test(left, operator, items=tuple(literal_output(item).digest for item in container))
        if self._needs_program(right):
            other = self._test(right, "==")
            if other is None or operator not in ("==", "!="):
                return None
            fields = {"other": other.evaluated, "other_needs_program": True, "other_is_call": other.is_call}
            return self._test(left, operator, **fields)
        if not _is_literal(right):
            return self._test(left, operator, other=ast.unparse(right)) if operator in ("==", "!=") else None
        value = _literal(right)
        if operator in ("is", "is not") and value is not None and not isinstance(value, bool):
            return None  # whether equal objects are one object is the interpreter's matter
        if operator in ("<", "<=", ">", ">=") and not isinstance(value, int | float):
            return None
        return self._test(left, operator, expected=literal_output(value))

    def _isclose(self, node: ast.expr) -> SplitTest | None:
        """Return the test in `math.isclose(f(x), 0.5, rel_tol=1e-3)`, in either order of sides."""
        if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("math.isclose", "isclose"):
            return None
        options = {keyword.arg: keyword.value for keyword in node.keywords}
        if len(node.args) != 2 or not {*options} <= {"rel_tol", "abs_tol"}:
            return None
        call, value = node.args if self._needs_program(node.args[0]) else reversed(node.args)
        numbers = [_literal_number(part) for part in (value, *options.values())]
        if None in numbers:
            return None
        tolerance = {name: float(_literal(option)) for name, option in options.items()}
        limits = (tolerance.get("rel_tol", 1e-9), tolerance.get("abs_tol", 0.0))
        if min(limits) < 0:
            return None
        return self._test(call, "close", tolerance=limits, expected=literal_output(_literal(value)))

    def _near(self, left: ast.expr, operator: str, right: ast.expr) -> SplitTest | None:
        """Return the test in `abs(f(x) - 0.5) < 1e-3`, in either order of sides."""
        if operator in (">", ">="):
            left, operator, right = right, _MIRRORED[operator], left
        limit = _literal_number(right)
        if operator not in ("<", "<=") or limit is None or not isinstance(left, ast.Call):
            return None
        if ast.unparse(left.func) not in ("abs", "math.fabs") or len(left.args) != 1 or left.keywords:
            return None
        difference = left.args[0]
        if not isinstance(difference, ast.BinOp) or not isinstance(difference.op, ast.Sub):
            return None
        sides = (difference.left, difference.right)
        call, value = sides if self._needs_program(sides[0]) else reversed(sides)
        if _literal_number(value) is None:
            return None
        return self._test(call, f"near {operator}", tolerance=(0.0, limit), expected=literal_output(_literal(value)))

    def _needs_program(self, node: ast.expr) -> bool:
        return any(isinstance(part, ast.Name) and part.id in self._names for part in ast.walk(node))


def _literal(node: ast.expr) -> Any:
    return ast.literal_eval(node) if _is_literal(node) else None


def _is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except (*_UNPARSABLE, TypeError):
        return False
    return True


def _literal_number(node: ast.expr) -> float | None:
    value = _literal(node)
    return float(value) if isinstance(value, int | float) else None


_PLAIN = """\
def _plain_value(value):
    kind = type(value)
    if value is None or kind in (bool, int, float, complex, str, bytes, range):
        return value
    for base, method in ((int, "__int__"), (float, "__float__"), (str, "__str__")):
        if issubclass(kind, base):
            return getattr(base, method)(value)
    for base in (list, tuple, set, frozenset):
        if issubclass(kind, base):
            return base([_plain_value(item) for item in base.__iter__(value)])
    if issubclass(kind, dict):
        return {_plain_value(key): _plain_value(item) for key, item in dict.items(value)}
    if hasattr(kind, "__next__"):
        return (_plain_value(item) for item in value)
    if getattr(__import__("sys").modules.get("numpy"), kind.__name__, None) is kind:
        return value
    raise TypeError("a test of a value of type " + kind.__name__)

def _plain_call(function):
    return lambda *args, **kwargs: _plain_value(function(*args, **kwargs))

"""


def _opaque(source: str, entry_points: tuple[str, ...]) -> SplitTest:
    """Return a test that runs as statements: without the program where its calls have literal arguments only."""
    block = in_block(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(block)
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id in entry_points]
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_literal_call(node, names)]
        if len(calls) < len(names) or not names:
            return SplitTest(source=source, evaluated=_guarded(block, tree, names))
        sources = tuple(dict.fromkeys(ast.unparse(node) for node in calls))
        for node, call in [(node, ast.unparse(node)) for node in calls]:
            node.func, node.args, node.keywords = ast.Name(f"_value_{sources.index(call)}"), [], []
        return SplitTest(source=source, evaluated=f"{ast.unparse(tree)}\n", calls=sources)
    except _UNPARSABLE:
        return SplitTest(source=source, evaluated=block)


def _is_literal_call(node: ast.Call, names: list[ast.Name]) -> bool:
    return node.func in names and all(map(_is_literal, [*node.args, *(keyword.value for keyword in node.keywords)]))


def _guarded(block: str, tree: ast.Module, names: list[ast.Name]) -> str:
    """Return the statements of a test beside the program, whose functions return values of built-in types."""
    if not names or not all(isinstance(node.ctx, ast.Load) for node in names):
        return block
    used = sorted({node.id for node in names})
    for node in names:
        node.id = f"_plain_{node.id}"
    wrappers = "".join(f"_plain_{name} = _plain_call({name})\n" for name in used)
    return f"{_PLAIN}{wrappers}{ast.unparse(tree)}\n"
