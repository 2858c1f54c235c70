"""Prefetching of calls: find the calls that a test's source spells out, so that they can be sent ahead.

A call that waits for the call before it costs two changes of process. Most tests are a list of assertions on calls
with literal arguments, which are known beforehand. The result here is a guess: the session compares it with the calls
that the test makes. A wrong guess costs a second run, never a verdict.
"""

from __future__ import annotations

import ast
from functools import lru_cache

from evalkit.sandbox.wire.errors import UnsupportedValueError
from evalkit.sandbox.wire.messages import pack
from evalkit.sandbox.wire.values import encode

_MOST_BYTES = 1 << 16
"""Most bytes of all prefetched requests: as many as a socket holds, so that sending never waits for the guest."""
_BRANCHES = (ast.BoolOp, ast.IfExp, ast.Lambda, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
"""Nodes that decide at run time whether, or how often, a call inside them is made."""


@lru_cache(maxsize=4096)
def prefetchable_calls(test: str, names: tuple[str, ...]) -> tuple[bytes, ...]:
    """Return the first calls of `names` that `test` makes, up to where its source is no longer plain.

    Args:
        test: Statements, or one function `check(f)` and a call of it with one of `names` at the end.
        names: The program's functions.

    Returns:
        The calls as messages (`guest/serve.py`).
    """
    try:
        body, called = _body(ast.parse(test).body, names)
    except (SyntaxError, ValueError, RecursionError):  # running the test reports it
        return ()
    visitor = _CallVisitor(called)
    for statement in body:
        if not visitor.add(statement):
            break
    return tuple(visitor.messages)


def _body(module: list[ast.stmt], names: tuple[str, ...]) -> tuple[list[ast.stmt], dict[str, str]]:
    """Return the statements that make calls, and the names that stand for functions in them: {name: function}."""
    last = module[-1] if module else None
    match last:
        case ast.Expr(ast.Call(ast.Name(function), [ast.Name(argument)], [])) if argument in names:
            for statement in module:
                match statement:
                    case ast.FunctionDef(name, ast.arguments(args=[ast.arg(parameter)])) if name == function:
                        return statement.body, {name: name for name in names} | {parameter: argument}
    return module, {name: name for name in names}


class _CallVisitor(ast.NodeVisitor):
    """A collector of calls in the order in which they are evaluated."""

    def __init__(self, called: dict[str, str]) -> None:
        self.called = called
        self.messages: list[bytes] = []
        self._room = _MOST_BYTES
        self._plain = True

    def add(self, statement: ast.stmt) -> bool:
        """Collect the calls of one statement; say whether the calls after it are known too."""
        match statement:
            case ast.Assert(test):
                self.visit(test)  # its message is evaluated when it fails, and the test ends there
            case ast.Expr() | ast.Assign() | ast.AnnAssign():
                self.visit(statement)
            case ast.Import() | ast.ImportFrom() | ast.Pass():
                pass
            case _:
                self._plain = False
        return self._plain

    def generic_visit(self, node: ast.AST) -> None:
        """Visit the children of a node unless it is a branch."""
        if isinstance(node, _BRANCHES):
            self._plain = False
        if self._plain:
            super().generic_visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        """Stop at a function that is not called on the spot: it is passed on, or bound to another name."""
        self._plain = self._plain and node.id not in self.called

    def visit_Call(self, node: ast.Call) -> None:
        """Collect a call of the program with literal arguments; stop at one with others."""
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
