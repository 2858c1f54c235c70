"""The documentation of one public name, and the text of it that people and models read."""

from __future__ import annotations

from dataclasses import dataclass

KINDS = ("module", "class", "function", "method", "property", "attribute")
"""Values of `DocsEntry.kind`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DocsEntry:
    """What an index holds of one public name."""

    name: str
    """The shortest public path, such as `numpy.linalg.norm`."""
    kind: str
    """One of `KINDS`."""
    signature: str = ""
    """Name, parameters with defaults, and annotations where the source has them: `norm(x, ord=None)`."""
    summary: str = ""
    """First paragraph of the docstring, as one line."""
    parameters: tuple[str, ...] = ()
    """One line for each documented parameter: `axis: the axis along which ...`."""
    returns: str = ""
    """What the docstring says of the value, as one line."""
    examples: str = ""
    """Examples of the docstring, with their line breaks."""

    def text(self, *, max_chars: int | None = None) -> str:
        """Return the entry as plain text: the signature, then summary, parameters, value and examples.

        Args:
            max_chars: Longest text. Parts that do not fit are left out, from the end; the first line is always there.
        """
        head = f"{self.kind} {self.name}" if self.kind in ("module", "attribute", "property") else self._call()
        parts = [head, f"    {self.summary}" if self.summary else ""]
        parts += [f"    {line}" for line in self.parameters]
        parts.append(f"    returns: {self.returns}" if self.returns else "")
        if self.examples:
            parts.append("\n".join(f"    {line}".rstrip() for line in self.examples.splitlines()))
        kept = head
        for part in filter(None, parts[1:]):
            if max_chars is not None and len(kept) + 1 + len(part) > max_chars:
                break
            kept += f"\n{part}"
        return kept

    def _call(self) -> str:
        """Return the signature under the full name."""
        own = self.name.rpartition(".")[2]
        rest = self.signature.removeprefix(own) if self.signature.startswith(f"{own}(") else ""
        return f"{'class ' if self.kind == 'class' else ''}{self.name}{rest}"
