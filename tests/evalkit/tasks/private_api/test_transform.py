"""Tests of renaming in code: a renamed library computes what it computed, under names that are all new."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from evalkit.tasks.private_api.transform import Renaming, rename
from tests.evalkit.tasks.private_api.toy_library import OTHER, TOOLS, toy_renaming


def write_renamed(folder: Path, renaming: Renaming) -> str:
    package = folder / renaming.name("toylib")
    package.mkdir()
    (package / "__init__.py").write_text("")
    for name, source in (("tools", TOOLS), ("other", OTHER)):
        text = ast.unparse(rename(ast.parse(source), renaming, module=name))
        (package / f"{renaming.name(name)}.py").write_text(text)
    return package.name


@pytest.fixture
def renaming() -> Renaming:
    return toy_renaming()


def run(program: str, renaming: Renaming, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = write_renamed(tmp_path, renaming)
    namespace: dict[str, Any] = {}
    try:
        exec(renaming.solution(program), namespace)
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == package]:
            del sys.modules[name]
    return namespace["result"]


def test_a_renamed_library_works_as_before(renaming: Renaming, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import toylib.tools, toylib.other\nfrom toylib.tools import Bag as Sack\n"
        "bag = Sack().add_one('x', step_size=2)\n"
        "result = [toylib.tools.split('a-b', sep='-'), toylib.other.words_of('a bb ccc dddd'), bag.copy().total_count,"
        " bag.get('x', default=5), bag.get('y', default=5), Sack.FULL, sorted([2, 1], key=lambda text: text)]"
    )
    expected = [["a", "b"], ["ccc dddd", "bb", "a"], 2, 2, 5, 1, [1, 2]]
    assert run(program, renaming, tmp_path, monkeypatch) == expected


def test_no_name_of_the_library_is_left_in_code(renaming: Renaming) -> None:
    text = "".join(ast.unparse(rename(ast.parse(source), renaming, module="tools")) for source in (TOOLS,))
    code = re.sub(r'"""[\s\S]*?"""', "", text)
    for name in ("Bag", "add_one", "step_size", "total_count", "most_parts", "EMPTY", "sep"):
        assert not re.search(rf"\b{name}\b", code), name
    assert re.search(r"\.split\(", code), "str.split is Python's own"


def test_names_of_foreign_functions_and_their_arguments_stay(renaming: Renaming) -> None:
    assert renaming.solution("sorted(x, key=f)") == "sorted(x, key=f)"
    assert renaming.solution("'a b'.split(sep=' ')") == "'a b'.split(sep=' ')"
    assert renaming.solution("text = sep = 1") == "text = sep = 1"


def test_a_renaming_is_reproducible_and_depends_on_the_seed() -> None:
    assert toy_renaming(1).name("split") == toy_renaming(1).name("split") != toy_renaming(2).name("split")
