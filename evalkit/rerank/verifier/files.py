"""The folder of a verifier: `verifier.json`, plain numbers that are checked before they are used.

A verifier may come from a stranger. Its file is JSON and holds no code: reading it executes nothing, and takes bounded
time and memory. Every number is finite and bounded, every array has the expected length, the children of a tree's node
come after the node, and unknown fields are refused.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Never

import numpy as np

from evalkit.errors import EvalError
from evalkit.outputs.files import replace_file, sha256_text
from evalkit.rerank.evidence import Bool, Float64, Int64
from evalkit.rerank.inputs.sources import INPUT_SOURCES
from evalkit.rerank.verifier.features import FEATURES, FEATURES_VERSION
from evalkit.rerank.verifier.models import BoostedTrees, LogisticModel, Tree, VerifierModel
from evalkit.rerank.verifier.verifier import EmbeddingSource, SeenTasks, Verifier
from evalkit.text import visible

VERIFIER_FILE = "verifier.json"
FORMAT = 1
"""Version of the file's fields."""

MAX_BYTES = 16 << 20
"""Largest file that is read. A verifier of 300 trees takes about 0.5 MB."""
MAX_TREES = 2_000
MAX_NODES = 50_000
"""Most nodes of all trees."""
MAX_DEPTH = 64
MAX_DIMENSION = 20_000
MAX_NUMBER = 1e12
MIN_SCALE = 1e-9

_KIND = "evalkit verifier"
_FIELDS = (
    "format", "kind", "features", "features_version", "model", "embedding", "inputs", "use_log_probs", "trained_on",
    "tuned_on", "sha256",
)  # fmt: skip


def save_verifier(verifier: Verifier, folder: Path) -> str:
    """Write the verifier's file, atomically; return its digest.

    Raises:
        EvalError: The folder cannot be written.
    """
    content: dict[str, Any] = {
        "format": FORMAT,
        "kind": _KIND,
        "features": list(FEATURES),
        "features_version": FEATURES_VERSION,
        "model": _model_dict(verifier.model),
        "embedding": None if verifier.embedding is None else asdict(verifier.embedding),
        "inputs": list(verifier.inputs),
        "use_log_probs": verifier.use_log_probs,
        "trained_on": _seen_dict(verifier.trained_on),
        "tuned_on": _seen_dict(verifier.tuned_on),
    }
    content["sha256"] = _digest(content)
    path = folder / VERIFIER_FILE
    try:
        replace_file(path, (json.dumps(content, allow_nan=False) + "\n").encode())
    except OSError as error:
        raise EvalError(f"{path}: cannot be written ({error.strerror}); name a writable folder") from error
    return str(content["sha256"])


def load_verifier(folder: Path) -> Verifier:
    """Read the verifier in `folder`.

    Raises:
        EvalError: There is none, or its file is not what `save_verifier` writes.
    """
    path = folder / VERIFIER_FILE
    fields = _object(_parse(_read(path), path), _FIELDS, path, "the file")
    if fields["kind"] != _KIND or fields["format"] != FORMAT:
        _refuse(path, f"has format {_short(fields['format'])}", f"format {FORMAT}")
    if fields["features"] != list(FEATURES) or fields["features_version"] != FEATURES_VERSION:
        _refuse(path, "has other features than this version computes", f"the {len(FEATURES)} of this version")
    inputs = _texts(fields["inputs"], path, "inputs")
    if not inputs or not set(inputs) <= set(INPUT_SOURCES):
        _refuse(path, f"names the inputs {_short(inputs)}", f"some of {', '.join(INPUT_SOURCES)}")
    if not isinstance(fields["use_log_probs"], bool):
        _refuse(path, "has no true or false in use_log_probs", "one of them")
    embedding = _embedding(fields["embedding"], path)
    num_features = len(FEATURES) + (embedding.dimension if embedding is not None else 0)
    verifier = Verifier(
        model=_model(fields["model"], path, num_features),
        embedding=embedding,
        inputs=inputs,
        use_log_probs=fields["use_log_probs"],
        trained_on=_seen(fields["trained_on"], path, "trained_on"),
        tuned_on=_seen(fields["tuned_on"], path, "tuned_on"),
    )
    if fields.pop("sha256") != _digest(fields):
        _refuse(path, "does not match its sha256", "the file as train-verifier wrote it")
    return verifier


def _model_dict(model: VerifierModel) -> dict[str, Any]:
    if isinstance(model, LogisticModel):
        return {
            "type": "logistic",
            "mean": model.mean_F.tolist(),
            "scale": model.scale_F.tolist(),
            "weight": model.weight_F.tolist(),
            "bias": model.bias,
        }
    trees = [
        {
            "feature": tree.feature_M.tolist(),
            "threshold": tree.threshold_M.tolist(),
            "left": tree.left_M.tolist(),
            "right": tree.right_M.tolist(),
            "value": tree.value_M.tolist(),
        }
        for tree in model.trees
    ]
    return {"type": "trees", "bias": model.bias, "trees": trees}


def _seen_dict(seen: SeenTasks) -> dict[str, Any]:
    return {"benchmarks": list(seen.benchmarks), "tasks": dict(seen.tasks)}


def _digest(content: Mapping[str, Any]) -> str:
    return sha256_text(json.dumps(content, sort_keys=True))


def _read(path: Path) -> bytes:
    """Return the bytes of a regular file of bounded size; follows no link and waits for no pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        link = " (a symbolic link)" if path.is_symlink() else f" ({error.strerror})"
        raise EvalError(
            f"{path}: cannot be read{link}; expected a file that evalkit train-verifier wrote; name its folder"
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        _refuse(path, "is no regular file", "the file that train-verifier wrote")
    with os.fdopen(descriptor, "rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        _refuse(path, "is too large", f"at most {MAX_BYTES >> 20} MiB")
    return content


def _parse(content: bytes, path: Path) -> Any:
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_no_constant)
    except RecursionError:
        _refuse(path, "is nested too deeply", "the JSON that train-verifier wrote")
    except ValueError as error:
        _refuse(path, f"is not JSON ({_short(error)})", "the JSON that train-verifier wrote")


def _no_constant(name: str) -> Never:
    raise ValueError(f"{name} is no number of JSON")


def _embedding(value: Any, path: Path) -> EmbeddingSource | None:
    if value is None:
        return None
    fields = _object(value, ("checkpoint", "sha256", "dimension"), path, "embedding")
    checkpoint, sha256 = _texts([fields["checkpoint"], fields["sha256"]], path, "embedding")
    (dimension,) = _integers([fields["dimension"]], path, "embedding dimension", length=1)
    if not 0 < dimension <= MAX_DIMENSION:
        _refuse(path, f"has an embedding of {dimension} numbers", f"1 to {MAX_DIMENSION:,}")
    return EmbeddingSource(checkpoint=checkpoint, sha256=sha256, dimension=int(dimension))


def _model(value: Any, path: Path, num_features: int) -> VerifierModel:
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "logistic":
        fields = _object(value, ("type", "mean", "scale", "weight", "bias"), path, "model")
        mean, scale, weight = (
            _numbers(fields[name], path, f"model {name}", length=num_features) for name in ("mean", "scale", "weight")
        )
        if scale.min() < MIN_SCALE:
            _refuse(path, f"has a scale of {scale.min()}", f"at least {MIN_SCALE}")
        bias = _numbers([fields["bias"]], path, "model bias", length=1)[0]
        return LogisticModel(mean_F=mean, scale_F=scale, weight_F=weight, bias=float(bias))
    if kind != "trees":
        _refuse(path, f"has a model of type {_short(kind)}", "logistic or trees")
    fields = _object(value, ("type", "bias", "trees"), path, "model")
    trees = fields["trees"]
    if not isinstance(trees, list) or not 0 < len(trees) <= MAX_TREES:
        _refuse(path, "has no list of trees, or too many of them", f"1 to {MAX_TREES}")
    read, nodes = [], 0
    for place, tree in enumerate(trees):
        read.append(_tree(tree, path, f"tree {place}", num_features))
        nodes += len(read[-1].feature_M)
        if nodes > MAX_NODES:
            _refuse(path, "has too many nodes", f"at most {MAX_NODES:,}")
    bias = _numbers([fields["bias"]], path, "model bias", length=1)[0]
    return BoostedTrees(num_features=num_features, bias=float(bias), trees=tuple(read))


def _tree(value: Any, path: Path, place: str, num_features: int) -> Tree:
    fields = _object(value, ("feature", "threshold", "left", "right", "value"), path, place)
    length = len(fields["feature"]) if isinstance(fields["feature"], list) else 0
    if not 0 < length <= MAX_NODES:
        _refuse(path, f"has {length} nodes in {place}", f"1 to {MAX_NODES:,}")
    feature, left, right = (
        _integers(fields[name], path, f"{place} {name}", length=length) for name in ("feature", "left", "right")
    )
    threshold, values = (
        _numbers(fields[name], path, f"{place} {name}", length=length) for name in ("threshold", "value")
    )
    node = np.arange(length)
    inner = feature >= 0
    if feature.min() < -1 or feature.max() >= num_features:
        _refuse(path, f"asks for an unknown feature in {place}", f"-1 to {num_features - 1}")
    for child in (left, right):
        if (child[~inner] != -1).any() or (child[inner] <= node[inner]).any() or (child >= length).any():
            _refuse(path, f"has a wrong child in {place}", "children behind their node, and -1 at a leaf")
    if _depth(inner, left, right) > MAX_DEPTH:
        _refuse(path, f"has {place} deeper than {MAX_DEPTH}", "a shallower tree")
    return Tree(feature_M=feature, threshold_M=threshold, left_M=left, right_M=right, value_M=values)


def _depth(inner: Bool, left: Int64, right: Int64) -> int:
    depth = np.zeros(len(left), np.int64)
    for node in np.flatnonzero(inner):
        for child in (left[node], right[node]):
            depth[child] = max(depth[child], depth[node] + 1)
    return int(depth.max())


def _seen(value: Any, path: Path, place: str) -> SeenTasks:
    fields = _object(value, ("benchmarks", "tasks"), path, place)
    tasks = fields["tasks"]
    if not isinstance(tasks, dict) or not all(isinstance(digest, str) for digest in tasks.values()):
        _refuse(path, f"has no digests by task id in {place}", "them")
    return SeenTasks(benchmarks=_texts(fields["benchmarks"], path, f"{place} benchmarks"), tasks=tasks)


def _object(value: Any, names: Sequence[str], path: Path, place: str) -> dict[str, Any]:
    """Return a JSON object with exactly these fields."""
    if not isinstance(value, dict):
        _refuse(path, f"has no object as {place}", f"one with {', '.join(names)}")
    if missing := [name for name in names if name not in value]:
        _refuse(path, f"lacks {missing[0]} in {place}", f"the fields {', '.join(names)}")
    if foreign := [name for name in value if name not in names]:
        _refuse(path, f"has the unknown field {_short(foreign[0])} in {place}", f"the fields {', '.join(names)}")
    return value


def _texts(value: Any, path: Path, place: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        _refuse(path, f"has no list of names as {place}", "one")
    return tuple(value)


def _numbers(value: Any, path: Path, place: str, *, length: int) -> Float64:
    """Return a list of bounded numbers as an array."""
    _require_list(value, path, place, length)
    if not all(type(item) in (int, float) and -MAX_NUMBER <= item <= MAX_NUMBER for item in value):
        _refuse(path, f"has something else than numbers in {place}", f"numbers of at most {MAX_NUMBER:.0e}")
    return np.array(value, np.float64)


def _integers(value: Any, path: Path, place: str, *, length: int) -> Int64:
    _require_list(value, path, place, length)
    if not all(type(item) is int and -1 <= item <= MAX_NODES for item in value):
        _refuse(path, f"has something else than indices in {place}", f"integers from -1 to {MAX_NODES:,}")
    return np.array(value, np.int64)


def _require_list(value: Any, path: Path, place: str, length: int) -> None:
    if not isinstance(value, list) or len(value) != length:
        found = f"{len(value)} items" if isinstance(value, list) else "no list"
        _refuse(path, f"has {found} in {place}", str(length))


def _short(value: object) -> str:
    return visible(str(value)[:60])


def _refuse(path: Path, found: str, expected: str) -> Never:
    raise EvalError(f"{path}: {found}; expected {expected}; train the verifier again, or name another folder")
