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


def test_a_result_is_no_call(pool: Pool):
    (tool,) = load_tools(("python",), ToolContext(pool=pool))
    assert tool.start != RESULT_START
    assert tool.start.startswith(RESULT_END)
    assert TOOLS[tool.name].endswith(type(tool).__name__)
    tool.close()


@pytest.mark.parametrize("name", TOOLS)
def test_the_table_names_classes(name: str):
    module, _, cls = TOOLS[name].partition(":")
    pytest.importorskip(module)
    assert getattr(importlib.import_module(module), cls).name == name
