"""Structure of the project: direction and cycles of imports, sizes, names, mirrored tests, documentation.

No counterpart: these tests read the source files of all packages, as `scripts/house.py` measures them.
"""

from __future__ import annotations

import ast
import re
import resource
import subprocess
import sys
from pathlib import Path

import click
import pytest

from scripts.house import (
    PACKAGES,
    class_places,
    files_per_folder,
    functions,
    import_cycles,
    import_graph,
    imported_names,
    lines_per_file,
    source_files,
)

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "shards": {"shards"},
    "teacher_dump": {"teacher_dump", "shards"},
    "student_train": {"student_train", "shards"},
    "evalkit": {"evalkit", "shards.runtime", "shards.decoding"},
}
SCRIPTS = {
    "logit-shards": "shards",
    "teacher-dump": "teacher_dump",
    "student-train": "student_train",
    "evalkit": "evalkit",
}
MAX_FILES_PER_FOLDER = 12
MAX_LINES_PER_FILE = 350
MAX_LINES_PER_FUNCTION = 60
MAX_PARAMETERS = 8


def within(name: str, modules: set[str]) -> bool:
    """Return whether a name is one of the modules, or a name inside one of them."""
    return any(name == module or name.startswith(f"{module}.") for module in modules)


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_point_in_one_direction(package: str) -> None:
    for path in source_files(ROOT, [package]):
        ours = {name for name in imported_names(path) if within(name, set(PACKAGES))}
        wrong = {name for name in ours if not within(name, MAY_IMPORT[package])}
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}"


def test_no_two_modules_import_each_other() -> None:
    cycles = import_cycles(import_graph(ROOT))
    assert not cycles, "import cycles: " + "; ".join(" <-> ".join(cycle) for cycle in cycles)


def test_a_cycle_is_found_in_function_bodies_and_named(tmp_path: Path) -> None:
    package = tmp_path / "shards"
    package.mkdir()
    (package / "a.py").write_text("from shards import b\n")
    (package / "b.py").write_text("def f():\n    from shards.c import g\n")
    (package / "c.py").write_text("import shards.a\n")
    (package / "d.py").write_text("if TYPE_CHECKING:\n    import shards.e\n")
    (package / "e.py").write_text("import shards.d\n")
    assert import_cycles(import_graph(tmp_path)) == [("shards.a", "shards.b", "shards.c")]


def test_a_cache_is_read_without_torch_and_vllm() -> None:
    """Only `shards/decoding` may import torch, and nothing else of `shards` imports it."""
    for path in source_files(ROOT, ["shards"]):
        heavy = {"vllm"} if path.parent.name == "decoding" else {"torch", "vllm", "transformers", "shards.decoding"}
        assert not [name for name in imported_names(path) if within(name, heavy)], path


def test_private_modules_of_vllm_are_imported_in_few_places() -> None:
    """Compare with the list in docs/architecture.md."""
    importers = {
        str(path.relative_to(ROOT))
        for path in source_files(ROOT)
        if any(within(name, {"vllm.v1", "vllm.model_executor"}) for name in imported_names(path))
    }
    assert importers == {
        "evalkit/generation/top_p_vllm.py",
        "evalkit/generation/vllm.py",
        "teacher_dump/engines/vllm_pooler.py",
    }


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_no_heavy_one(package: str) -> None:
    program = (
        f"import sys, {package}; print([m for m in ('torch', 'vllm', 'transformers', 'datasets') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(("script", "package"), SCRIPTS.items())
def test_help_answers_at_once_and_equals_the_module(script: str, package: str) -> None:
    """Allow half a second of processor time, the wait on an idle machine; a shared processor may need several tries."""
    executable = Path(sys.executable).with_name(script)
    seconds: list[float] = []
    while len(seconds) < 10 and min(seconds, default=1.0) >= 0.5:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        shown = subprocess.run([executable, "--help"], capture_output=True, text=True, check=True, cwd="/")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5
    command = [sys.executable, "-m", package, "--help"]
    module = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    assert shown.stdout.split("\n", 1)[1] == module.stdout.split("\n", 1)[1]


def docstring(path: Path) -> str:
    """Return the docstring of a file, "" if it has none."""
    return ast.get_docstring(ast.parse(path.read_text())) or ""


@pytest.mark.parametrize("folder", [*PACKAGES, "benchmarks", "scripts"])
def test_every_file_opens_with_a_docstring_that_names_its_job(folder: str) -> None:
    for path in source_files(ROOT, [folder]):
        first_line = docstring(path).partition("\n")[0]
        assert first_line, path.relative_to(ROOT)
        assert not first_line.endswith("?"), f"{path.relative_to(ROOT)} opens with a question"


def test_folders_hold_few_files() -> None:
    full = {folder: count for folder, count in files_per_folder(ROOT).items() if count > MAX_FILES_PER_FOLDER}
    assert not full, f"over {MAX_FILES_PER_FOLDER} files in a folder: {full}"


def test_files_are_short() -> None:
    long = {file: lines for file, lines in lines_per_file(ROOT).items() if lines > MAX_LINES_PER_FILE}
    assert not long, f"files over {MAX_LINES_PER_FILE} lines: {long}"


def test_functions_are_short() -> None:
    long = {str(f): f.num_lines for f in functions(ROOT) if f.num_lines > MAX_LINES_PER_FUNCTION}
    assert not long, f"functions over {MAX_LINES_PER_FUNCTION} lines: {long}"


def test_functions_take_few_parameters() -> None:
    counts = {str(f): f.num_parameters for f in functions(ROOT) if not f.is_command}
    wide = {name: count for name, count in counts.items() if count > MAX_PARAMETERS}
    assert not wide, f"functions with over {MAX_PARAMETERS} parameters: {wide}"


def test_a_class_name_exists_once() -> None:
    doubled = {name: places for name, places in class_places(ROOT).items() if len(places) > 1}
    assert not doubled, f"class names defined more than once: {doubled}"


def has_counterpart(test: Path) -> bool:
    """Return whether `x/test_y.py` or `x/test_y_aspect.py` has a module `x/y.py` or a folder `x/y/` to test."""
    words = test.stem.removeprefix("test_").split("_")
    folder = ROOT / test.relative_to(ROOT / "tests").parent
    names = ["_".join(words[:count]) for count in range(len(words), 0, -1)]
    return any((folder / f"{name}.py").exists() or (folder / name).is_dir() for name in names)


def test_tests_mirror_the_packages() -> None:
    """Accept a file without a module of its own if its docstring has a line that begins with `No counterpart:`."""
    unmirrored = [
        str(test.relative_to(ROOT))
        for test in sorted((ROOT / "tests").rglob("test_*.py"))
        if not has_counterpart(test) and not re.search("^No counterpart: ", docstring(test), re.MULTILINE)
    ]
    assert not unmirrored, f"neither beside their module nor with a line `No counterpart: ...`: {unmirrored}"


def test_the_command_reference_is_what_the_commands_say() -> None:
    from scripts.cli_reference import reference

    found = (ROOT / "docs" / "cli.md").read_text()
    assert found == reference(), "run `python scripts/cli_reference.py`"


def anchors(page: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub names them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def test_links_in_the_documentation_lead_somewhere() -> None:
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#?([^)#:]*)\)", page.read_text()):
            linked = page.parent / target if target else page
            assert linked.exists(), f"{page.relative_to(ROOT)} -> {target}"
            assert not anchor or anchor in anchors(linked), f"{page.relative_to(ROOT)} -> {target}#{anchor}"


PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]


def test_files_named_in_the_documentation_exist() -> None:
    """Check paths in backticks that begin with a folder of the project, without the placeholders NAME and PACKAGE."""
    folders = "|".join([*PACKAGES, "tests", "benchmarks", "docs", "scripts"])
    missing = [
        f"{page.relative_to(ROOT)}: {path}"
        for page in PAGES
        for path in re.findall(rf"`((?:{folders})/[\w./-]+)`", page.read_text())
        if not (ROOT / path).exists() and not re.search("NAME|PACKAGE", path)
    ]
    assert not missing


def test_the_tour_names_files_that_exist() -> None:
    """Read the annotated tree in CONTRIBUTING.md: two spaces of indentation for each level."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    tree = text[text.index("<!-- tree -->") : text.index("<!-- /tree -->")]
    folders: list[str] = []
    for line in tree.splitlines()[1:]:
        name = line.split()[0]
        depth = (len(line) - len(line.lstrip()) - 4) // 2
        folders[depth:] = [name]
        assert ROOT.joinpath(*folders).exists(), line


def test_options_named_in_the_documentation_exist() -> None:
    """Check the options of every command line of this project in a page."""
    from scripts.cli_reference import COMMANDS

    unknown = []
    for page in PAGES:
        text = page.read_text().replace("\\\n", " ")
        for program, arguments in re.findall(rf"\b({'|'.join(COMMANDS)})( [^`\n|#;&]+)", text):
            command = COMMANDS[program]
            if isinstance(command, click.Group):
                name = arguments.split()[0]
                subcommand = command.get_command(click.Context(command), name)
                command = subcommand if subcommand is not None else command
            known = {option for parameter in command.params for option in parameter.opts}
            unknown += [
                f"{page.relative_to(ROOT)}: {program}{arguments}"
                for option in re.findall(r"(?<=\s)--[a-z][a-z0-9-]*", arguments)
                if option not in known | {"--help", "--version"}
            ]
    assert not unknown
