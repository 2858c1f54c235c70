"""Public names while a package is read: one record for each object, under all its public paths."""

from __future__ import annotations

from dataclasses import dataclass, field

from evalkit.tools.docs.entry import DocsEntry
from evalkit.tools.docs.index_file import IndexedName
from evalkit.tools.docs.reading.docstring import split_call, split_docstring


@dataclass(kw_only=True, slots=True)
class FoundObject:
    """An object and the public paths that lead to it."""

    kind: str
    signature: str
    docstring: str
    paths: set[str] = field(default_factory=set)

    def indexed(self) -> IndexedName:
        """Return the object as the index holds it, under its shortest path."""
        name = min(self.paths, key=lambda path: (path.count("."), len(path), path))
        call, docstring = split_call(self.docstring, name.rpartition(".")[2])
        parts = split_docstring(docstring)
        entry = DocsEntry(
            name=name,
            kind=self.kind,
            signature=call if call and not _tells(self.signature) else self.signature,
            summary=parts.summary,
            parameters=parts.parameters,
            returns=parts.returns,
            examples=parts.examples,
        )
        return IndexedName(entry=entry, paths=tuple(sorted(self.paths)), prose=self.docstring)


def _tells(signature: str) -> bool:
    """Return whether a signature names parameters, unlike that of most compiled functions and of wrappers."""
    return bool(signature) and not signature.endswith(("(*args, **kwargs)", "(*args)"))


class FoundNames:
    """The public names of a package, by the identity of their objects."""

    def __init__(self) -> None:
        self._objects: dict[str, FoundObject] = {}
        self._identities: dict[str, str] = {}  # by public path

    def add(self, identity: str, path: str, kind: str, *, signature: str, docstring: str) -> None:
        """Add one public path of an object; a path and an object that are known stay as they are.

        Args:
            identity: The same for all paths of an object.
            path: A public path.
            kind: One of `entry.KINDS`.
            signature: See `DocsEntry.signature`.
            docstring: The whole docstring.
        """
        if path in self._identities:
            return
        self._identities[path] = identity
        new = FoundObject(kind=kind, signature=signature, docstring=docstring)
        self._objects.setdefault(identity, new).paths.add(path)

    def drop(self, path: str) -> None:
        """Forget a path, which something better replaces."""
        identity = self._identities.pop(path, None)
        if identity is not None:
            self._objects[identity].paths.discard(path)

    def identity(self, path: str) -> str | None:
        """Return the identity of the object at a path; None if the path is not known."""
        return self._identities.get(path)

    def lacks(self, path: str) -> bool:
        """Return whether nothing that explains `path` was found yet."""
        return path not in self or not self._objects[self._identities[path]].docstring

    def __contains__(self, path: str) -> bool:
        return path in self._identities

    def indexed(self) -> list[IndexedName]:
        """Return all objects as the index holds them."""
        return [known.indexed() for known in self._objects.values() if known.paths]
