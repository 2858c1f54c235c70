"""Tests of calls inside answers: results, order, budgets, hostile text, and engines that take follow-ups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from evalkit.generation.base import Answer, EngineSettings, Prompt
from evalkit.generation.checkpoint import find_checkpoint
from evalkit.generation.engine import load_engine
from evalkit.tools.inline.calls import NO_CALLS_LEFT, CallBudget, ToolConversations
from tests.evalkit.generation.answers import TEXTS, generate_in_order, protocol
from tests.evalkit.tools.inline.toy_tools import PROBLEM, TalkingEngine, UpperTool


def result(text: str) -> str:
    return f"\n```output\n{text}\n```\n"


@contextmanager
def conversations(
    tool: UpperTool, *, calls: int = 3, result_tokens: int = 50, most: int = 100, opening: str = ""
) -> Iterator[ToolConversations]:
    with closing(
        ToolConversations(
            [tool],
            {f"T/{number}": replace(PROBLEM, task_id=f"T/{number}") for number in range(10)},
            CallBudget(calls=calls, result_tokens=result_tokens),
            max_new_tokens=most,
            count_tokens=lambda text: len(text.split()),
            threads=8,
            opening=opening,
        )
    ) as made:
        yield made


def prompts(num: int, text: str = "Q") -> list[Prompt]:
    return [Prompt(task_id=f"T/{number}", index=0, text=text, seed=number) for number in range(num)]


def talk(
    script: Callable[[Prompt], str], tool: UpperTool, num: int = 1, **settings
) -> tuple[list[Answer], TalkingEngine]:
    """Return the whole answers, in the order in which they ended, and the engine."""
    engine, whole = TalkingEngine(script, [tool.end]), []
    with conversations(tool, **settings) as talking:

        def receive(part: Answer) -> None:
            if (answer := talking.receive(part)) is not None:
                whole.append(answer)

        begun = prompts(num, "Q" + settings.get("opening", ""))
        engine.generate(begun, on_answer=receive, on_tokens=lambda tokens: None, follow_ups=talking)
    return whole, engine


def by_results(*parts: str) -> Callable[[Prompt], str]:
    """Return a script: the first part for a prompt without results, the second for one with one, and so on."""
    return lambda prompt: parts[min(prompt.text.count("```output"), len(parts) - 1)]


def test_a_result_is_inserted_and_the_model_goes_on():
    tool = UpperTool()
    (answer,), engine = talk(by_results("I try <up>ab</up> cut", "then <up>c</up>", "done."), tool)
    first, second = f"I try <up>ab</up>{result('AB 1')}", f"then <up>c</up>{result('C 2')}"
    assert [prompt.text for prompt in engine.prompts] == ["Q", "Q" + first, "Q" + first + second]
    assert answer.completion == f"{first}{second}done."
    assert answer.own_text == "I try then done."
    assert answer.tokens == 4 + 2 + 1
    assert answer.prompt.text == "Q"
    assert answer.stop_reason == "end"
    calls = [(call["tool"], call["text"], call["result"]) for call in answer.transcript]
    assert calls == [("upper", "ab", "AB 1"), ("upper", "c", "C 2")]
    assert all(call["seconds"] >= 0 for call in answer.transcript)
    assert tool.opened == ["T/0"]
    assert tool.num_closed == 1


def test_what_is_left_of_the_length_and_a_seed_of_its_own_go_with_each_part():
    _, engine = talk(by_results("a b <up>x</up>", "end"), UpperTool(), most=20)
    first, second = engine.prompts
    assert (first.max_new_tokens, second.max_new_tokens) == (None, 17)
    assert first.seed != second.seed


def test_an_answer_without_calls_stays_as_it_is():
    tool = UpperTool()
    (answer,), _ = talk(lambda _: "plain", tool)
    assert (answer.completion, answer.own_text, answer.transcript) == ("plain", "plain", ())
    assert tool.opened == []


def test_an_end_string_that_ends_no_call_is_text():
    tool = UpperTool()
    texts = iter(["a </up>", " b </up>", " <up>x</up>", " </up>", "done"])
    (answer,), engine = talk(lambda _: next(texts), tool)
    assert [call["text"] for call in answer.transcript] == ["x"]
    assert answer.completion == f"a </up> b </up> <up>x</up>{result('X 1')} </up>done"
    assert answer.own_text == "a </up> b </up>  </up>done"
    assert engine.prompts[2].text == "Qa </up> b </up>"


def test_a_call_may_be_begun_in_an_earlier_part():
    fences = UpperTool()
    fences.start, fences.end = "```up", "```"  # an end string that also begins blocks
    texts = iter(["text ```", "up x```", "done"])
    (answer,), _ = talk(lambda _: next(texts), fences)
    assert answer.transcript[0]["text"] == " x"
    assert answer.own_text == "text done"


def fence_tool() -> UpperTool:
    tool = UpperTool()
    tool.start, tool.end = "```up", "\n```\n"
    return tool


def test_a_first_block_that_ends_the_answer_is_called_and_a_later_one_is_the_answer():
    first, second = "```up\nx\n```", "Again:\n```up\ny\n```"
    (answer,), engine = talk(by_results(f"text\n{first}", second), fence_tool())
    assert [call["text"] for call in answer.transcript] == ["\nx"]
    assert engine.prompts[1].text == f"Qtext\n{first}{result(chr(10) + 'X 1')}"
    assert answer.completion == f"text\n{first}{result(chr(10) + 'X 1')}{second}"
    assert answer.own_text == f"text\n{second}"


@pytest.mark.parametrize("text", ["```\nx\n```", "```up\nx", "```up", "\n```"])
def test_an_end_without_a_closed_call_is_the_end(text: str):
    (answer,), engine = talk(lambda _: text, fence_tool())
    assert (answer.completion, answer.transcript, len(engine.prompts)) == (text, (), 1)


def test_an_opening_may_begin_the_first_call():
    (answer,), engine = talk(by_results("ab</up>", "done"), UpperTool(), opening="First:\n<up>")
    assert answer.transcript[0]["text"] == "ab"
    assert answer.own_text == "First:\ndone"
    assert answer.completion == f"First:\n<up>ab</up>{result('AB 1')}done"
    assert engine.prompts[1].text == f"QFirst:\n<up>ab</up>{result('AB 1')}"


def test_an_opening_that_leads_to_no_call_is_part_of_the_answer():
    (answer,), _ = talk(lambda _: "no end", UpperTool(), opening="<up>")
    assert (answer.completion, answer.own_text, answer.transcript) == ("<up>no end", "<up>no end", ())


def test_a_slow_call_does_not_hold_up_other_answers():
    tool = UpperTool()

    def script(prompt: Prompt) -> str:
        if "```output" in prompt.text:
            return "done"
        if prompt.task_id == "T/4":  # the last one to start: all others have ended or wait for their results
            return "<up>free</up>"
        return "<up>wait</up>" if prompt.task_id == "T/0" else "<up>x</up>"

    def release_last(prompt: Prompt) -> str:
        others_done = sum("```output" in seen.text for seen in engine_prompts) >= 3
        if prompt.task_id != "T/0" and "```output" in prompt.text and others_done:
            tool.released.set()
        engine_prompts.append(prompt)
        return script(prompt)

    engine_prompts: list[Prompt] = []
    answers, _ = talk(release_last, tool, num=5)
    assert len(answers) == 5
    assert answers[-1].prompt.task_id == "T/0", "the answer with the slow call ends last"


def test_calls_are_limited_and_the_model_is_told_once():
    (answer,), _ = talk(lambda _: "<up>x</up>", UpperTool(), calls=2)
    assert [call["result"] for call in answer.transcript] == ["X 1", "X 2"]
    assert answer.completion.count(NO_CALLS_LEFT) == 1
    assert answer.completion.endswith(f"{result(NO_CALLS_LEFT)}<up>x")


def test_results_are_cut_to_their_tokens_and_no_more_calls_follow():
    (answer,), _ = talk(by_results("<up>many</up>", "<up>x</up>", "done"), UpperTool(), result_tokens=20)
    assert len(answer.transcript) == 1
    shown = answer.transcript[0]["result"]
    assert shown.endswith(" ...")
    assert 10 <= len(shown.split()) <= 20
    assert NO_CALLS_LEFT in answer.completion


def test_all_parts_together_keep_to_the_maximum_length():
    (answer,), _ = talk(lambda _: "five words in each part <up>x</up>", UpperTool(), most=10, calls=9)
    assert answer.stop_reason == "length"
    assert len(answer.transcript) == 1
    assert answer.tokens == 12


def test_a_result_cannot_end_itself_or_begin_a_call():
    with conversations(UpperTool()) as talking:
        safe = talking._safe("```output ``` <up> </up> <|im_end|>")
    assert safe == "` ``output ` `` < up> < /up> < |im_end|>"
    (answer,), _ = talk(by_results("<up>```<|x|></up>", "done"), UpperTool())
    assert answer.transcript[0]["result"] == "` ``< |X|> 1"


def test_an_error_of_the_tool_ends_the_run():
    tool = UpperTool()
    with pytest.raises(ValueError, match="the tool is broken"):
        talk(by_results("<up>fail</up>", "done"), tool, num=2)
    assert tool.num_closed >= 1


def test_all_waits_for_every_call_and_sorts():
    tool = UpperTool()
    with conversations(tool) as talking:
        for prompt in reversed(prompts(5)):
            call = Answer(prompt=prompt, completion="<up>x", stop_reason="stop", tokens=1, stop_string="</up>")
            assert talking.receive(call) is None
        assert [prompt.task_id for prompt in talking.take("all")] == [f"T/{number}" for number in range(5)]
        assert talking.take("all") == talking.take("first") == talking.take("no") == []
    assert tool.num_closed == 5


def real_engine_answers(checkpoint: Path, tool: UpperTool, engine: str, *, deterministic: bool) -> list[Answer]:
    settings = EngineSettings(engine=engine, batch_size=2, dtype="float32", deterministic=deterministic)
    whole = []
    with conversations(tool, most=24) as talking:

        def receive(part: Answer) -> None:
            if (answer := talking.receive(part)) is not None:
                whole.append(answer)

        used = protocol(max_new_tokens=24, stop=(tool.end,))
        begun = [Prompt(task_id=f"T/{number}", index=0, text=text, seed=7) for number, text in enumerate(TEXTS)]
        with load_engine(find_checkpoint(str(checkpoint)), used, settings) as loaded:
            loaded.generate(begun, on_answer=receive, on_tokens=lambda tokens: None, follow_ups=talking)
    return sorted(whole, key=lambda answer: answer.prompt.task_id)


def tool_for(checkpoint: Path) -> UpperTool:
    """Return a tool whose strings the tiny model writes: a start and an end from an answer of its own."""
    tool = UpperTool()
    free = generate_in_order(checkpoint, TEXTS, stop=(), max_new_tokens=24)[1].completion
    tool.start, tool.end = free[2:4], free[8:11]
    assert tool.start not in free[8:11]
    return tool


def check_parts(checkpoint: Path, answers: list[Answer], tool: UpperTool) -> None:
    """Compare answers with those of prompts that hold their calls and results from the beginning."""
    assert any(answer.transcript for answer in answers)
    for text, answer in zip(TEXTS, answers, strict=True):
        written = since = ""
        for call in answer.transcript:
            while tool.start not in since or tool.end in since.rpartition(tool.start)[2]:  # no call was begun
                since += tool.end if since else ""
                (part,) = generate_in_order(checkpoint, [text + written], stop=(tool.end,), max_new_tokens=24)
                assert part.stop_string == tool.end
                since += part.completion
                written += part.completion + tool.end
            written += result(call["result"])
            assert answer.completion.startswith(written)
            since = ""


@pytest.mark.parametrize("deterministic", [False, True])
def test_transformers_goes_on_with_results(checkpoint: Path, deterministic: bool):
    tool = tool_for(checkpoint)
    answers = real_engine_answers(checkpoint, tool, "transformers", deterministic=deterministic)
    assert len(answers) == len(TEXTS)
    check_parts(checkpoint, answers, tool)


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_goes_on_with_results(checkpoint: Path):
    pytest.importorskip("vllm")
    tool = tool_for(checkpoint)
    answers = real_engine_answers(checkpoint, tool, "vllm", deterministic=False)
    assert [answer.completion for answer in answers] == [
        answer.completion for answer in real_engine_answers(checkpoint, tool, "transformers", deterministic=False)
    ]
