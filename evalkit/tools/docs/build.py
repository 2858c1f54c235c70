"""Build an index of packages and folders: find, read, import in the sandbox where sources do not tell, write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from evalkit.errors import EvalError
from evalkit.outputs.files import require_writable
from evalkit.tools.docs.index_file import IndexedName, write_index
from evalkit.tools.docs.reading.docstring import silence_parser
from evalkit.tools.docs.reading.files import list_files
from evalkit.tools.docs.reading.found import FoundNames
from evalkit.tools.docs.reading.imported import read_imported
from evalkit.tools.docs.reading.package import Package, find_packages
from evalkit.tools.docs.reading.sources import PackageReader


class BuildCallbacks(Protocol):
    """Progress of a build; `evalkit.console.ScoreProgress` prints it."""

    def note(self, text: str) -> None:
        """Print one line."""

    def start(self, what: str, total: int) -> None:
        """Begin a phase of `total` files."""

    def step(self, steps: int = 1, tokens: int = 0) -> None:
        """Advance by a number of files."""

    def stop(self) -> None:
        """End the phase."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadPackage:
    """What was read of one package."""

    package: Package
    names: tuple[IndexedName, ...]
    num_files: int
    """Sources that were read."""
    num_imported: int
    """Modules that were imported in the sandbox."""
    problems: tuple[str, ...]
    """One line for each file or module that was skipped."""

    def to_dict(self) -> dict[str, Any]:
        """Return what the index and results record: no paths of this machine."""
        return {
            "name": self.package.name,
            "version": self.package.version,
            "names": len(self.names),
            "files": self.num_files,
            "imported": self.num_imported,
            "skipped": len(self.problems),
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class BuiltIndex:
    """A written index."""

    path: Path
    size_bytes: int
    packages: tuple[ReadPackage, ...]


def build_index(arguments: Sequence[str], out: Path, callbacks: BuildCallbacks, *, imports: bool = True) -> BuiltIndex:
    """Read packages and folders, and write an index of their public names.

    Args:
        arguments: Names of packages, and folders; see `find_packages`.
        out: The file to write.
        callbacks: Progress.
        imports: Import compiled modules in the sandbox; otherwise they are left out.

    Raises:
        EvalError: A package does not exist, nothing public was found, or the file cannot be written.
    """
    require_writable(out)
    packages = {package.name: package for argument in arguments for package in find_packages(argument)}
    silence_parser()
    read = tuple(_read(package, callbacks, imports=imports) for package in packages.values())
    names = [name for package in read for name in package.names]
    if not names:
        skipped = [problem for package in read for problem in package.problems]
        reason = f"; skipped: {skipped[0]}" if skipped else ""
        raise EvalError(f"{', '.join(packages)}: no public name was found{reason}; name other packages or folders")
    size = write_index(out, names, packages=[package.to_dict() for package in read])
    return BuiltIndex(path=out, size_bytes=size, packages=read)


def _read(package: Package, callbacks: BuildCallbacks, *, imports: bool) -> ReadPackage:
    """Read one package; what could not be read is in `problems`."""
    files, found = list_files(package), FoundNames()
    reader = PackageReader(package.name, files)
    if files.sources:
        callbacks.start(f"reading {package.name}", len(files.sources))
        try:
            reader.read(found, on_file=callbacks.step)
        finally:
            callbacks.stop()
    problems, modules = list(files.problems), _modules_to_import(package, reader, files.compiled)
    num_imported = 0
    if modules and imports:
        modules_text = "1 module" if len(modules) == 1 else f"{len(modules)} modules"
        callbacks.note(f"{package.name} has compiled or generated names: importing {modules_text} in the sandbox")
        failed = read_imported(package, modules, found, note=callbacks.note)
        num_imported = len(modules) - len(failed)
        problems += failed
    elif modules:
        problems.append(f"{package.name}: compiled and generated names are left out, since nothing is imported")
    return ReadPackage(
        package=package,
        names=tuple(found.indexed()),
        num_files=reader.num_parsed,
        num_imported=num_imported,
        problems=tuple(problems),
    )


def _modules_to_import(package: Package, reader: PackageReader, compiled: list[str]) -> list[str]:
    """Return the public modules that sources do not tell everything about; none for a package of plain Python."""
    if not compiled and not reader.unresolved and reader.num_parsed:
        return []
    if not compiled and reader.num_parsed:
        return sorted({path.rpartition(".")[0] for path in reader.unresolved})
    public = [name for name in compiled if not any(part.startswith("_") for part in name.split(".")[1:])]
    return sorted({package.name, *reader.public_modules, *public})
