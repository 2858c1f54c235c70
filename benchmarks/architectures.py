"""Measure the table of docs/architectures.md: what is right, slower or refused for each architecture.

    python -m benchmarks.architectures                 # print the table
    python -m benchmarks.architectures --write         # write it to docs/architectures.md
    python -m benchmarks.architectures llama gemma2    # measure some of the rows

Each architecture is a random model of four layers. The compared pairs are: records and the model's logits, packed rows
and single rows, a cut model and the layers in place, adapters before and after the merge, a saved folder and the model
that was saved. A refusal is a one-line error of this project. Any other difference raises `Wrong`.

`benchmarks.architectures_vllm` measures the vLLM column, which this command leaves as it is.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.tiny_models import MODELS, build
from shards.format.chunk import RowInfo
from student_train.data.layout import PackingLayout, choose_layout, inputs_of
from student_train.data.packing import arrange
from student_train.errors import StudentError, TrainError
from student_train.model.head import LogitMap, find_logit_map, require_projection
from student_train.model.lora import add_adapters, merge_adapters
from student_train.model.parts import layers_of
from student_train.model.probe import last_hidden, relative_difference
from student_train.pruning.shorten import shorten
from teacher_dump.engines.base import Engine, EngineConfig
from teacher_dump.engines.records import Records, RecordSpec
from teacher_dump.engines.registry import start_engine
from teacher_dump.errors import DumpError
from teacher_dump.tasks.windowing import Window

PAGE = Path(__file__).resolve().parent.parent / "docs" / "architectures.md"
MARKER = "<!-- table -->\n"
LENGTHS = (48, 33, 20, 7)
"""Numbers of tokens of the rows. The longest exceed the windows of local attention in `tiny_models`."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
"""Largest accepted difference of a recorded probability, by the dtype of the teacher."""
SPEC = RecordSpec()
KEPT = (0, 2, 3)
"""Layers that a cut model keeps."""
REFUSED = "**refused**"
SHARED = {
    "mask": "shared",
    "positions": "shared, masks by layer",
    "masks": "shared, masks by layer",
    "padded": "**slower**: one row per sequence",
    "single": "**slower**: one row per forward pass",
}
REFUSALS = (StudentError, TrainError, DumpError)


@dataclass(frozen=True, slots=True)
class Findings:
    """Cells of one row of the table, "" if an earlier refusal leaves nothing to measure."""

    name: str
    records: str
    packing: str = ""
    head: str = ""
    cut: str = ""
    lora: str = ""
    saved: str = ""
    vllm: str = ""
    """Filled from the page: `survey` does not measure it."""


class Wrong(AssertionError):
    """A result that differs and is not refused."""


def survey(name: str) -> Findings:
    """Measure one row of the table.

    Args:
        name: Key of `MODELS`.

    Raises:
        Wrong: A result differs and is not refused.
    """
    model = build(name)
    ids_BT = probe_rows()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        records = _or_refused(lambda: _records(model, Path(folder))).replace(f"{folder}: ", "")
    findings = Findings(name=name, records=records)
    try:
        require_projection(model)
        logit_map = find_logit_map(model)
        layout = choose_layout(model)
    except StudentError as error:
        return dataclasses.replace(findings, packing=_refusal(error))
    _require_packed_is_single(model, layout, ids_BT)
    return dataclasses.replace(
        findings,
        packing=SHARED[layout.name],
        head=_head(logit_map),
        cut=_or_refused(lambda: _cut(model, ids_BT)),
        lora=_or_refused(lambda: _adapters(name, ids_BT)),
        saved=_or_refused(lambda: _saved(model, ids_BT)),
    )


def probe_rows() -> torch.Tensor:
    """Return random token ids, int64 [rows, longest row]."""
    return torch.randint(8, 60, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(1))


def probe_windows() -> list[Window]:
    """Return the rows of `LENGTHS` tokens as windows."""
    info = RowInfo(document="0" * 64, window=0, byte_start=0, byte_end=1, source="", path="", licence="")
    rows = probe_rows().numpy().astype(np.int32)
    return [Window(info=info, tokens=rows[i, :length]) for i, length in enumerate(LENGTHS)]


def largest_error(start: Callable[[EngineConfig], Engine], model: Any, folder: Path, dtype: str) -> float:
    """Return the largest difference of a recorded probability from the softmax of a model's logits.

    Args:
        start: Starts the engine that makes the records.
        model: The teacher in the dtype of the reference. Its logits are computed before the engine starts.
        folder: Folder of the teacher.
        dtype: dtype of the engine.
    """
    config = EngineConfig(
        folder=folder,
        vocab_size=model.get_output_embeddings().weight.shape[0],
        spec=SPEC,
        seed=0,
        dtype=dtype,
        window_tokens=64,
        tensor_parallel_size=1,
        whitespace_ids=(1,),
    )
    windows = probe_windows()
    tokens = [torch.from_numpy(window.tokens.astype(np.int64)) for window in windows]
    expected = [_logits(model, tokens_T[None])[0, :-1].softmax(1) for tokens_T in tokens]
    engine = start(config)
    try:
        rows = [Records.unpack(torch.from_numpy(packed), SPEC) for packed in engine.capture(windows)]
    finally:
        engine.close()
    errors = []
    for records, p_PV, tokens_T in zip(rows, expected, tokens, strict=True):
        in_head = records.head_ids >= 0
        at_PK = p_PV.gather(1, records.head_ids.clamp_min(0).long())
        errors.append((at_PK - records.head_probs)[in_head])
        errors.append(records.scalars[:, 0].exp() - p_PV.gather(1, tokens_T[1:, None])[:, 0])
    largest = float(torch.cat(errors).abs().max())
    return math.inf if math.isnan(largest) else largest


def _or_refused(measure: Callable[[], str]) -> str:
    try:
        return measure()
    except REFUSALS as error:
        return _refusal(error)


def _refusal(error: Exception) -> str:
    text = str(error)
    if "\n" in text or "open an issue" in text:
        raise Wrong(f"a refusal of more than one line, or not of this project: {text}") from None
    cause = text.split("found ", 1)[-1].split("; expected")[0].split(", expected")[0]
    return f"{REFUSED}: {textwrap.shorten(cause, 130, placeholder=' ...')}"


def _logits(model: Any, ids_BT: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        logits_BTV: torch.Tensor = model(input_ids=ids_BT, use_cache=False).logits
    return logits_BTV if logits_BTV.dtype == torch.float64 else logits_BTV.float()


def _start_transformers(config: EngineConfig) -> Engine:
    threads = torch.get_num_threads()
    engine = start_engine("transformers", config)
    torch.set_num_threads(threads)  # the engine takes every core, which tiny models do not need
    return engine


def _records(model: Any, folder: Path) -> str:
    """Compare the records of the transformers engine with the model's logits, in both dtypes."""
    for dtype, tolerance in TOLERANCE.items():
        reference = type(model).from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        error = largest_error(_start_transformers, reference, folder, dtype)
        if error > tolerance:
            raise Wrong(f"records in {dtype}: probabilities differ by {error:.1e}")
    return "right"


def _require_packed_is_single(model: Any, layout: PackingLayout, ids_BT: torch.Tensor) -> None:
    rows = [ids_BT[i, :length] for i, length in enumerate(LENGTHS)]
    with torch.no_grad():
        for group in [rows] if layout.name != "single" else [[row] for row in rows]:
            packed = arrange([row.numpy() for row in group], layout=layout.name, widest=layout.widest)
            inputs = inputs_of(
                model,
                position_ids_BT=packed.position_ids_BT,
                attention_mask_B1TT=packed.attention_mask_B1TT,
                layout=layout.name,
            )
            hidden = last_hidden(model, packed.tokens_BT, **inputs).flatten(0, 1)
            for start, row in zip(packed.starts.tolist(), group, strict=True):
                error = relative_difference(hidden[start : start + len(row)], last_hidden(model, row[None])[0])
                if not error <= 1e-3:
                    raise Wrong(f"packed rows: hidden states differ by {error:.1e} of the largest")


def _head(logit_map: LogitMap) -> str:
    scale = "" if logit_map.scale == 1.0 else f"scaled by {logit_map.scale:.4g}"
    cap = f"capped at {logit_map.cap:.4g}" if logit_map.cap else ""
    return ", ".join(part for part in (scale, cap) if part) or "plain"


def _cut(model: Any, ids_BT: torch.Tensor) -> str:
    """Compare a model of fewer layers, and the folder saved from it, with the whole model that skips layers."""
    short = shorten(model, KEPT).eval()

    def skip(_: Any, args: Any, kwargs: Any, output: Any) -> Any:
        hidden = args[0] if args else kwargs["hidden_states"]
        return type(output)([hidden, *output[1:]]) if isinstance(output, list | tuple) else hidden

    with ExitStack() as hooks:
        for i, layer in enumerate(layers_of(model)):
            if i not in KEPT:
                hooks.callback(layer.register_forward_hook(skip, with_kwargs=True).remove)
        expected = _logits(model, ids_BT)
    _require_same("layers cut", _logits(short, ids_BT), expected)
    with tempfile.TemporaryDirectory() as folder:
        short.save_pretrained(folder)
        loaded = type(short).from_pretrained(folder).eval()
    _require_same("layers cut and saved", _logits(loaded, ids_BT), expected)
    return "right"


def _adapters(name: str, ids_BT: torch.Tensor) -> str:
    """Train adapters for two steps, and compare the model before and after they are merged."""
    model = build(name)
    before = _logits(model, ids_BT)
    adapted = add_adapters(model, rank=2, seed=0)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(2):  # the first step changes only one of the two low-rank matrices
        last_hidden(model, ids_BT).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    expected = _logits(model, ids_BT)
    if torch.allclose(before, expected):
        raise Wrong("adapters: training changed nothing")
    _require_same("adapters merged", _logits(merge_adapters(adapted).eval(), ids_BT), expected)
    return "right"


def _saved(model: Any, ids_BT: torch.Tensor) -> str:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        loaded = type(model).from_pretrained(folder).eval()
    _require_same("saved and loaded", _logits(loaded, ids_BT), _logits(model, ids_BT))
    return "right"


def _require_same(what: str, logits_BTV: torch.Tensor, expected_BTV: torch.Tensor) -> None:
    error = relative_difference(logits_BTV, expected_BTV)
    if not error <= 1e-3:
        raise Wrong(f"{what}: logits differ by {error:.1e} of the largest")


def page(rows: Iterable[Findings]) -> str:
    """Return the table as Markdown."""
    heads = ("architecture", "records", "packed rows", "logits", "layers cut", "LoRA", "saved, loaded", "vLLM")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [f"`{row.name}`", *dataclasses.astuple(row)[1:]]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def read_page() -> dict[str, Findings]:
    """Return the rows of the written table by architecture."""
    rows = (line.removesuffix("|").removeprefix("|").split("|") for line in _table() if line.startswith("| `"))
    cells = ([cell.strip() for cell in row] for row in rows)
    return {name.strip("`"): Findings(name.strip("`"), *rest) for name, *rest in cells}


def write_page(rows: Iterable[Findings]) -> None:
    """Replace the table of the page."""
    PAGE.write_text(PAGE.read_text().split(MARKER)[0] + MARKER + page(rows))


def write_vllm_column(cells: Mapping[str, str]) -> None:
    """Replace cells of the vLLM column of the page.

    Args:
        cells: Cells by architecture.
    """
    rows = read_page()
    write_page(dataclasses.replace(row, vllm=cells.get(name, row.vllm)) for name, row in rows.items())


def _table() -> list[str]:
    return PAGE.read_text().split(MARKER)[1].splitlines()


def main() -> None:
    """Measure the architectures named on the command line, or all."""
    names = [name for name in sys.argv[1:] if not name.startswith("--")] or list(MODELS)
    torch.set_num_threads(1)
    written = read_page()
    rows, wrong = [], []
    for name in names:
        try:
            row = survey(name)
        except Wrong as error:
            wrong.append(f"{name}: {error}")
            continue
        rows.append(dataclasses.replace(row, vllm=written[name].vllm if name in written else ""))
    if "--write" in sys.argv:
        write_page({**written, **{row.name: row for row in rows}}.values())
    else:
        print(page(rows))
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
