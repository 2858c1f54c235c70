"""Files and command lines as strangers bring them: what is read, what is refused, and that nothing is overwritten."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from run_folder import write_run

from evalkit import paths
from evalkit.cli import main
from evalkit.errors import EvalError
from evalkit.given_samples import fence_hint, read_samples
from evalkit.samples import Sample
from evalkit.sandbox.verdict import Verdict
from evalkit.tasks import Benchmark

ROOT = Path(__file__).resolve().parent.parent.parent
RIGHT = {"task_id": "HumanEval/53", "completion": "    return x + y\n"}
WRONG = {"task_id": "HumanEval/53", "completion": "    return x - y\n"}
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def call(*args: object, **settings) -> Result:
    return CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False, **settings)


def write_lines(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "s.jsonl", RIGHT)


# Names


def test_dots_in_names_keep_results_pages_and_partial_files_apart(tmp_path: Path):
    right = write_lines(tmp_path / "temp0.2.jsonl", RIGHT)
    wrong = write_lines(tmp_path / "temp0.8.jsonl", WRONG)
    for path in (right, wrong):
        assert call("score", "--samples", path).exit_code == 0
    for name, passed in (("temp0.2", 1), ("temp0.8", 0)):
        folder = tmp_path / f"{name}-evalkit"
        assert json.loads((folder / "score.json").read_text())["scores"]["humaneval"]["pass@1"] == passed
        assert f"<h1>{name}.jsonl</h1>" in (folder / "score.html").read_text()
    assert call("score", "--samples", right, "--json", tmp_path / "lr0.1").exit_code == 0
    assert call("score", "--samples", wrong, "--json", tmp_path / "lr0.3").exit_code == 0
    assert {"lr0.1", "lr0.1.html", "lr0.3", "lr0.3.html"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize(
    "names",
    [
        ("temp0.2.jsonl", "temp0.8.jsonl"),
        ("a.jsonl", "a.jsonl.gz", "a.json"),
        ("v1.2", "v1.3"),
        ("a.b.jsonl", "a.c.jsonl", "a.jsonl"),
        ("a", "a.jsonl"),
    ],
)
def test_no_two_files_of_samples_share_a_folder(names: tuple[str, ...]):
    folders = {paths.samples_folder(Path("x", name)) for name in names}
    assert len(folders) == len(names)
    assert all(folder.parent == Path("x") for folder in folders)


def test_what_lies_beside_a_result_has_its_whole_name():
    names = ("temp0.2.json", "temp0.8.json", "temp0.2", "lr1e-4.b.json")
    assert len({paths.beside(Path(name), ".samples.jsonl") for name in names[:2] + names[3:]}) == 3
    assert paths.beside(Path("x/temp0.2.json"), ".html") == Path("x/temp0.2.html")
    assert paths.beside(Path("x/temp0.2"), ".html") == Path("x/temp0.2.html")


# Outputs and inputs


def linked(folder: Path, samples: Path, how: str) -> Path:
    other = folder / "other.json"
    if how == "symlink":
        other.symlink_to(samples)
    elif how == "hard link":
        os.link(samples, other)
    elif how == "folder link":
        (folder / "link").symlink_to(folder)
        return folder / "link" / samples.name
    elif how == "relative":
        return folder / "x" / ".." / samples.name
    else:
        return samples
    return other


@pytest.mark.parametrize("how", ["same", "symlink", "hard link", "folder link", "relative"])
@pytest.mark.parametrize("option", ["--json", "--html"])
def test_no_output_may_be_the_samples(tmp_path: Path, samples: Path, option: str, how: str):
    (tmp_path / "x").mkdir()
    before = samples.read_text()
    done = call("score", "--samples", samples, option, linked(tmp_path, samples, how))
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert f"evalkit: {option} " in line
    assert "is what is read" in line
    assert samples.read_text() == before


def test_outputs_are_not_one_another(tmp_path: Path, samples: Path):
    done = call("score", "--samples", samples, "--json", tmp_path / "r", "--html", tmp_path / "." / "r")
    assert done.exit_code == 1
    assert "is also what --json names" in done.stderr
    run = write_run(tmp_path / "run", kl=0.8)
    done = call("report", run, "--out", tmp_path / "r.html", "--markdown", tmp_path / "r.html")
    assert (done.exit_code, "is also what --out names" in done.stderr) == (1, True)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors", "vocab_new.json"])
def test_no_output_replaces_or_joins_a_part_of_the_checkpoint(tmp_path: Path, name: str):
    folder = tmp_path / "ckpt"
    folder.mkdir()
    for part in ("config.json", "tokenizer.json", "model.safetensors"):
        (folder / part).write_text('{"model_type": "llama"}')
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    done = call("score", folder, "--json", folder / name)
    assert done.exit_code == 1
    assert len(done.stderr.splitlines()) == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_no_output_replaces_benchmark_data_or_a_result(tmp_path: Path, samples: Path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "HumanEval.jsonl.gz").write_bytes(b"x")
    done = call("score", "--samples", samples, "--data-dir", data, "--json", data / "HumanEval.jsonl.gz")
    assert done.exit_code == 1
    assert (data / "HumanEval.jsonl.gz").read_bytes() == b"x"
    for name in ("a.json", "b.json"):
        assert call("score", "--samples", samples, "--json", tmp_path / name).exit_code == 0
    before = (tmp_path / "b.json").read_text()
    done = call("compare", tmp_path / "a.json", tmp_path / "b.json", "--html", tmp_path / "b.json")
    assert (done.exit_code, "is what is read" in done.stderr) == (1, True)
    run = write_run(tmp_path / "run", kl=0.8)
    done = call("report", run, "--out", run / "run.json", "--score", tmp_path / "b.json")
    assert (done.exit_code, "is what is read" in done.stderr) == (1, True)
    assert (tmp_path / "b.json").read_text() == before


def test_a_device_is_written_to_and_not_replaced(samples: Path):
    command = [sys.executable, "-m", "evalkit", "score", "--samples", samples, "--json", "/dev/stdout"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout[: done.stdout.index("\n}") + 2])["scores"]["humaneval"]["pass@1"] == 1
    assert Path("/dev/stdout").is_symlink()
    assert call("score", "--samples", samples, "--json", "/dev/null", "--no-html").exit_code == 0
    assert not Path("/dev/null").is_file()
    assert not Path("/dev/null.html").exists()


def test_a_result_that_is_a_link_is_written_where_it_leads(tmp_path: Path, samples: Path):
    (tmp_path / "r.json").symlink_to(tmp_path / "real.json")
    assert call("score", "--samples", samples, "--json", tmp_path / "r.json").exit_code == 0
    assert (tmp_path / "r.json").is_symlink()
    assert "scores" in json.loads((tmp_path / "real.json").read_text())


# Two runs on one output


def test_a_second_run_on_one_output_is_told_and_a_lock_left_behind_is_no_hindrance(tmp_path: Path, samples: Path):
    result = tmp_path / "r.json"
    with paths.claimed(result):
        done = call("score", "--samples", samples, "--json", result)
        assert done.exit_code == 1
        assert f"another evalkit writes there (process {os.getpid()} on " in done.stderr
        assert not result.exists()
        assert call("score", "--samples", samples, "--json", tmp_path / "other.json").exit_code == 0
    (tmp_path / ".r.json.lock").write_text("process 1 on elsewhere")  # its process was killed
    assert call("score", "--samples", samples, "--json", result).exit_code == 0
    assert not list(tmp_path.glob(".*"))


def test_of_many_that_claim_at_once_one_at_a_time_holds(tmp_path: Path):
    holding, most, refused = [], [], []

    def claim() -> None:
        for _ in range(50):
            try:
                with paths.claimed(tmp_path / "r.json"):
                    holding.append(1)
                    most.append(len(holding))
                    holding.pop()
            except EvalError:
                refused.append(1)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert not list(tmp_path.iterdir())


def test_settings_that_come_back_find_their_samples(tmp_path: Path, checkpoint: Path):
    args = ("score", checkpoint, "--limit", 2, "--max-new-tokens", 4, "--no-html", "--out", tmp_path)
    outputs = [call(*args, "--seed", seed).output for seed in (1, 2, 1, 2)]
    assert ["reused: 2 of 2 samples" in output for output in outputs] == [False, False, True, True]


# Text that cannot be shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("    return '\ud800'\n", r"\ud800"),
        ("    return x + y  # \x00\n", r"\x00"),
        ("    raise ValueError('\\x1b[31m red')  # \x1b[2J\n", r"\x1b[2J"),
        ("    return x + y  # \u202e gnp\n", r"\u202e"),
    ],
    ids=["surrogate", "NUL", "escape", "bidirectional"],
)
def test_what_cannot_be_shown_gets_a_verdict_and_a_page(tmp_path: Path, text: str, shown: str):
    path = write_lines(tmp_path / "s.jsonl", {"task_id": "HumanEval/53", "completion": text})
    for _ in range(2):  # the second time from the cache
        done = call("score", "--samples", path, "--json", tmp_path / "r.json")
        assert done.exit_code == 0, done.output
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert shown in page
    assert not any(ord(char) < 32 and char not in "\n\t" for char in page)
    (verdict,) = json.loads((tmp_path / "r.json").read_text())["tasks"]["HumanEval/53"]
    assert "\x1b" not in verdict["detail"]
    assert "\n" not in verdict["detail"]


def test_a_detail_is_one_line_whatever_was_raised():
    assert Verdict(outcome="exception", detail="ValueError: a\nb\r\x1b[0m\u2028c\n").detail == (
        r"ValueError: a\nb\r\x1b[0m\u2028c"
    )


def test_names_of_files_that_are_no_text_are_shown_escaped(tmp_path: Path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\x1b[31m.jsonl"))
    path.write_text(json.dumps(RIGHT))
    command = [sys.executable, "-m", "evalkit", "score", "--samples", path]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert r"\udcff\x1b[31m-evalkit/score.json" in done.stdout
    command[-1] = Path(f"{path}x")
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 1
    assert r"\udcff\x1b[31m.jsonlx: no such file" in done.stderr


# Broken files


def deep(depth: int) -> str:
    return '{"task_id": "HumanEval/53", "completion": ' + "[" * depth + "]" * depth + "}\n"


def damaged() -> bytes:
    whole = bytearray(gzip.compress(json.dumps(RIGHT).encode() * 50, mtime=0))
    whole[30] ^= 0xFF
    whole[40] ^= 0xFF
    return bytes(whole)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("s.jsonl.gz", gzip.compress(json.dumps(RIGHT).encode() * 99, mtime=0)[:-20], "line 1: is cut short"),
        ("s.jsonl", gzip.compress((json.dumps(RIGHT) + "\n").encode(), mtime=0)[:-8], "line 2: is cut short"),
        ("s.jsonl.gz", damaged(), "its gzip stream is damaged"),
        ("s.jsonl.gz", b"\x1f\x8b\x08\x00garbage", "s.jsonl.gz line 1: "),
        ("s.jsonl", deep(100_000).encode(), "line 1: is nested too deeply"),
        ("s.jsonl", (json.dumps(RIGHT) + "\n" + deep(100_000)).encode(), "line 2: is nested too deeply"),
        ("s.jsonl", b"[" * 100_000, "is nested too deeply"),
        ("s.jsonl", b'{"task_id": ' + b"9" * 5000 + b"}", "line 1: is not JSON"),
        ("s.jsonl", json.dumps(RIGHT).encode() + b"\n\xff\xfe", "line 2: is not UTF-8"),
        ("s.json", b'[{"task_id": "HumanEval/53", "completion": "x"}, 3]', "item 2: has no task_id"),
        ("s.json", b'[{"task_id": "HumanEval/53"', "is not JSON"),
        ("s.json", b"[]", "holds no sample"),
        ("s.jsonl", json.dumps({"task_id": "y" * 100_000, "completion": ""}).encode(), "is not of humaneval"),
    ],
)
def test_broken_samples_are_one_line_with_file_and_line(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    done = call("score", "--samples", tmp_path / name)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"evalkit: {tmp_path / name}")
    assert message in line
    assert len(line) < 700
    assert not (tmp_path / "s-evalkit" / "score.json").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.safetensors.index.json", "[]"),
        ("model.safetensors.index.json", '{"weight_map": []}'),
        ("model.safetensors.index.json", '{"weight_map": {"a": 3}}'),
        ("model.safetensors.index.json", "[" * 100_000),
        ("config.json", "[" * 100_000),
        ("config.json", "[]"),
        ("config.json", "\x00"),
    ],
)
def test_broken_files_of_a_checkpoint_are_one_line(tmp_path: Path, name: str, text: str):
    for part in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / part).write_text('{"model_type": "llama"}')
    (tmp_path / name).write_text(text)
    done = call("score", tmp_path)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert name in line


@pytest.mark.parametrize(
    "change",
    [
        {"scores": {"humaneval": 3}},
        {"scores": {"humaneval": {"interval": []}}},
        {"scores": {"humaneval": {"interval": {"pass@1": 3}}}},
        {"scores": []},
        {"tasks": []},
        {"data": 3},
        {"protocol": []},
        {"tasks": {"HumanEval/53": 3}},
        {"tasks": {"HumanEval/53": [3]}},
        {"tasks": {"HumanEval/53": [{}]}},
        {"data": {}},
        {"data": {"humaneval": {"id_prefix": 3, "sha256": "x"}}},
        {"checkpoint": "x"},
    ],
)
def test_a_result_of_another_form_is_one_line(tmp_path: Path, samples: Path, change: dict):
    good = tmp_path / "a.json"
    call("score", "--samples", samples, "--json", good)
    bad = tmp_path / "b.json"
    bad.write_text(json.dumps(json.loads(good.read_text()) | change))
    for order in ((good, bad), (bad, good)):
        done = call("compare", *order, "--html", tmp_path / "c.html")
        assert done.exit_code == 1
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"evalkit: {bad}: ")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("run.json", "[" * 100_000),
        ("run.json", "[]"),
        ("metrics.jsonl", "[" * 100_000),
        ("metrics.jsonl", "3\n"),
        ("metrics.jsonl", '{"step": 1, "loss": "x"}\n'),
        ("metrics.jsonl", "\xff"),
        ("held_out.jsonl", '{"document": "a", "window": "x", "tokens": 1, "bytes": 1}\n'),
        ("held_out.jsonl", '{"document": "a", "window": 0, "tokens": 1, "bytes": 1, "kl_sum": []}\n'),
    ],
)
def test_broken_files_of_a_run_are_one_line(tmp_path: Path, name: str, text: str):
    run = write_run(tmp_path / "run", kl=0.8)
    (run / name).write_text(text, encoding="latin-1")
    done = call("report", run, "--out", tmp_path / "r.html")
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert name in line


# What is accepted

LINES = (json.dumps(RIGHT) + "\n" + json.dumps(WRONG) + "\n").encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("bom.jsonl", b"\xef\xbb\xbf" + LINES),
        ("utf16.jsonl", LINES.decode().encode("utf-16")),
        ("capital.jsonl.GZ", gzip.compress(LINES, mtime=0)),
        ("no-suffix", gzip.compress(LINES, mtime=0)),
        ("bom.gz", gzip.compress(b"\xef\xbb\xbf" + LINES, mtime=0)),
        (
            "two-parts.gz",
            gzip.compress(LINES[: len(LINES) // 2], mtime=0) + gzip.compress(LINES[len(LINES) // 2 :], mtime=0),
        ),
        ("plain.gz", LINES),
        ("array.json", json.dumps([RIGHT, WRONG]).encode()),
        ("array.jsonl.gz", gzip.compress(b"\xef\xbb\xbf  \n" + json.dumps([RIGHT, WRONG], indent=2).encode(), mtime=0)),
        ("windows.jsonl", LINES.replace(b"\n", b"\r\n")),
        ("no-newline.jsonl", LINES.rstrip()),
        ("ids.jsonl", LINES.replace(b'"HumanEval/53"', b'" HumanEval/53\\n"')),
        ("numbers.jsonl", LINES.replace(b'"HumanEval/53"', b"53")),
    ],
)
def test_the_usual_ways_of_writing_samples_are_read(tmp_path: Path, humaneval: Benchmark, name: str, content: bytes):
    (tmp_path / name).write_bytes(content)
    given = read_samples(tmp_path / name, humaneval)
    assert [(one.task_id, one.index, one.completion) for one in given.samples] == [
        ("HumanEval/53", 0, RIGHT["completion"]),
        ("HumanEval/53", 1, WRONG["completion"]),
    ]


def test_of_completion_and_solution_the_solution_counts(tmp_path: Path, humaneval: Benchmark):
    both = RIGHT | {"solution": "def add(x, y):\n    return 0\n"}
    path = write_lines(tmp_path / "s.jsonl", both, RIGHT | {"solution": None})
    first, second = read_samples(path, humaneval).samples
    assert (first.solution, first.completion) == (both["solution"], None)
    assert (second.solution, second.completion) == (None, RIGHT["completion"])


def test_a_folder_of_evalplus_is_read_in_the_order_of_its_numbers(tmp_path: Path, humaneval: Benchmark):
    for task, number in (("HumanEval_53", 10), ("HumanEval_53", 9), ("HumanEval_2", 0), ("HumanEval_53", 0)):
        (tmp_path / task).mkdir(exist_ok=True)
        (tmp_path / task / f"{number}.py").write_text(f"# {task} {number}")
    (tmp_path / "HumanEval_53" / "notes.txt").write_text("not a program")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "hook.py").write_text("")
    given = read_samples(tmp_path, humaneval)
    assert [(one.task_id, one.index, one.solution) for one in given.samples] == [
        ("HumanEval/2", 0, "# HumanEval_2 0"),
        ("HumanEval/53", 0, "# HumanEval_53 0"),
        ("HumanEval/53", 1, "# HumanEval_53 9"),
        ("HumanEval/53", 2, "# HumanEval_53 10"),
    ]
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvalError, match="holds no samples; expected a JSONL file, or a folder per task"):
        read_samples(tmp_path / "empty", humaneval)
    (tmp_path / "other" / "Nope_1").mkdir(parents=True)
    (tmp_path / "other" / "Nope_1" / "0.py").write_text("")
    with pytest.raises(EvalError, match=r"Nope_1/0.py: task_id 'Nope/1' is not of humaneval"):
        read_samples(tmp_path / "other", humaneval)


@pytest.mark.parametrize("packed", [False, True])
def test_standard_input_is_read_once_for_several_benchmarks(tmp_path: Path, packed: bool):
    content = gzip.compress(LINES, mtime=0) if packed else LINES
    done = call("score", "--samples", "-", "--json", tmp_path / "r.json", "--no-html", input=io.BytesIO(content))
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["scores"]["humaneval"]["pass@1"] == 0.5
    assert result["samples"]["path"] == "standard input"


def test_a_pipe_with_a_name_is_read(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=lambda: (tmp_path / "pipe").write_bytes(LINES))
    writer.start()
    done = call("score", "--samples", tmp_path / "pipe", "--json", tmp_path / "r.json", "--no-html")
    writer.join()
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
def test_a_file_on_standard_input_is_not_replaced(tmp_path: Path, source: str):
    samples = write_lines(tmp_path / "s.jsonl", RIGHT)
    before = samples.read_text()
    command = [sys.executable, "-m", "evalkit", "score", "--samples", source, "--json", samples]
    with samples.open() as stream:
        done = subprocess.run(command, stdin=stream, capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 1
    assert done.stderr.startswith(f"evalkit: --json {samples}: is what is read (/dev/stdin)")
    assert samples.read_text() == before


def test_a_user_without_a_home_gets_a_line_and_no_folder_named_by_a_tilde(
    tmp_path: Path, samples: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "~nobody-of-this-name/cache")
    done = call("score", "--samples", samples)
    assert done.exit_code == 1
    assert done.stderr.startswith(
        "evalkit: ~nobody-of-this-name/cache: there is no such home folder; set XDG_CACHE_HOME"
    )
    assert not list(tmp_path.glob("~*"))


def test_an_empty_checkpoint_and_a_data_folder_that_is_not_there_are_refused(samples: Path):
    assert call("score", "").exit_code == 2
    done = call("score", "--samples", samples, "--data-dir", samples.parent / "none")
    assert done.exit_code == 1
    assert done.stderr.startswith(f"evalkit: --data-dir {samples.parent / 'none'}: no such folder")


@pytest.mark.parametrize("named", ["folder", "file"])
def test_gguf_weights_are_one_line_that_says_how_to_convert_them(tmp_path: Path, named: str):
    path = tmp_path / "model-Q4_K_M.gguf"
    path.write_bytes(b"GGUF")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    done = call("score", tmp_path if named == "folder" else path)
    assert done.exit_code == 1
    (line,) = done.stderr.splitlines()
    assert "its weights are GGUF (model-Q4_K_M.gguf)" in line
    assert "gguf_file='model-Q4_K_M.gguf'" in line


def test_from_standard_input_the_result_goes_to_a_folder_here(tmp_path: Path):
    for source in ("-", "/dev/stdin"):
        command = [sys.executable, "-m", "evalkit", "score", "--samples", source]
        done = subprocess.run(command, input=LINES, capture_output=True, cwd=tmp_path, env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
        assert [path.name for path in tmp_path.iterdir()] == ["stdin-evalkit"]


FENCED = (
    {"task_id": "HumanEval/53", "completion": "Sure!\n```python\ndef add(x, y):\n    return x + y\n```\nDone."},
    {"task_id": "HumanEval/53", "completion": "```python\n    return x + y\n```"},
    {"task_id": "HumanEval/53", "solution": "```\ndef add(x, y):\n    return x + y\n```\n\n```\nadd(1, 2)\n```"},
)


def test_fences_that_make_everything_fail_are_hinted_at_and_sanitized_away(tmp_path: Path):
    path = write_lines(tmp_path / "s.jsonl", *FENCED)
    plain = call("score", "--samples", path, "--json", tmp_path / "r.json")
    assert "hint: 3 of 3 samples hold Markdown fences" in plain.stderr
    assert "--sanitize" in plain.stderr
    done = call("score", "--samples", path, "--sanitize", "--json", tmp_path / "r.json")
    assert done.exit_code == 0
    assert "hint" not in done.stderr
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["scores"]["humaneval"]["pass@1"] == 1, result["tasks"]
    assert result["samples"]["sanitized"] is True
    assert "as it was written" in (tmp_path / "r.html").read_text()


def test_a_fence_in_a_sample_that_is_python_gives_no_hint():
    fenced = Sample(task_id="HumanEval/53", solution='"""\n```\nx\n```\n"""\n')
    assert fence_hint([fenced], [Verdict(outcome="wrong", detail="assert ...")]) == ""
    assert fence_hint([fenced], [Verdict(outcome="exception", detail="SyntaxError: invalid syntax")]) != ""


# Command lines


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--limit", "0"), "Invalid value for '--limit'"),
        (("--limit", "-1"), "Invalid value for '--limit'"),
        (("--workers", "-2"), "Invalid value for '--workers'"),
        (("--workers", "0"), "Invalid value for '--workers'"),
        (("--tasks", ""), "names no benchmark"),
        (("--tasks", " , "), "names no benchmark"),
        (("--protocol", "humaneval-openai-v1"), "--protocol: does nothing with --samples"),
        (("--engine", "auto"), "--engine: does nothing with --samples"),
        (("--n", "5", "--temperature", "0.8"), "--n, --temperature: does nothing with --samples"),
        (("--max-new-tokens", "5"), "does nothing with --samples"),
        (("--top-p", "0.9"), "does nothing with --samples"),
        (("--batch-size", "5"), "does nothing with --samples"),
        (("--dtype", "float32"), "does nothing with --samples"),
        (("--seed", "0"), "does nothing with --samples"),
        (("--deterministic",), "does nothing with --samples"),
        (("--html", "x.html", "--no-html"), "expected either --html or --no-html"),
        (("--json", "x.json", "--out", "x"), "expected either --json or --out"),
        (("--json", "-"), "/dev/stdout is standard output"),
        (("--json", ""), "is empty"),
        (("--out", "~no-such-user/x"), "write the path out"),
        (("--out", "a/~/b"), "holds a folder ~"),
    ],
)
def test_what_makes_no_sense_is_a_usage_error(
    tmp_path: Path, samples: Path, args: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = call("score", "--samples", samples, *args)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("args", [("--batch-size", "0"), ("--n", "0"), ("--sanitize",), ("--limit", "0")])
def test_what_makes_no_sense_for_a_checkpoint_is_a_usage_error(args: tuple[str, ...]):
    assert call("score", "ckpt", *args).exit_code == 2


@pytest.mark.parametrize("name", ["run[/a]", "x[lr=1e-4]", "[bold]", "[link=x]", ":warning:", "a[/]", "\\[x]"])
def test_names_are_no_markup(tmp_path: Path, name: str):
    folder = tmp_path / name
    folder.mkdir(parents=True)
    path = write_lines(folder / "s[b].jsonl", RIGHT)
    done = call("score", "--samples", path)
    assert done.exit_code == 0, done.output
    result = folder / "s[b]-evalkit" / "score.json"
    assert f"result: {result}" in done.stdout
    assert f"page:   {result.with_suffix('.html')}" in done.stdout
    compared = call("compare", result, result, "--html", folder / "c.html")
    assert compared.exit_code == 0, compared.output
    assert f"{path} against {path}" in compared.stdout.replace("\n", "")
    run = write_run(folder / "run", kl=0.8)
    (folder / "run" / "run.json").write_text(
        (folder / "run" / "run.json").read_text().replace("shallow", json.dumps(name)[1:-1].replace("/", "_"))
    )
    reported = call("report", run, "--out", folder / "r.html")
    assert reported.exit_code == 0, reported.output
    assert f"report: {folder / 'r.html'}" in reported.stdout
    assert name.replace("/", "_") in reported.stdout
    missing = call("score", "--samples", folder / "missing")
    assert missing.stderr == f"evalkit: {folder / 'missing'}: no such file; expected samples as JSONL\n"


def test_a_tilde_is_the_users_home_and_never_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", "~/.cache")
    monkeypatch.chdir(tmp_path)
    write_lines(home / "s.jsonl", RIGHT)
    done = call("score", "--samples=~/s.jsonl", "--json=~/out/r.json", "--html=~/out/p.html")
    assert done.exit_code == 0, done.output
    assert {"r.json", "p.html"} == {path.name for path in (home / "out").iterdir()}
    assert (home / ".cache" / "teacherless" / "evalkit" / "verdicts.sqlite").is_file()
    assert call("score", "~/ckpt").exit_code == 1
    assert call("compare", "~/out/r.json", "~/out/r.json").exit_code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["home"]
