"""The folder of a verifier: it comes back as it was saved, and hostile files are refused in one line.

The files here hold wrong shapes, huge numbers, cycles, foreign fields, other formats, links and pipes.
"""

from __future__ import annotations

import copy
import gzip
import json
import os
import pickle
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evalkit.errors import EvalError
from evalkit.rerank.verifier import files
from evalkit.rerank.verifier.features import FEATURES
from evalkit.rerank.verifier.files import VERIFIER_FILE, load_verifier, save_verifier
from evalkit.rerank.verifier.models import BoostedTrees, LogisticModel, Tree, VerifierModel
from evalkit.rerank.verifier.verifier import SeenTasks, Verifier
from tests.evalkit.rerank.verifier.toy_tasks import toy_tasks

WIDTH = len(FEATURES)


def logistic() -> LogisticModel:
    generator = np.random.default_rng(0)
    mean, scale, weight = generator.normal(size=(3, WIDTH))
    return LogisticModel(mean_F=mean, scale_F=np.abs(scale) + 0.1, weight_F=weight, bias=0.1 + 0.2)


def trees() -> BoostedTrees:
    """Return two trees of five nodes: a root that asks feature 3, and one that asks feature 1 on its right side."""
    generator = np.random.default_rng(0)
    made = tuple(
        Tree(
            feature_M=np.array([3, -1, 1, -1, -1]),
            threshold_M=generator.random(5),
            left_M=np.array([1, -1, 3, -1, -1]),
            right_M=np.array([2, -1, 4, -1, -1]),
            value_M=generator.normal(size=5),
        )
        for _ in range(2)
    )
    return BoostedTrees(num_features=WIDTH, bias=-0.3, trees=made)


def verifier_of(model: VerifierModel) -> Verifier:
    seen = SeenTasks(benchmarks=("mbpp:train",), tasks={"Mbpp/601": "ab", "Mbpp/602": "cd"})
    return Verifier(model=model, inputs=("tests", "examples"), use_log_probs=True, trained_on=seen)


@pytest.mark.parametrize("model", [logistic(), trees()], ids=["logistic", "trees"])
def test_a_verifier_comes_back_with_the_same_probabilities(model: VerifierModel, tmp_path: Path) -> None:
    verifier = verifier_of(model)
    digest = save_verifier(verifier, tmp_path / "new" / "folder")
    loaded = load_verifier(tmp_path / "new" / "folder")
    for task in toy_tasks(5):
        assert (loaded.right(task.evidence) == verifier.right(task.evidence)).all(), "to the last bit"
    assert (loaded.inputs, loaded.use_log_probs) == (verifier.inputs, verifier.use_log_probs)
    assert (loaded.trained_on, loaded.tuned_on) == (verifier.trained_on, verifier.tuned_on)
    assert save_verifier(loaded, tmp_path / "again") == digest
    first, again = tmp_path / "new" / "folder" / VERIFIER_FILE, tmp_path / "again" / VERIFIER_FILE
    assert first.read_bytes() == again.read_bytes()


def refusal(folder: Path) -> str:
    """Return the error of loading, which is one line that names the file."""
    started = time.monotonic()
    with pytest.raises(EvalError) as caught:
        load_verifier(folder)
    assert time.monotonic() - started < 5
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) < 600
    assert line.startswith(str(folder / VERIFIER_FILE))
    return line


def changed(model: VerifierModel, tmp_path: Path, change: Callable[[Any], object]) -> str:
    """Return the refusal of a saved verifier whose JSON was changed, with a digest that fits the change."""
    save_verifier(verifier_of(model), tmp_path)
    content = json.loads((tmp_path / VERIFIER_FILE).read_text())
    change(content)
    content.pop("sha256", None)
    content["sha256"] = files._digest(copy.deepcopy(content))
    (tmp_path / VERIFIER_FILE).write_text(json.dumps(content))
    return refusal(tmp_path)


def setting(*path: Any, to: Any) -> Callable[[Any], None]:
    """Return a change of one item in nested JSON."""

    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return change


FIELD_CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "a foreign field": (setting("code", to="import os"), "the unknown field code in the file"),
    "a foreign field of the model": (setting("model", "code", to=1), "the unknown field code in model"),
    "a missing field": (lambda content: content.pop("inputs"), "lacks inputs in the file"),
    "another format": (setting("format", to=2), "has format 2; expected format 1"),
    "another kind": (setting("kind", to="x"), "has format 1"),
    "other features": (setting("features", 0, to="x"), "other features"),
    "features of another version": (setting("features_version", to=0), "other features"),
    "more features": (lambda content: content["features"].append("x"), "other features"),
    "an embedding that is no object": (setting("embedding", to="x"), "no object as embedding"),
    "an embedding with a foreign field": (
        setting("embedding", to={"checkpoint": "a", "sha256": "b", "dimension": 2, "code": 1}), "the unknown field code"
    ),
    "an embedding of no width": (
        setting("embedding", to={"checkpoint": "a", "sha256": "b", "dimension": 0}), "an embedding of 0 numbers"
    ),
    "an embedding of great width": (
        setting("embedding", to={"checkpoint": "a", "sha256": "b", "dimension": 30000}), "an embedding of 30000 numbers"
    ),
    "an embedding that the model lacks": (
        setting("embedding", to={"checkpoint": "a", "sha256": "b", "dimension": 2}), f"expected {WIDTH + 2}"
    ),
    "an embedding whose name is no text": (
        setting("embedding", to={"checkpoint": 1, "sha256": "b", "dimension": 2}), "no list of names as embedding"
    ),
    "an unknown model": (setting("model", "type", to="pickle"), "a model of type pickle; expected logistic or trees"),
    "no model": (setting("model", to=[]), "a model of type None"),
    "unknown inputs": (setting("inputs", to=["shell"]), "names the inputs"),
    "no inputs": (setting("inputs", to=[]), "names the inputs"),
    "inputs of another type": (setting("inputs", to={"tests": 1}), "no list of names as inputs"),
    "a number for a truth value": (setting("use_log_probs", to=1), "no true or false"),
    "tasks as a list": (setting("trained_on", "tasks", to=["Mbpp/601"]), "no digests by task id in trained_on"),
    "digests of another type": (setting("tuned_on", "tasks", to={"a": [1]}), "no digests by task id in tuned_on"),
    "null in place of an object": (setting("trained_on", to=None), "no object as trained_on"),
}  # fmt: skip


@pytest.mark.parametrize("name", FIELD_CHANGES)
def test_wrong_fields_are_refused(name: str, tmp_path: Path) -> None:
    change, message = FIELD_CHANGES[name]
    assert message in changed(logistic(), tmp_path, change)


LOGISTIC_CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "too few weights": (lambda c: c["model"]["weight"].pop(), f"{WIDTH - 1} items in model weight; expected {WIDTH}"),
    "nested weights": (setting("model", "weight", 0, to=[1.0]), "something else than numbers in model weight"),
    "text": (setting("model", "mean", 0, to="1"), "something else than numbers in model mean"),
    "a truth value": (setting("model", "mean", 0, to=True), "something else than numbers in model mean"),
    "null": (setting("model", "bias", to=None), "something else than numbers in model bias"),
    "a huge number": (setting("model", "weight", 0, to=1e300), "numbers of at most 1e+12"),
    "a huge integer": (setting("model", "weight", 0, to=10**4000), "numbers of at most 1e+12"),
    "a scale of zero": (setting("model", "scale", 0, to=0), "has a scale of 0.0"),
    "a negative scale": (setting("model", "scale", 0, to=-1.0), "has a scale of -1.0"),
    "no list": (setting("model", "scale", to={"0": 1}), "no list in model scale"),
}


@pytest.mark.parametrize("name", LOGISTIC_CHANGES)
def test_wrong_numbers_are_refused(name: str, tmp_path: Path) -> None:
    change, message = LOGISTIC_CHANGES[name]
    assert message in changed(logistic(), tmp_path, change)


def chain(length: int) -> dict[str, list[float]]:
    """Return a tree whose every inner node has a leaf on its left and the next node on its right."""
    feature, left, right = [], [], []
    for node in range(0, 2 * length, 2):
        feature += [0, -1]
        left += [node + 1, -1]
        right += [node + 2, -1]
    size = len(feature) + 1
    return {
        "feature": [*feature, -1],
        "left": [*left, -1],
        "right": [*right, -1],
        "threshold": [0.0] * size,
        "value": [0.0] * size,
    }


TREE_CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "a cycle": (setting("model", "trees", 0, "right", 2, to=0), "a wrong child in tree 0"),
    "a node that is its own child": (setting("model", "trees", 1, "left", 0, to=0), "a wrong child in tree 1"),
    "a child outside": (setting("model", "trees", 0, "left", 0, to=5), "a wrong child in tree 0"),
    "a negative child": (setting("model", "trees", 0, "left", 0, to=-1), "a wrong child in tree 0"),
    "a leaf with a child": (setting("model", "trees", 0, "left", 1, to=3), "a wrong child in tree 0"),
    "an unknown feature": (setting("model", "trees", 0, "feature", 0, to=WIDTH), "an unknown feature in tree 0"),
    "a negative feature": (setting("model", "trees", 0, "feature", 0, to=-2), "something else than indices"),
    "a fraction as a child": (setting("model", "trees", 0, "left", 0, to=1.0), "something else than indices"),
    "arrays of other lengths": (
        lambda content: content["model"]["trees"][0]["value"].pop(), "4 items in tree 0 value; expected 5"
    ),
    "no nodes": (setting("model", "trees", 0, "feature", to=[]), "0 nodes in tree 0"),
    "no trees": (setting("model", "trees", to=[]), "no list of trees"),
    "too many trees": (setting("model", "trees", to=[{}] * 2001), "no list of trees, or too many"),
    "a tree of another type": (setting("model", "trees", 0, to=[1]), "no object as tree 0"),
    "a deep tree": (setting("model", "trees", 0, to=chain(65)), "has tree 0 deeper than 64"),
    "too many nodes": (setting("model", "trees", to=[chain(60)] * 500), "too many nodes"),
}  # fmt: skip


@pytest.mark.parametrize("name", TREE_CHANGES)
def test_wrong_trees_are_refused(name: str, tmp_path: Path) -> None:
    change, message = TREE_CHANGES[name]
    assert message in changed(trees(), tmp_path, change)


def test_a_tree_of_the_largest_depth_is_read(tmp_path: Path) -> None:
    nodes = {name: np.array(values) for name, values in chain(64).items()}
    tree = Tree(
        feature_M=nodes["feature"],
        threshold_M=nodes["threshold"].astype(float),
        left_M=nodes["left"],
        right_M=nodes["right"],
        value_M=nodes["value"].astype(float),
    )
    save_verifier(verifier_of(BoostedTrees(num_features=WIDTH, bias=0.0, trees=(tree,))), tmp_path)
    assert np.isfinite(load_verifier(tmp_path).right(toy_tasks(1)[0].evidence)).all()


class Hostile:
    """An object whose pickle creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[1]", "has no object as the file"),
        (b"null", "has no object as the file"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a":' * 100_000, "is nested too deeply"),
        (b'{"format": NaN}', "NaN is no number of JSON"),
        (b'{"format": -Infinity}', "-Infinity is no number of JSON"),
        (b'{"format": ' + b"9" * 5000 + b"}", "is not JSON"),
        (gzip.compress(b" " * (100 << 20), 1), "is not JSON"),
        (b" " * ((16 << 20) + 1), "is too large; expected at most 16 MiB"),
    ],
    ids=["empty", "cut", "list", "null", "bytes", "lists", "objects", "nan", "infinity", "digits", "gzip", "large"],
)  # fmt: skip
def test_other_content_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / VERIFIER_FILE).write_bytes(content)
    assert message in refusal(tmp_path)


def test_a_pickle_is_refused_and_not_loaded(tmp_path: Path) -> None:
    (tmp_path / VERIFIER_FILE).write_bytes(pickle.dumps(Hostile(tmp_path / "touched")))
    assert "is not JSON" in refusal(tmp_path)
    assert not (tmp_path / "touched").exists()


def test_numbers_that_overflow_are_refused(tmp_path: Path) -> None:
    save_verifier(verifier_of(logistic()), tmp_path)
    path = tmp_path / VERIFIER_FILE
    path.write_text(re.sub(r'"bias": [^}]*', '"bias": 1e999', path.read_text()))
    assert "something else than numbers in model bias" in refusal(tmp_path)


def test_a_changed_file_does_not_match_its_digest(tmp_path: Path) -> None:
    save_verifier(verifier_of(logistic()), tmp_path)
    path = tmp_path / VERIFIER_FILE
    path.write_text(path.read_text().replace("Mbpp/601", "Mbpp/603"))
    assert "does not match its sha256" in refusal(tmp_path)


def test_links_pipes_folders_and_missing_files_are_refused(tmp_path: Path) -> None:
    save_verifier(verifier_of(logistic()), tmp_path / "real")
    for name in ("link", "pipe", "folder", "missing", "device"):
        (tmp_path / name).mkdir()
    (tmp_path / "link" / VERIFIER_FILE).symlink_to(tmp_path / "real" / VERIFIER_FILE)
    (tmp_path / "device" / VERIFIER_FILE).symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe" / VERIFIER_FILE)
    (tmp_path / "folder" / VERIFIER_FILE).mkdir()
    assert "a symbolic link" in refusal(tmp_path / "link")
    assert "a symbolic link" in refusal(tmp_path / "device")
    assert "is no regular file" in refusal(tmp_path / "pipe")
    assert "is no regular file" in refusal(tmp_path / "folder")
    assert "No such file" in refusal(tmp_path / "missing")
    assert "Not a directory" in refusal(tmp_path / "real" / VERIFIER_FILE)
