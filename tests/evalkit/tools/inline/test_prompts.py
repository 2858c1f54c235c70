"""Tests of the prompts of answers with tools."""

from __future__ import annotations

from evalkit.generation.base import Prompt
from evalkit.tasks.protocols import find
from evalkit.tools.inline.prompts import explanation, first_call, tool_prompt, tool_protocol
from evalkit.tools.python import PythonTool
from tests.evalkit.tools.inline.toy_tools import UpperTool

CHAT = Prompt(task_id="T/0", index=0, text="Below is the script:\n```python\n", user="Solve this.", seed=1)
BASE = Prompt(task_id="T/0", index=0, text="def f():\n", seed=1)


def test_a_chat_model_gets_one_message_and_begins_its_answer_itself():
    prompt = tool_prompt(CHAT, [UpperTool()], chat=True, opening="")
    assert prompt.text == ""
    assert prompt.user == (
        "You can call a tool. Example:\n\n<up>\na\n</up>\n```output\nA\n```\n\n"
        "After that, write the complete program in a markdown code block.\n\nSolve this."
    )


def test_a_base_model_gets_the_same_as_text():
    prompt = tool_prompt(CHAT, [UpperTool()], chat=False, opening="")
    assert prompt.user is None
    assert prompt.text == f"{explanation([UpperTool()])}\n\nProblem:\nSolve this.\n\nAnswer:\n"
    assert "\n\nProblem:\ndef f():\n\n\nAnswer:\n" in tool_prompt(BASE, [UpperTool()], chat=False, opening="").text


def test_an_answer_may_begin_with_a_call():
    opening = first_call(UpperTool())
    assert opening.endswith("<up>\n")
    assert tool_prompt(CHAT, [UpperTool()], chat=True, opening=opening).text == opening
    assert tool_prompt(CHAT, [UpperTool()], chat=False, opening=opening).text.endswith(f"Answer:\n{opening}")


def test_the_protocol_stops_at_calls_and_takes_the_program_out_of_the_answer():
    before = find("humaneval-evalplus-chat-v1", task="humaneval")
    protocol = tool_protocol(before, [UpperTool()])
    assert protocol.name == "humaneval-evalplus-chat-v1+upper"
    assert protocol.stop[0] == "</up>"
    assert "\n```" not in protocol.stop
    assert (protocol.answer, protocol.sanitize) == ("solution", True)
    assert (protocol.max_new_tokens, protocol.temperature) == (before.max_new_tokens, before.temperature)


def test_python_blocks_are_the_program_themselves():
    assert "After that, write the complete program" in explanation([UpperTool()])
    assert "After that" not in explanation([PythonTool])  # the class knows its texts
