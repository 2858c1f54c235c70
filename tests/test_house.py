"""Is the house as docs/architecture.md draws it? Direction of imports, weight of imports, speed of --help."""

from __future__ import annotations

import ast
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("shards", "teacher_dump", "student_train", "evalkit")
MAY_IMPORT = {
    "shards": {"shards"},
    "teacher_dump": {"teacher_dump", "shards"},
    "student_train": {"student_train", "shards"},
    "evalkit": {"evalkit", "shards.runtime"},
}
SCRIPTS = {
    "logit-shards": "shards",
    "teacher-dump": "teacher_dump",
    "student-train": "student_train",
    "evalkit": "evalkit",
}


def imported(path: Path) -> set[str]:
    """Return the modules that a file imports anywhere, function bodies included; `from a import b` counts as a.b."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {f"{node.module}.{a.name}" for a in node.names}
    return names


def within(name: str, modules: set[str]) -> bool:
    """Return whether a name is one of the modules, or lies in one."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_in_one_direction(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        ours = {name for name in imported(path) if within(name, set(PACKAGES))}
        wrong = {name for name in ours if not within(name, MAY_IMPORT[package])}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_shards_never_imports_torch_or_vllm() -> None:
    for path in (ROOT / "shards").rglob("*.py"):
        assert not [name for name in imported(path) if within(name, {"torch", "vllm", "transformers"})], path


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_no_heavy_one(package: str) -> None:
    program = (
        f"import sys, {package}; print([m for m in ('torch', 'vllm', 'transformers', 'datasets') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(("script", "package"), SCRIPTS.items())
def test_help_answers_at_once_and_equals_the_module(script: str, package: str) -> None:
    """Half a second of processor time: what a person waits on an idle machine, whatever else runs on this one."""
    executable = Path(sys.executable).with_name(script)
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = subprocess.run([executable, "--help"], capture_output=True, text=True, check=True, cwd="/")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5
    command = [sys.executable, "-m", package, "--help"]
    module = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert shown.stdout.split("\n", 1)[1] == module.stdout.split("\n", 1)[1]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_file_opens_with_a_docstring(package: str) -> None:
    for path in (ROOT / package).rglob("*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path.relative_to(ROOT)


def test_the_command_reference_is_what_the_commands_say() -> None:
    from scripts.cli_reference import reference

    found = (ROOT / "docs" / "cli.md").read_text()
    assert found == reference(), "run `python scripts/cli_reference.py`"


def test_links_in_the_documentation_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} -> {target}"
