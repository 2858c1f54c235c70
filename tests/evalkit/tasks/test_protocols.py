"""Tests of the protocols and the prompts that they build."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.tasks import presets, prompts, protocols, registry


def test_the_three_shot_prompt_shows_tasks_2_3_and_4_and_asks_11_to_510(shared_data: Path):
    benchmark = registry.load("mbpp", data_dir=shared_data)
    protocol = protocols.find(None, task="mbpp")
    asked = protocols.covered_problems(protocol, benchmark)
    assert (len(asked), asked[0].task_id, asked[-1].task_id) == (500, "Mbpp/11", "Mbpp/510")
    text = prompts.build_prompt(protocol, asked[0], benchmark).text
    assert text.count("[BEGIN]") == 4
    assert text.count("[DONE]") == 3
    assert "similar_elements" in text
    assert text.endswith("\n[BEGIN]\n")
    assert "\r" not in text
    sanitized = registry.load("mbpp-sanitized", data_dir=shared_data)
    assert len(protocols.covered_problems(protocols.find(None, task="mbpp-sanitized"), sanitized)) == 257


@pytest.mark.slow
def test_every_task_has_a_default_protocol_and_every_protocol_builds_prompts(shared_data: Path):
    for name in registry.BENCHMARKS:
        benchmark = registry.load(name, data_dir=shared_data)
        assert name in protocols.find(None, task=name).tasks
        for protocol in presets.PROTOCOLS:
            if name in protocol.tasks:
                problem = protocols.covered_problems(protocol, benchmark)[0]
                prompt = prompts.build_prompt(protocol, problem, benchmark)
                assert prompt.user if protocol.is_chat else prompt.text
    assert len({protocol.name for protocol in presets.PROTOCOLS}) == len(presets.PROTOCOLS)


@pytest.mark.slow
def test_codets_forms_of_mbpp_cover_the_test_split_or_the_part_that_is_named(shared_data: Path):
    covered = {
        name: protocols.covered_problems(
            protocols.find("mbpp-codet-v1", task=name), registry.load(name, data_dir=shared_data)
        )
        for name in ("mbpp", "mbpp-sanitized", "mbpp:train", "mbpp:validation")
    }
    assert {name: len(problems) for name, problems in covered.items()} == {
        "mbpp": 500,
        "mbpp-sanitized": 257,
        "mbpp:train": 374,
        "mbpp:validation": 90,
    }


def test_the_chat_question_of_mbpp_is_the_papers_without_its_marks(shared_data: Path):
    benchmark = registry.load("mbpp", data_dir=shared_data)
    asked = prompts.build_prompt(protocols.find("mbpp-chat-v1", task="mbpp"), benchmark.problems[10], benchmark)
    shown = prompts.build_prompt(protocols.find("mbpp-3shot-v1", task="mbpp"), benchmark.problems[10], benchmark)
    assert asked.text == ""
    assert shown.text.endswith(f"{asked.user}\n[BEGIN]\n")


def test_protocols_for_tests_are_chosen_only_for_tests():
    for name in protocols.tasks_with_tests():
        assert protocols.find(None, task=name).answer != "tests"
        assert protocols.find(None, task=name, kind="tests").answer == "tests"
    assert protocols.find(None, task="mbpp:train").name == "mbpp-codet-v1"
    with pytest.raises(EvalError, match="writes tests; it is for 'evalkit write-tests'"):
        protocols.find("mbpp-codet-tests-v1", task="mbpp")
    with pytest.raises(EvalError, match="no protocol writes tests for mbpp\\+"):
        protocols.find(None, task="mbpp+", kind="tests")


def test_forms_of_codet_show_no_tests():
    hidden = {protocol.name for protocol in presets.PROTOCOLS if not protocol.visible_tests}
    assert hidden == {item.name for item in presets.PROTOCOLS if "-codet-" in item.name or item.kind == "inputs"}
