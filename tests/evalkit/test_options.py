"""Tests of options that exclude each other, and of paths with unusual characters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evalkit.errors import EvalError
from evalkit.request import Request
from evalkit.tools.ask import AskRequest
from tests.evalkit.commands import RIGHT, call, write_lines
from tests.evalkit.run_folder import write_run


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    return write_lines(tmp_path / "s.jsonl", RIGHT)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--limit", "0"), "Invalid value for '--limit'"),
        (("--limit", "-1"), "Invalid value for '--limit'"),
        (("--workers", "-2"), "Invalid value for '--workers'"),
        (("--workers", "0"), "Invalid value for '--workers'"),
        (("--tasks", ""), "names no benchmark"),
        (("--tasks", " , "), "names no benchmark"),
        (("--protocol", "humaneval-openai-v1"), "--protocol: has no effect with --samples"),
        (("--engine", "auto"), "--engine: has no effect with --samples"),
        (("--n", "5", "--temperature", "0.8"), "--n, --temperature: has no effect with --samples"),
        (("--max-new-tokens", "5"), "has no effect with --samples"),
        (("--top-p", "0.9"), "has no effect with --samples"),
        (("--batch-size", "5"), "has no effect with --samples"),
        (("--dtype", "float32"), "has no effect with --samples"),
        (("--seed", "0"), "has no effect with --samples"),
        (("--deterministic",), "has no effect with --samples"),
        (("--html", "x.html", "--no-html"), "expected either --html or --no-html"),
        (("--json", "x.json", "--out", "x"), "expected either --json or --out"),
        (("--json", "-"), "/dev/stdout is standard output"),
        (("--json", ""), "is empty"),
        (("--out", "~no-such-user/x"), "write the path out"),
        (("--out", "a/~/b"), "holds a folder ~"),
    ],
)
def test_conflicting_options_are_usage_errors(
    tmp_path: Path, samples: Path, args: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = call("score", "--samples", samples, *args)
    assert done.exit_code == 2, done.output
    assert message in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("args", [("--batch-size", "0"), ("--n", "0"), ("--sanitize",), ("--limit", "0")])
def test_options_that_do_not_apply_to_a_checkpoint_are_usage_errors(args: tuple[str, ...]):
    assert call("score", "ckpt", *args).exit_code == 2


@pytest.mark.parametrize("command", [("score", "ckpt"), ("ask", "ckpt", "question")], ids=["score", "ask"])
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("--tool-first",), "--tool-first has no effect without --tools TOOL; add it, or leave --tool-first out"),
        (("--tool-calls", 4), "--tool-calls has no effect without --tools TOOL"),
        (("--tool-tokens", 9), "--tool-tokens has no effect without --tools TOOL"),
        (("--docs-tokens", 1024), "--docs-tokens has no effect without --docs-top-k K"),
        (("--docs-tokens", 9, "--docs", "d.db", "--tools", "docs"), "--docs-tokens has no effect without --docs-top-k"),
    ],
)
def test_options_that_another_one_switches_on_are_usage_errors(
    command: tuple[str, ...], args: tuple[object, ...], message: str
):
    done = call(*command, *args)
    assert done.exit_code == 2, done.output
    assert message in done.stderr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tool_calls": 9, "docs_tokens": 5}, "--tool-calls has no effect without --tools TOOL"),
        ({"docs_tokens": 5}, "--docs-tokens has no effect without --docs-top-k K"),
        ({"tool_first": True}, "--tool-first has no effect without --tools TOOL; add it, or leave --tool-first out"),
        ({"refine_form": "sample"}, "--refine-form has no effect without --refine R"),
    ],
)
def test_settings_that_another_one_switches_on_are_refused(settings: dict[str, object], message: str):
    with pytest.raises(EvalError, match=message):
        Request(checkpoint="model", result=Path("score.json"), **settings)
    if "refine_form" not in settings:
        with pytest.raises(EvalError, match=message):
            AskRequest(checkpoint="model", question="?", **settings)


def test_settings_that_are_switched_on_are_accepted():
    docs = {"docs": Path("d.db"), "docs_oracle": True, "docs_tokens": 5}
    Request(checkpoint="model", result=Path("score.json"), tools=("python",), tool_calls=9, tool_first=True, **docs)
    Request(checkpoint="model", result=Path("score.json"), refine=1, refine_form="sample")
    AskRequest(checkpoint="model", question="?", tools=("python",), tool_tokens=9)


@pytest.mark.parametrize(
    "name",
    [
        "run[/a]",
        *(
            pytest.param(n, marks=pytest.mark.slow)
            for n in ("[bold]", "x[lr=1e-4]", "[link=x]", ":warning:", "a[/]", "\\[x]")
        ),
    ],
)
def test_names_are_not_read_as_markup(tmp_path: Path, name: str):
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
