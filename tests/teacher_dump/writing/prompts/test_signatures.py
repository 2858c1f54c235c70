"""Tests of prompts from documented functions."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from teacher_dump.corpus.corpus import Corpus
from teacher_dump.writing.prompts.signatures import documented_functions, read_signatures

SOURCE = '''
import os

@cache
def first(
    a: int, b: str = "x"
) -> int:
    """Return the first of the two values \u2713.

    More text.
    """
    return a

async def second(x):
    "Do something useful with x, and say what it is."
    await x

def short(x):
    """Too short."""
    return x

def no_docstring(x):
    return x

def only_docstring(x):
    """A function without any body, which says nothing."""

class C:
    def method(self):
        """A method is not at the top level of its module."""
        return 1

def first(a):
    """The second definition of a name is not what is used."""
    return a

def inline(x): "A docstring on the line of the signature itself."; return x

def __init__(x):
    """A name with two underscores is a protocol, not a task."""
    return x
'''


def test_stubs_of_documented_functions_are_found() -> None:
    found = list(documented_functions(SOURCE))
    assert [name for name, _ in found] == ["first", "second", "first"]
    assert found[0][1] == (
        'def first(\n    a: int, b: str = "x"\n) -> int:\n    """Return the first of the two values \u2713.\n\n'
        '    More text.\n    """'
    )
    for _, stub in found:
        (node,) = ast.parse(f"{stub}\n    pass").body
        assert ast.get_docstring(node)  # type: ignore[arg-type]


def test_prompts_have_a_name_each_and_the_origin_of_their_document(tmp_path: Path) -> None:
    folder = tmp_path / "src"
    folder.mkdir()
    (folder / "m.py").write_text(SOURCE)
    chat = list(read_signatures(Corpus(data=str(folder), seed=0), is_chat=True))
    assert [prompt.task_id for prompt in chat] == ["src/m.py:first", "src/m.py:second"]
    assert chat[0].path == "m.py"
    assert "```python\ndef first(" in chat[0].messages[0]["content"]
    base = list(read_signatures(Corpus(data=str(folder), seed=0), is_chat=False))
    assert base[1].messages[0]["content"].startswith("async def second(x):\n")


def test_functions_of_rows_with_the_same_origin_have_a_name_each(tmp_path: Path) -> None:
    """Rows of two files of one name, without a column for the path."""
    for folder in ("a", "b"):
        docstring = f'"""Return the value that the folder {folder} is about, and nothing else."""'
        text = f"def main(x):\n    {docstring}\n    return x\n"
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "train.jsonl").write_text(json.dumps({"content": text}) + "\n")
    first, second = read_signatures(Corpus(data=str(tmp_path), seed=0), is_chat=True)
    assert (first.source, first.path) == (second.source, second.path)
    assert first.task_id == "train.jsonl/0:main"
    assert re.fullmatch(r"train\.jsonl/0:main@[0-9a-f]{12}", second.task_id)


@given(st.text(max_size=200))
def test_any_text_is_read_without_an_error(text: str) -> None:
    list(documented_functions(text))
    list(documented_functions(f"def f(x):\n    '''{text}'''\n    return x\n"))
