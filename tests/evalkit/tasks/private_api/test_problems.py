"""Tests of the problems: every reference passes, programs that do not solve them fail, and pages are the library's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from evalkit.sandbox.guest.memory_library import read_sources
from evalkit.sandbox.pool import Pool
from evalkit.tasks.private_api.benchmark import PrivateApiBuild
from evalkit.tasks.private_api.problems import ProblemTemplate, read_templates
from tests.evalkit.tasks.private_api.toy_library import TOOLS, toy_renaming


@pytest.fixture(scope="module")
def library_pool(default_build: PrivateApiBuild) -> Iterator[Pool]:
    with Pool(workers=2, libraries=[default_build.package]) as pool:
        yield pool


def passed(pool: Pool, build: PrivateApiBuild, programs: list[str]) -> list[str]:
    jobs = [problem.job(program) for problem, program in zip(build.problems, programs, strict=True)]
    return [build.problems[index].task_id for index, verdict in pool.check_all(jobs) if verdict.passed]


@pytest.mark.slow
def test_there_are_enough_problems_with_names_of_their_own(default_build: PrivateApiBuild) -> None:
    templates = read_templates()
    assert len(templates) == len(default_build.problems) >= 60
    assert len({template.entry for template in templates}) == len(templates)
    assert all(len(template.cases.strip().splitlines()) >= 4 for template in templates)


def test_every_reference_passes(default_build: PrivateApiBuild, library_pool: Pool) -> None:
    references = [problem.reference for problem in default_build.problems]
    assert len(passed(library_pool, default_build, references)) == len(references)


@pytest.mark.parametrize("body", ["pass", "return {first}", "return {shown}"])
def test_programs_that_do_not_compute_fail(default_build: PrivateApiBuild, library_pool: Pool, body: str) -> None:
    """Empty answers, the first argument, and the value of the example that the prompt shows."""
    programs = []
    for problem in default_build.problems:
        first = re.search(r"\((\w+)", problem.prompt)
        assert first is not None
        shown = problem.prompt.rstrip().splitlines()[-2].strip()
        programs.append(f"{problem.prompt}    {body.format(first=first[1], shown=shown)}\n")
    assert passed(library_pool, default_build, programs) == []


@pytest.mark.slow
def test_references_need_the_library(default_build: PrivateApiBuild, pool: Pool) -> None:
    references = [problem.reference for problem in default_build.problems]
    assert passed(pool, default_build, references) == []


def test_every_problem_names_pages_that_exist(default_build: PrivateApiBuild) -> None:
    sources = {name: ast.parse(text) for name, text in read_sources(str(default_build.package)).items()}
    for problem in default_build.problems:
        assert problem.pages, problem.task_id
        for page in problem.pages:
            package, module, *names = page.split(".")
            body = sources[f"{package}.{module}"].body
            for name in names:
                [found] = [n for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and n.name == name]
                body = found.body


def test_the_tests_are_not_shown(default_build: PrivateApiBuild) -> None:
    for problem in default_build.problems:
        for line in problem.test.splitlines():
            assert line.removeprefix("assert ").partition(" == ")[0] not in problem.prompt


def test_pages_are_functions_classes_and_methods() -> None:
    template = ProblemTemplate(
        entry="f",
        parameters="x",
        task="Count.",
        solution="bag = toylib.tools.Bag()\nbag.add_one(x)\nreturn toylib.tools.split(x).count(1)",
        cases="f('a') == 1\nf('b') == 0\n",
    )
    pages = template.pages("toylib", {"tools": ast.parse(TOOLS)})
    assert pages == ("toylib.tools.Bag", "toylib.tools.Bag.add_one", "toylib.tools.split")
    renaming = toy_renaming()
    problem = template.problem("PrivateApi/3", renaming, pages=pages, digest="0f")
    assert problem.task_id == "PrivateApi/3"
    assert problem.pages[2] == ".".join(map(renaming.name, ("toylib", "tools", "split")))
    assert problem.test == "assert f('b') == 0\n"
    assert ">>> f('a')\n    1\n" in problem.prompt
