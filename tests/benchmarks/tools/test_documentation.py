"""Tests of the stages and tables about documentation on private-api."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.tools import documentation
from benchmarks.tools.plan import Plan


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(scratch=tmp_path, models={"qwen": "folder"})


def write_result(plan: Plan, form: str, passed: list[bool]) -> None:
    result: dict[str, Any] = {
        "tasks": {f"PrivateApi/{index}": [{"passed": value}] for index, value in enumerate(passed)},
        "library": {"private-api": {"used": 3, "passed": sum(passed), "passed_and_used": 1}},
        "data": {"private-api": {"source": "boltons, seed 0", "sha256": "ab" * 32}},
    }
    path = plan.folder("qwen", "private-api") / f"{form}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result))
    # The file may hold answers to more problems than this result has.
    samples = [{"task_id": f"PrivateApi/{index}", "tokens": 30} for index in range(len(passed) + 2)]
    path.with_suffix(".samples.jsonl").write_text("".join(json.dumps(sample) + "\n" for sample in samples))


def test_forms_differ_only_in_their_documentation(plan: Plan) -> None:
    stages = {stage.name: stage for stage in documentation.stages(plan)}
    plain = stages["qwen-private-api-none"].arguments
    assert "--docs" not in plain
    for form in ("retrieved", "oracle", "inline"):
        stage = stages[f"qwen-private-api-{form}"]
        assert stage.needs == ("private-api-index",)
        index = stage.arguments.index("--docs")
        assert [a for a in stage.arguments[:index] if not a.endswith(".json")] == [
            a for a in plain if not a.endswith(".json")
        ]


def test_tables_compare_each_form_with_none_problem_by_problem(plan: Plan) -> None:
    write_result(plan, "none", [True, False, False, False])
    write_result(plan, "oracle", [True, True, True, False])
    values = documentation.tables(documentation.read_results(plan, "qwen"))
    assert values["forms"]["none"]["pass@1"]["mean"] == 25.0
    assert values["forms"]["oracle"]["over none"]["mean"] == 50.0
    assert values["forms"]["oracle"]["tokens"] == 30.0
    assert "over none" not in values["forms"]["none"]
    text = documentation.section("Qwen", values)
    assert "| the right entries | 4 | 75.0 (" in text
    assert "1 of 3" in text


def test_the_page_gets_the_tables_and_the_data_keeps_its_other_parts(
    plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recall = {"problems": 4, "pages": 5, "recall@1": 0.5, "recall@5": 0.75, "source": "boltons", "sha256": "ab" * 32}
    monkeypatch.setattr(documentation, "measured_recall", lambda plan: recall)
    out = tmp_path / "out"
    out.mkdir()
    (out / "tools.md").write_text(f"before\n{documentation.BEGIN}\nold\n{documentation.END}\nafter\n")
    (out / "tools.json").write_text('{"refinement": 1}')
    documentation.write(plan, out)
    assert "old" in (out / "tools.md").read_text(), "nothing is finished"
    write_result(plan, "none", [True, False])
    documentation.write(plan, out)
    page = (out / "tools.md").read_text()
    assert "old" not in page
    assert page.startswith("before\n")
    assert page.endswith("after\n")
    assert "recall@1 50.0 %, recall@5 75.0 % of the 5 entries" in page
    assert "### Qwen2.5-Coder-0.5B-Instruct" in page
    assert set(json.loads((out / "tools.json").read_text())) == {
        "refinement",
        "documentation",
        "documentation_recall",
        "documentation_where",
    }


def test_forms_are_compared_on_the_problems_of_both(plan: Plan) -> None:
    write_result(plan, "none", [True, False])
    write_result(plan, "inline", [True, True, True])
    forms = documentation.tables(documentation.read_results(plan, "qwen"))["forms"]
    assert forms["inline"]["over none"]["mean"] == 50.0
    assert forms["inline"]["problems"] == 3


def test_unfinished_forms_are_left_out(plan: Plan) -> None:
    assert documentation.read_results(plan, "qwen") == {}
