"""Find the names that a library defines, and those that it takes from elsewhere and that therefore stay.

The library is a package of modules without subpackages. Names of Python's own protocols (`get`, `append`, `__len__`)
stay as well: Python calls them by name.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

UNCHANGED = frozenset({"self", "cls", "args", "kwargs", "kw", "a", "_"}) | frozenset(dir(builtins))
"""Names that stay wherever they are bound."""
KEYWORD_DICTS = ("kwargs", "kw")
"""Names of the dictionaries of further keyword arguments."""
_PROTOCOLS: tuple[object, ...] = (
    object, str, bytes, bytearray, int, float, complex, list, tuple, dict, set, frozenset, type, property, range, slice,
    memoryview, BaseException, OSError, types.FunctionType, types.GeneratorType, types.ModuleType, types.CodeType,
    types.FrameType,
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Symbols:
    """Names of a library that a renaming replaces."""

    package: str
    """Name of the package."""
    bound: Mapping[str, frozenset[str]]
    """Per module: names that it binds itself or takes from the library, local variables and arguments included."""
    public: Mapping[str, frozenset[str]]
    """Per module: functions, classes and variables that other modules may use."""
    classes: frozenset[str]
    members: frozenset[str]
    """Attributes and methods of its classes, apart from those of Python's own protocols."""
    arguments: frozenset[str]
    method_arguments: Mapping[str, frozenset[str]]
    """Arguments of all methods of a name, such as those of `get`, which keeps its name."""

    @property
    def all(self) -> frozenset[str]:
        """All names that are replaced."""
        modules = (*self.bound, self.package)
        return frozenset().union(*self.bound.values(), modules, self.members, self.arguments)


def find_symbols(package: str, modules: Mapping[str, ast.Module]) -> Symbols:
    """Return the names that the library defines.

    Args:
        package: Its name.
        modules: Syntax trees by the name of the module, without the package's.
    """
    foreign_attributes = _foreign_attributes(modules)
    members = frozenset().union(*map(_members, modules.values())) - foreign_attributes
    return Symbols(
        package=package,
        bound={name: _bound(tree) for name, tree in modules.items()},
        public={name: _public(tree) for name, tree in modules.items()},
        classes=frozenset(
            node.name for tree in modules.values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
        ),
        members=frozenset(name for name in members if not _is_special(name)),
        arguments=frozenset().union(*map(_arguments, modules.values())) - UNCHANGED,
        method_arguments=_method_arguments(modules.values()),
    )


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _is_foreign(node: ast.Import | ast.ImportFrom) -> bool:
    return isinstance(node, ast.Import) or node.level == 0


def _bound(tree: ast.Module) -> frozenset[str]:
    """Return the names that a module binds in any scope but those of classes, without those of foreign modules."""
    bound, foreign = set(_arguments(tree)), set(UNCHANGED)
    classes = (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    members = {id(node) for item in classes for node in _member_nodes(item)}
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.Name() if id(node) in members:
                continue
            case ast.Import() | ast.ImportFrom():
                names = {(alias.asname or alias.name).split(".")[0] for alias in node.names}
                if _is_foreign(node):
                    foreign |= names
                else:
                    bound |= names
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.Name(id=name, ctx=ast.Store()):
                bound.add(name)
            case ast.ExceptHandler(name=str(name)):
                bound.add(name)
    return frozenset(name for name in bound - foreign if not _is_special(name))


def _public(tree: ast.Module) -> frozenset[str]:
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return frozenset(name for name in names if not name.startswith("_"))


def _arguments(tree: ast.Module) -> frozenset[str]:
    names = {node.arg for node in ast.walk(tree) if isinstance(node, ast.arg)}
    for node in ast.walk(tree):  # arguments that a function takes out of a dictionary
        if (taken := taken_keyword(node)) is not None:
            names.add(str(taken.value))
    return frozenset(names)


def _method_arguments(modules: Iterable[ast.Module]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for node in (node for tree in modules for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for method in (item for item in node.body if isinstance(item, ast.FunctionDef)):
            names = {item.arg for item in ast.walk(method.args) if isinstance(item, ast.arg)} - UNCHANGED
            found[method.name] = found.get(method.name, frozenset()) | names
    return found


def taken_keyword(node: ast.AST) -> ast.Constant | None:
    """Return the constant in `kwargs.pop("NAME", ...)`, or None."""
    match node:
        case ast.Call(
            func=ast.Attribute(value=ast.Name(id=source), attr="pop" | "get"),
            args=[ast.Constant(value=str()) as name, *_],
        ) if source in KEYWORD_DICTS:
            return name
    return None


def class_names(node: ast.ClassDef) -> Iterator[str]:
    """Yield the names that the body of a class binds."""
    for member in _member_nodes(node):
        yield member.name if isinstance(member, ast.FunctionDef) else member.id


def _member_nodes(node: ast.ClassDef) -> Iterator[ast.FunctionDef | ast.Name]:
    """Yield the nodes by which the body of a class binds names."""
    for item in node.body:
        match item:
            case ast.FunctionDef():
                yield item
            case ast.Assign(targets=targets):
                nodes = (node for target in targets for node in ast.walk(target))
                yield from (node for node in nodes if isinstance(node, ast.Name))


def _members(tree: ast.Module) -> frozenset[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.ClassDef():
                names.update(class_names(node))
            case ast.Attribute(attr=name, ctx=ast.Store()):
                names.add(name)
    return frozenset(names)


def _foreign_attributes(modules: Mapping[str, ast.Module]) -> frozenset[str]:
    """Return attributes of Python's types, of the foreign modules that the library imports, and of their classes."""
    names: set[str] = set()
    for value in _PROTOCOLS:
        names.update(dir(value))
    for tree in modules.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                sources = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                sources = [node.module]
            else:
                continue
            for source in sources:
                names |= _module_attributes(source)
    return frozenset(names)


def _module_attributes(name: str) -> set[str]:
    try:
        module = importlib.import_module(name)
    except ImportError:  # a module of another platform
        return set()
    names = set(dir(module))
    for _, value in inspect.getmembers(module, inspect.isclass):
        names.update(dir(value))
    return names
