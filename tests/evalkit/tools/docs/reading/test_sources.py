"""What sources make public, and how it is described."""

from __future__ import annotations

from pathlib import Path

from tests.evalkit.tools.docs.reading.packages import build, write_package


def names(folder: Path) -> set[str]:
    """Return the public names of a package without its modules."""
    return {name for name, entry in build(folder)[1].items() if entry.kind != "module"}


def test_nothing_is_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    source = f"open({str(mark)!r}, 'w')\ndef f(): pass\n"
    assert names(write_package(tmp_path / "lib", __init__=source)) == {"lib.f"}
    assert not mark.exists()


def test_dunder_all_decides(tmp_path: Path) -> None:
    folder = write_package(
        tmp_path / "lib",
        __init__="from lib.a import *\nfrom lib import a\n__all__ = ['f', '_g'] + a.__all__\n"
        "def f(): pass\ndef _g(): pass\ndef h(): pass\n",
        a="__all__ = ['x']\ndef x(): pass\ndef y(): pass\n",
    )
    assert names(folder) == {"lib.f", "lib._g", "lib.x"}


def test_without_dunder_all_own_names_and_imports_of_the_package_are_public(tmp_path: Path) -> None:
    folder = write_package(
        tmp_path / "lib",
        __init__="import os\nfrom json import loads\nfrom ._hidden import f\nfrom .shown import g\ndef own(): pass\n",
        _hidden="def f(): pass\ndef other(): pass\n",
        shown="from ._hidden import other\ndef g(): pass\n",
    )
    assert names(folder) == {"lib.f", "lib.g", "lib.own"}


def test_an_object_has_one_entry_under_its_shortest_path(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "lib", __init__="from .deep.inner import f\n", deep__inner="def f(): 'Do it.'\n")
    built, entries = build(folder)
    assert "lib.deep.inner.f" not in entries
    paths = {path for name in built.packages[0].names for path in name.paths}
    assert {"lib.f", "lib.deep.inner.f"} <= paths


def test_a_function_hides_the_module_of_its_name(tmp_path: Path) -> None:
    folder = write_package(tmp_path / "lib", __init__="from .sort import sort\n", sort="def sort(x): 'Order.'\n")
    _, entries = build(folder)
    assert entries["lib.sort"].kind in ("function", "module")
    assert any(entry.signature == "sort(x)" for entry in entries.values())


SIGNATURES = '''
def plain(a, /, b=1, *args, c: "str" = "x", **kw) -> int: ...
def named(*, key=None): ...
async def later(x): ...
def wide(
    first: "dict[str, list[tuple[int, str]]]",
    second: "dict[str, list[tuple[int, str]]]",
    third: "dict[str, list[tuple[int, str, bytes]]]",
    fourth: "dict[str, list[tuple[int, str, bytes]]]",
): ...
def big(x=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22)): ...
class C:
    """A class."""
    def __init__(self, size: int = 3): ...
    def method(self, x): ...
    @classmethod
    def make(cls, y): ...
    @staticmethod
    def free(z): ...
    @property
    def width(self) -> int:
        """How wide it is."""
    def _private(self): ...
LIMIT = 3
'''


def test_signatures(tmp_path: Path) -> None:
    _, entries = build(write_package(tmp_path / "lib", __init__=SIGNATURES))
    assert {name: (entry.kind, entry.signature) for name, entry in entries.items()} == {
        "lib": ("module", ""),
        "lib.plain": ("function", "plain(a, /, b=1, *args, c: str = 'x', **kw) -> int"),
        "lib.named": ("function", "named(*, key=None)"),
        "lib.later": ("function", "later(x)"),
        "lib.wide": ("function", "wide(first, second, third, fourth)"),
        "lib.big": ("function", "big(x=...)"),
        "lib.C": ("class", "C(size: int = 3)"),
        "lib.C.method": ("method", "method(x)"),
        "lib.C.make": ("method", "make(y)"),
        "lib.C.free": ("method", "free(z)"),
        "lib.C.width": ("property", "width"),
        "lib.LIMIT": ("attribute", "LIMIT = 3"),
    }


def test_a_class_whose_initialiser_is_assigned_has_no_known_parameters(tmp_path: Path) -> None:
    source = "def _init(self, x): pass\nclass Made:\n    'Made at run time.'\n    __init__ = _init\n"
    _, entries = build(write_package(tmp_path / "lib", __init__=source))
    assert entries["lib.Made"].signature == "Made(...)"


def test_methods_of_a_private_base_are_those_of_its_public_class(tmp_path: Path) -> None:
    source = "class _Base:\n    def run(self): 'Run.'\nclass Public(_Base):\n    def stop(self): 'Stop.'\n"
    assert names(write_package(tmp_path / "lib", __init__=source)) == {
        "lib.Public",
        "lib.Public.run",
        "lib.Public.stop",
    }


def test_names_that_lead_nowhere_are_left_out(tmp_path: Path) -> None:
    folder = write_package(
        tmp_path / "lib",
        __init__="from .a import gone\nfrom .b import x\n__all__ = ['gone', 'x', 'absent', 'f']\ndef f(): pass\n",
        a="",
        b="from .c import x\n",
        c="from .b import x\n",
    )
    assert names(folder) == {"lib.f"}
