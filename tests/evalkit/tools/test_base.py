"""Tests of the table of tools."""

from __future__ import annotations

import importlib

import pytest

from evalkit.errors import EvalError
from evalkit.sandbox.pool import Pool
from evalkit.tools.base import RESULT_END, RESULT_START, TOOLS, ToolContext, load_tools


def test_an_unknown_tool_is_named_with_those_that_exist(pool: Pool):
    with pytest.raises(EvalError, match="tool 'pyton' is unknown; expected one of python, docs"):
        load_tools(("python", "pyton"), ToolContext(pool=pool))


def test_tools_have_distinct_strings_and_show_their_own_form(pool: Pool):
    (tool,) = load_tools(("python",), ToolContext(pool=pool))
    strings = [tool.start, tool.end, RESULT_START, RESULT_END]
    assert len(set(strings)) == 4
    assert not any(a != b and a in b for a in strings for b in strings)
    assert TOOLS[tool.name].endswith(type(tool).__name__)
    tool.close()


@pytest.mark.parametrize("name", TOOLS)
def test_the_table_names_classes(name: str):
    module, _, cls = TOOLS[name].partition(":")
    pytest.importorskip(module)
    assert getattr(importlib.import_module(module), cls).name == name
