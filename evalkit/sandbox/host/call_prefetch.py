"""Which calls will a test make? Those that its source spells out, so that they can be sent ahead.

A call costs two changes of process when it waits for the one before. Most tests are a list of assertions on calls
with literal arguments: these are known beforehand. What is found here is a guess that the judge checks call by call;
a wrong one costs a second run, never a verdict.
"""

from __future__ import annotations

import ast
from functools import lru_cache

from evalkit.sandbox.wire.errors import UnsupportedValueError
from evalkit.sandbox.wire.messages import pack
from evalkit.sandbox.wire.values import encode

_MOST_BYTES = 1 << 16
"""Of all requests: what a socket holds, so that sending them never waits for a program that waits to be heard."""
_BRANCHES = (ast.BoolOp, ast.IfExp, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
"""What decides when it runs whether, or how often, a call inside is made."""


@lru_cache(maxsize=4096)
def prefetchable_calls(test: str, names: tuple[str, ...]) -> tuple[bytes, ...]:
    """Return the first calls of `names` that `test` makes, as messages (`child`), up to where that is no longer plain.

    A test is statements, or one function `check(f)` that is called with one of `names` at the end.
    """
    try:
        body, called = _body(ast.parse(test).body, names)
    except (SyntaxError, ValueError, RecursionError):  # the judge will say so when it runs it
        return ()
    found = _Calls(called)
    for statement in body:
        if not found.add(statement):
            break
    return tuple(found.messages)


def _body(module: list[ast.stmt], names: tuple[str, ...]) -> tuple[list[ast.stmt], dict[str, str]]:
    """Return the statements that call, and what the called are named there: {name in the test: name it stands for}."""
    last = module[-1] if module else None
    match last:
        case ast.Expr(ast.Call(ast.Name(function), [ast.Name(argument)], [])) if argument in names:
            for statement in module:
                match statement:
                    case ast.FunctionDef(name, ast.arguments(args=[ast.arg(parameter)])) if name == function:
                        return statement.body, {name: name for name in names} | {parameter: argument}
    return module, {name: name for name in names}


class _Calls(ast.NodeVisitor):
    """Collects calls in the order in which they are evaluated."""

    def __init__(self, called: dict[str, str]) -> None:
        self.called = called
        self.messages: list[bytes] = []
        self._room = _MOST_BYTES
        self._plain = True

    def add(self, statement: ast.stmt) -> bool:
        """Collect the calls of one statement; say whether what follows it can be foreseen too."""
        match statement:
            case ast.Assert(test):
                self.visit(test)  # its message is evaluated when it fails, and that is the end
            case ast.Expr() | ast.Assign() | ast.AnnAssign():
                self.visit(statement)
            case ast.Import() | ast.ImportFrom() | ast.Pass():
                pass
            case _:
                self._plain = False
        return self._plain

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, _BRANCHES):
            self._plain = False
        if self._plain:
            super().generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        # Not called on the spot: handed on, or bound anew.
        self._plain = self._plain and node.id not in self.called

    def visit_Call(self, node: ast.Call) -> None:
        if not (isinstance(node.func, ast.Name) and node.func.id in self.called):
            self.generic_visit(node)
            return
        if not self._plain:
            return
        try:
            args = [encode(ast.literal_eval(argument)) for argument in node.args]
            kwargs = {str(word.arg): encode(ast.literal_eval(word.value)) for word in node.keywords if word.arg}
            message = pack({"call": self.called[node.func.id], "args": args, "kwargs": kwargs})
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError, UnsupportedValueError):
            self._plain = False
            return
        self._room -= len(message)
        self._plain = len(kwargs) == len(node.keywords) and self._room >= 0
        if self._plain:
            self.messages.append(message)
