"""Recipes of CONTRIBUTING.md, performed step by step with toy additions on a copy of the project.

No counterpart: a recipe touches several modules.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Return a copy of the packages and their tests that can be edited."""
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("shards", "teacher_dump", "student_train", "evalkit", "tests", "scripts"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def insert(file: Path, before: str, text: str) -> None:
    """Insert text before the only occurrence of `before`."""
    source = file.read_text()
    assert source.count(before) == 1, f"{file}: {source.count(before)} occurrences of {before!r}"
    file.write_text(source.replace(before, text + before))


def python(project: Path, *arguments: str) -> str:
    """Run Python in the copy, return what it printed; fail unless it exits with 0."""
    environment = {**os.environ, "COLUMNS": "200", "PYTHONPATH": str(project)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_add_a_divergence(project: Path) -> None:
    """Jeffreys' divergence, KL(t || s) + KL(s || t), on the partition of the head and one class for all other ids."""
    divergences = project / "student_train" / "losses" / "divergences.py"
    insert(
        divergences,
        "def _times(",
        "def _jeffreys(t: torch.Tensor, log_s: torch.Tensor, skew: float) -> tuple[torch.Tensor, torch.Tensor]:\n"
        "    forward, forward_grad = _forward_kl(t, log_s, skew)\n"
        "    reverse, reverse_grad = _reverse_kl(t, log_s, skew)\n"
        "    return forward + reverse, forward_grad + reverse_grad\n\n\n",
    )
    insert(
        divergences,
        '    "rs-kd": Divergence(',
        '    "bucket-jeffreys": Divergence(target_kind="bucket", of_class=_jeffreys),\n',
    )
    insert(project / "student_train" / "choices.py", '"rs-kd"', '"bucket-jeffreys", ')
    definitions = project / "tests" / "student_train" / "losses" / "test_fused_linear.py"
    insert(
        definitions,
        '        elif name == "bucket-skew-kl":',
        '        elif name == "bucket-jeffreys":\n'
        "            log_t = math.log(max(a, SMALLEST_TEACHER))\n"
        "            total = total + s * (log_s - log_t) + (a * (log_a - log_s) if a > 0 else 0.0)\n",
    )
    assert "bucket-jeffreys" in python(project, "-m", "student_train", "--help")
    report = python(project, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(definitions), "-k", "bucket-jeffreys")
    assert " passed" in report


@pytest.mark.slow
def test_add_a_ranker(project: Path) -> None:
    """The ranker of the recipe, once as a file of the user and once as a row of the table."""
    recipe = (ROOT / "CONTRIBUTING.md").read_text().partition("### Add a ranker")[2]
    block = recipe[recipe.index("    from evalkit") : recipe.index("A ranker that becomes")]
    (project / "shortest.py").write_text(textwrap.dedent(block))
    bodies = ["    total = x + y\n    return total\n", "    return x + y\n", "    return sum([x, y])\n"]
    rows = [{"task_id": "HumanEval/53", "completion": body} for body in bodies]
    (project / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ("-m", "evalkit", "rerank", "samples.jsonl", "--no-cache", "--json", "r.json", "--methods", "shortest")
    python(project, *command, "--ranker", "shortest.py")
    assert json.loads((project / "r.json").read_text())["tasks"]["HumanEval/53"]["shortest"]["sample"] == 1

    (project / "shortest.py").rename(project / "evalkit" / "rerank" / "rankers" / "shortest.py")
    table = project / "evalkit" / "rerank" / "registry.py"
    insert(table, "Ranker = Callable[", "from evalkit.rerank.rankers import shortest\n\n")
    insert(table, '    "majority": counting', '    "shortest": shortest.rank,\n')
    insert(table, '"majority", "majority-valid"', '"shortest", ')
    python(project, *command)
    assert json.loads((project / "r.json").read_text())["tasks"]["HumanEval/53"]["shortest"]["sample"] == 1


@pytest.mark.slow
def test_add_a_corpus_filter(project: Path, tmp_path: Path) -> None:
    """Drop documents with too many TODO comments."""
    filters = project / "teacher_dump" / "corpus" / "filters"
    (filters / "todos.py").write_text(
        '"""Filter by the number of TODO comments."""\n\n'
        "from dataclasses import dataclass\n\n"
        "from teacher_dump.corpus.document import Drop\n"
        "from teacher_dump.corpus.filters.base import Candidate\n\n\n"
        "@dataclass(frozen=True)\n"
        "class Todos:\n"
        '    """Drop documents with more than `limit` TODO comments."""\n\n'
        "    limit: int\n\n"
        "    def __call__(self, candidate: Candidate) -> Drop | None:\n"
        '        """Count the comments of one document."""\n'
        '        count = candidate.document.text.count("# TODO")\n'
        '        return Drop("TODO comments", str(count)) if count > self.limit else None\n'
    )
    insert(
        filters / "settings.py",
        "    decontaminate: str = field(",
        '    max_todos: int = field(default=10, metadata={"help": "Drop documents with more TODO comments."})\n',
    )
    pipeline = filters / "pipeline.py"
    insert(
        pipeline,
        "from teacher_dump.corpus.filters.text_limits",
        "from teacher_dump.corpus.filters.todos import Todos\n",
    )
    insert(pipeline, "    allowed = allowed_licences(", "    yield Todos(settings.max_todos)\n")

    assert "--max-todos" in python(project, "-m", "teacher_dump", "--help")
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "finished.py").write_text("def double(number):\n    return 2 * number\n")
    (corpus / "unfinished.py").write_text("# TODO rename\n# TODO test\ndef triple(number):\n    return 3 * number\n")
    program = (
        "import sys\n"
        "from teacher_dump.corpus.corpus import Corpus\n"
        "from teacher_dump.corpus.filters.pipeline import provenance\n"
        "from teacher_dump.corpus.filters.settings import FilterSettings\n"
        "settings = FilterSettings(max_todos=1, licences='any', decontaminate='none')\n"
        "corpus = Corpus(data=sys.argv[1], seed=0, filters=settings)\n"
        "print([document.path for document in corpus], dict(corpus.counts), provenance(settings)['max_todos'])"
    )
    printed = python(project, "-c", program, str(corpus))
    assert printed == "['finished.py'] {'documents read': 2, 'dropped: TODO comments': 1} 1\n"
