"""Rename a library's names in syntax trees: in its own modules, in examples of its documentation, and in solutions."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from dataclasses import dataclass

from evalkit.tasks.private_api.symbols import Symbols, class_names, taken_keyword
from evalkit.tasks.private_api.words import Words

WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NAMING_FUNCTIONS = ("getattr", "setattr", "hasattr", "delattr", "attrgetter")
_NAME_LISTS = ("__all__", "__slots__")


@dataclass(frozen=True, kw_only=True, slots=True)
class Renaming:
    """A consistent renaming of one library."""

    symbols: Symbols
    words: Words

    def name(self, name: str) -> str:
        """Return the word for a name that is replaced."""
        return self.words.word(name)

    def text(self, text: str) -> str:
        """Replace names that cannot be words of a language: those with an inner underscore, and classes."""
        return WORD.sub(lambda match: self.name(match[0]) if self.is_distinctive(match[0]) else match[0], text)

    def is_distinctive(self, word: str) -> bool:
        """Return whether a word can only be one of the library's names."""
        if word not in self.symbols.all:
            return False
        return word in self.symbols.classes or "_" in word.strip("_") or word == self.symbols.package

    def page(self, page: str) -> str:
        """Return the new form of `package.module.name` or `package.module.class.method`."""
        *path, last = page.split(".")
        stays = len(path) == 3 and last not in self.symbols.members
        return ".".join((*map(self.name, path), last if stays else self.name(last)))

    def solution(self, source: str) -> str:
        """Return a program that uses the library, with the library's new names."""
        return ast.unparse(rename(ast.parse(source), self))


def rename(
    tree: ast.Module,
    renaming: Renaming,
    *,
    module: str = "",
    docstring: Callable[[str, frozenset[str]], str] = lambda text, arguments: text,
) -> ast.Module:
    """Replace the library's names in a syntax tree, in place, and return it.

    Args:
        tree: The tree. Its strings keep their content, apart from names in them.
        renaming: The new names.
        module: The module of the library that it is, or whose names it uses as its own; "" for code that only imports
            the library.
        docstring: Function from a docstring and the names of its function's arguments to the new docstring.
    """
    renamed: ast.Module = _NameTransformer(renaming, module, docstring).visit(tree)
    return renamed


class _NameTransformer(ast.NodeTransformer):
    """Replaces names in place."""

    def __init__(self, renaming: Renaming, module: str, docstring: Callable[[str, frozenset[str]], str]) -> None:
        self._renaming, self._symbols, self._docstring = renaming, renaming.symbols, docstring
        self._bound = renaming.symbols.bound.get(module, frozenset())
        self._class: frozenset[str] | None = None  # names of the class whose body is visited

    def _own(self, name: str) -> str:
        """Return the new form of a name in the present scope."""
        if self._class is not None and name in self._class:
            return self._member(name)
        return self._renaming.name(name) if name in self._bound or name == self._symbols.package else name

    def _member(self, name: str) -> str:
        return self._renaming.name(name) if name in self._symbols.members else name

    def _module(self, node: ast.expr) -> str:
        """Return the module of the library that an expression such as `library.module` names, or ""."""
        match node:
            case ast.Attribute(value=ast.Name(id=package), attr=module) if package == self._symbols.package:
                return module if module in self._symbols.bound else ""
            case ast.Name(id=module) if module in self._symbols.bound and module not in self._bound:
                return module
        return ""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        node.id = self._renaming.name(node.id) if self._module(node) else self._own(node.id)
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if self._module(node):
            node.attr = self._renaming.name(node.attr)
        elif module := self._module(node.value):
            node.attr = self._renaming.name(node.attr) if node.attr in self._symbols.bound[module] else node.attr
        else:
            node.attr = self._member(node.attr)
        node.value = self.visit(node.value)
        return node

    def visit_arg(self, node: ast.arg) -> ast.AST:
        if node.arg in self._bound:
            node.arg = self._renaming.name(node.arg)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        arguments = self._arguments(node.func)
        for keyword in node.keywords:
            if keyword.arg in arguments:
                keyword.arg = self._renaming.name(str(keyword.arg))
        if (taken := taken_keyword(node)) is not None:
            taken.value = self._renaming.name(str(taken.value))
        if isinstance(node.func, ast.Name) and node.func.id in _NAMING_FUNCTIONS:
            for argument in node.args:
                if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                    argument.value = self._member(argument.value)
        return self.generic_visit(node)

    def _arguments(self, function: ast.expr) -> frozenset[str]:
        """Return the names that keyword arguments of a call may have in the library; none for foreign functions."""
        match function:
            case ast.Name(id=name) if name == "cls" or name in self._bound:
                return self._symbols.arguments
            case ast.Attribute(value=ast.Name(id="self"), attr="__class__"):
                return self._symbols.arguments
            case ast.Attribute(value=value, attr=name) if self._module(value) or name in self._symbols.members:
                return self._symbols.arguments
            case ast.Attribute(attr=name):
                return self._symbols.method_arguments.get(name, frozenset())
        return frozenset()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.decorator_list = [self.visit(item) for item in node.decorator_list]
        node.name = self._own(node.name)
        self._replace_docstring(node)  # before the arguments have new names
        node.args = self.visit(node.args)  # defaults are evaluated where the function is defined
        outer, self._class = self._class, None
        node.body = [self.visit(item) for item in node.body]
        self._class = outer
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        names = frozenset(class_names(node))
        node.bases = [self.visit(item) for item in node.bases]
        node.keywords = [self.visit(item) for item in node.keywords]
        node.decorator_list = [self.visit(item) for item in node.decorator_list]
        node.name = self._own(node.name)
        outer, self._class = self._class, names
        self._replace_docstring(node)
        node.body = [self.visit(item) for item in node.body]
        self._class = outer
        return node

    def visit_Module(self, node: ast.Module) -> ast.AST:
        self._replace_docstring(node)
        return self.generic_visit(node)

    def _replace_docstring(self, node: ast.Module | ast.ClassDef | ast.FunctionDef) -> None:
        match node.body:
            case [ast.Expr(value=ast.Constant(value=str(text)) as constant), *_]:
                arguments = [argument.arg for argument in ast.walk(node) if isinstance(argument, ast.arg)]
                constant.value = self._docstring(text, frozenset(arguments))

    def visit_Assign(self, node: ast.Assign) -> ast.AST:
        match node.targets:
            case [ast.Name(id=name)] if name in _NAME_LISTS:
                for item in ast.walk(node.value):
                    if isinstance(item, ast.Constant) and isinstance(item.value, str):
                        item.value = self._own(item.value) if name == "__all__" else self._member(item.value)
                return node
        return self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if isinstance(node.value, str):
            node.value = self._renaming.text(node.value)
        return node

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> ast.AST:
        node.name = self._own(node.name) if node.name else None
        return self.generic_visit(node)

    def visit_Global(self, node: ast.Global) -> ast.AST:
        node.names = [self._own(name) for name in node.names]
        return node

    def visit_Nonlocal(self, node: ast.Nonlocal) -> ast.AST:
        node.names = [self._own(name) for name in node.names]
        return node

    def visit_Import(self, node: ast.Import) -> ast.AST:
        for alias in node.names:
            package, _, module = alias.name.partition(".")
            if package == self._symbols.package:
                alias.name = self._dotted(module)
        return node

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        source = node.module or ""
        package, _, module = source.partition(".")
        if node.level:
            module = source
        elif package != self._symbols.package:
            return node
        if node.level:
            node.module = self._renaming.name(module) if module else None
        else:
            node.module = self._dotted(module)
        for alias in node.names:
            known = module == "" or alias.name in self._symbols.bound.get(module, ())
            alias.name = self._renaming.name(alias.name) if known else alias.name
            alias.asname = self._own(alias.asname) if alias.asname else None
        return node

    def _dotted(self, module: str) -> str:
        return ".".join(self._renaming.name(name) for name in (self._symbols.package, module) if name)
