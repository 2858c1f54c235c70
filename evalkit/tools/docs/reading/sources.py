"""Public names of a package from its sources, which are parsed and never run.

Public is what `__all__` lists; without `__all__`, each name without a leading underscore that the module defines, and
in a package's `__init__` also what it imports from its own modules. Every part of a public path is public. Methods and
properties of a public class are public, inherited ones too where the base class is not public itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from griffe import AliasResolutionError, CyclicAliasError, GriffeLoader, LinesCollection, Module, visit

from evalkit.tools.docs.reading.files import PackageFiles, SkippedFileError, SourceFile, read_source
from evalkit.tools.docs.reading.found import FoundNames
from evalkit.tools.docs.reading.signature import function_signature

_MAX_VALUE_CHARS = 80
_UNRESOLVED = (AliasResolutionError, CyclicAliasError, KeyError, RecursionError)


class PackageReader:
    """Parses the modules of one package and walks through what they make public."""

    def __init__(self, name: str, files: PackageFiles) -> None:
        """Keep the arguments.

        Args:
            name: Import name of the package.
            files: Its modules; what cannot be parsed is added to `problems`.
        """
        self._name, self._files = name, files
        self._loader = GriffeLoader(allow_inspection=False, store_source=False)
        self._modules: dict[str, Module] = {}
        self._shadowed: dict[str, Any] = {}  # members whose place a module of the same name took
        self.unresolved: set[str] = set()
        """Public paths whose object is in no source that was read."""
        self.num_parsed = 0
        """Files that were parsed."""

    def read(self, found: FoundNames, *, on_file: Callable[[], None]) -> None:
        """Add all public names to `found`; `on_file` is called after each file."""
        for source in self._files.sources:
            self._parse(source)
            on_file()
        top = self._modules.get(self._name)
        if top is None:
            return
        try:
            self._loader.expand_exports(top)
            self._loader.expand_wildcards(top, external=False)
        except RecursionError:
            self._files.problems.append(f"{self._name}: its imports are too deep to follow")
        for name in sorted(self._modules):
            if all(not part.startswith("_") for part in name.split(".")[1:]):
                self._module(self._modules[name], found)

    @property
    def public_modules(self) -> list[str]:
        """Names of the modules with source that are public."""
        return [name for name in sorted(self._modules) if not any(p.startswith("_") for p in name.split(".")[1:])]

    def _parse(self, source: SourceFile) -> None:
        """Parse one file into the tree of modules; a file that cannot be parsed is a problem."""
        try:
            text = read_source(source.path)
            self._add(source.module, source.path, text)
            self.num_parsed += 1
        except SkippedFileError as error:
            reason = str(error)
        except SyntaxError as error:
            reason = f"is not Python ({error.msg}, line {error.lineno})"
        except (RecursionError, MemoryError):
            reason = "is nested too deeply"
        except ValueError as error:  # such as lone surrogates
            reason = f"is not Python ({error})"
        else:
            return
        self._files.problems.append(f"{source.path}: {reason}")

    def _add(self, name: str, path: Path, text: str) -> None:
        parent_name, _, own = name.rpartition(".")
        if parent_name and parent_name not in self._modules:  # no `__init__`, or one that could not be read
            self._add(parent_name, path.parent / "__init__.py", "")
        parent = self._modules.get(parent_name)
        module = visit(
            own,
            path,
            text,
            parent=parent,
            lines_collection=LinesCollection(),
            modules_collection=self._loader.modules_collection,
        )
        self._modules[name] = module
        if parent is None:
            self._loader.modules_collection.set_member(name, module)
            return
        if own in parent.members:
            self._shadowed[name] = parent.members[own]
        parent.set_member(own, module)

    def _module(self, module: Module, found: FoundNames) -> None:
        """Add a public module and its public members."""
        docstring = module.docstring.value if module.docstring is not None else ""
        found.add(module.path, module.path, "module", signature="", docstring=docstring)
        for name, member in self._exported(module):
            path = f"{module.path}.{name}"
            try:
                target = member.final_target if member.is_alias else member
                self._object(target, path, found)
            except _UNRESOLVED:
                self.unresolved.add(path)

    def _exported(self, module: Module) -> Iterator[tuple[str, Any]]:
        """Yield the public members of a module except its submodules; a listed name that is absent is unresolved."""
        # An `__all__` that only running it would tell, such as `a.__all__.copy()`, is empty here and counts as none.
        exports = {name if isinstance(name, str) else name.name for name in module.exports or ()}
        for name in sorted(exports):
            if name not in module.members and name.isidentifier():
                self.unresolved.add(f"{module.path}.{name}")
        for name, own in list(module.members.items()):
            member = self._shadowed.get(f"{module.path}.{name}", own)
            if member.is_alias:
                is_module = member.target_path in self._modules
                is_own = module.is_init_module and member.target_path.partition(".")[0] == self._name
            else:
                is_module, is_own = member.is_module, True
            is_listed = name in exports if exports else is_own and not name.startswith("_")
            if is_listed and not is_module and name != "*":
                yield name, member

    def _object(self, target: Any, path: str, found: FoundNames) -> None:
        """Add an object that is no module, and the members of a class."""
        if target.is_module:
            return
        own = path.rpartition(".")[2]
        docstring = target.docstring.value if target.docstring is not None else ""
        if target.is_class:
            signature = function_signature(target, own, bound=True)
            docstring = docstring or self._docstring_of_init(target)
            found.add(target.path, path, "class", signature=signature, docstring=docstring)
            self._members(target, path, found)
        elif target.is_function:
            signature = function_signature(target, own, bound=False)
            found.add(target.path, path, "function", signature=signature, docstring=docstring)
        else:
            value = "" if target.value is None else str(target.value)
            signature = f"{own} = {value}" if value and len(value) <= _MAX_VALUE_CHARS else own
            found.add(target.path, path, "attribute", signature=signature, docstring=docstring)

    def _docstring_of_init(self, cls: Any) -> str:
        init = cls.members.get("__init__")
        return init.docstring.value if init is not None and init.docstring is not None else ""

    def _members(self, cls: Any, path: str, found: FoundNames) -> None:
        """Add public methods, properties and documented attributes of a class."""
        members = dict(cls.members)
        try:
            inherited = cls.inherited_members
            members = {name: m for name, m in inherited.items() if self._is_hidden(m.final_target.parent)} | members
        except _UNRESOLVED:
            pass  # a base class of another package
        for name, member in members.items():
            if name.startswith("_"):
                continue
            try:
                target = member.final_target if member.is_alias else member
            except _UNRESOLVED:
                continue
            docstring = target.docstring.value if target.docstring is not None else ""
            identity, full = f"{cls.path}.{name}", f"{path}.{name}"
            if target.is_function:
                signature = function_signature(target, name, bound="staticmethod" not in target.labels)
                found.add(identity, full, "method", signature=signature, docstring=docstring)
            elif target.is_attribute and "property" in target.labels:
                found.add(identity, full, "property", signature=name, docstring=docstring)
            elif target.is_attribute and docstring:
                found.add(identity, full, "attribute", signature=name, docstring=docstring)

    def _is_hidden(self, cls: Any) -> bool:
        return any(part.startswith("_") for part in cls.path.split("."))
