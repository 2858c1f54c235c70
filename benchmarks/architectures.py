"""Survey what is right, slower or refused for each architecture: docs/architectures.md.

    python -m benchmarks.architectures                 # the table, to standard output
    python -m benchmarks.architectures --write         # to docs/architectures.md
    python -m benchmarks.architectures llama gemma2    # some of them

Each architecture is a random model of four layers. Its records are compared with its own logits, packed rows with rows
alone, a cut model with the layers in place, adapters before and after the merge, and a saved folder with what was
saved. A refusal is one line of an error of ours. Anything else that differs raises.
"""

from __future__ import annotations

import dataclasses
import sys
import tempfile
import textwrap
from collections.abc import Callable
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
from student_train.model.probe import difference, last_hidden
from student_train.pruning.shorten import shorten
from teacher_dump.engines.base import EngineConfig
from teacher_dump.engines.records import Records, RecordSpec
from teacher_dump.engines.registry import start_engine
from teacher_dump.errors import DumpError
from teacher_dump.tasks.windowing import Window

PAGE = Path(__file__).resolve().parent.parent / "docs" / "architectures.md"
LENGTHS = (48, 33, 20, 7)
"""Tokens of the rows: longer than the windows of local attention in `tiny_models`."""
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
"""Largest accepted difference of a recorded probability, by the teacher's type."""
KEPT = (0, 2, 3)
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
    """One row of the table: a few words in each cell; "" where a refusal before it left nothing to try."""

    name: str
    records: str
    packing: str = ""
    head: str = ""
    cut: str = ""
    lora: str = ""
    saved: str = ""


class Wrong(AssertionError):
    """A result that differs without a refusal."""


def survey(name: str) -> Findings:
    """Return what holds for one of `MODELS`. Raises: Wrong for anything that is silently different."""
    model = build(name)
    ids = torch.randint(8, 60, (len(LENGTHS), max(LENGTHS)), generator=torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        records = _or_refused(lambda: _records(model, Path(folder), ids)).replace(f"{folder}: ", "")
    found = Findings(name=name, records=records)
    try:
        require_projection(model)
        logit_map = find_logit_map(model)
        layout = choose_layout(model)
    except StudentError as error:
        return dataclasses.replace(found, packing=_refusal(error))
    _require_packed_is_alone(model, layout, ids)
    return dataclasses.replace(
        found,
        packing=SHARED[layout.name],
        head=_head(logit_map),
        cut=_or_refused(lambda: _cut(model, ids)),
        lora=_or_refused(lambda: _adapters(name, ids)),
        saved=_or_refused(lambda: _saved(model, ids)),
    )


def _or_refused(measure: Callable[[], str]) -> str:
    try:
        return measure()
    except REFUSALS as error:
        return _refusal(error)


def _refusal(error: Exception) -> str:
    text = str(error)
    if "\n" in text or "open an issue" in text:
        raise Wrong(f"a refusal that is not one line of ours: {text}") from None
    found = text.split("found ", 1)[-1].split("; expected")[0].split(", expected")[0]
    return f"{REFUSED}: {textwrap.shorten(found, 130, placeholder=' ...')}"


def _logits(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits.float()


def _records(model: Any, folder: Path, ids: torch.Tensor) -> str:
    """Compare records with the model's own logits, in both types."""
    spec = RecordSpec()
    info = RowInfo(document="0" * 64, window=0, byte_start=0, byte_end=1, source="", path="", licence="")
    windows = [Window(info=info, tokens=ids[i, :n].numpy().astype(np.int32)) for i, n in enumerate(LENGTHS)]
    for dtype, tolerance in TOLERANCE.items():
        own = type(model).from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        vocab = own.get_output_embeddings().weight.shape[0]
        teaching = EngineConfig(
            folder=folder,
            vocab_size=vocab,
            spec=spec,
            seed=0,
            dtype=dtype,
            window_tokens=64,
            tensor_parallel_size=1,
            whitespace_ids=(1,),
        )
        threads = torch.get_num_threads()
        engine = start_engine("transformers", teaching)
        torch.set_num_threads(threads)  # the engine takes every core, which tiny models do not need
        packed = list(engine.capture(windows))
        engine.close()
        for window, one in zip(windows, packed, strict=True):
            tokens = torch.from_numpy(window.tokens.astype(np.int64))
            p_PV = _logits(own, tokens[None])[0, :-1, :vocab].softmax(1)
            record = Records.unpack(torch.from_numpy(one), spec)
            kept = record.head_ids >= 0
            at_PK = p_PV.gather(1, record.head_ids.clamp_min(0).long())
            worst = float((at_PK - record.head_probs)[kept].abs().max())
            realised = record.scalars[:, 0].exp() - p_PV.gather(1, tokens[1:, None])[:, 0]
            worst = max(worst, float(realised.abs().max()))
            if not worst <= tolerance:
                raise Wrong(f"records in {dtype}: probabilities off by {worst:.1e}")
    return "right"


def _require_packed_is_alone(model: Any, layout: PackingLayout, ids: torch.Tensor) -> None:
    rows = [ids[i, :n] for i, n in enumerate(LENGTHS)]
    with torch.no_grad():
        for part in [rows] if layout.name != "single" else [[row] for row in rows]:
            packed = arrange([row.numpy() for row in part], layout=layout.name, widest=layout.widest)
            inputs = inputs_of(
                model,
                position_ids_BT=packed.position_ids_BT,
                attention_mask_B1TT=packed.attention_mask_B1TT,
                layout=layout.name,
            )
            hidden = last_hidden(model, packed.tokens_BT, **inputs).flatten(0, 1)
            for start, row in zip(packed.starts.tolist(), part, strict=True):
                share = difference(hidden[start : start + len(row)], last_hidden(model, row[None])[0])
                if not share <= 1e-3:
                    raise Wrong(f"packed rows: hidden states off by {share:.1e} of the largest")


def _head(logit_map: LogitMap) -> str:
    scale = "" if logit_map.scale == 1.0 else f"scaled by {logit_map.scale:.4g}"
    cap = f"capped at {logit_map.cap:.4g}" if logit_map.cap else ""
    return ", ".join(part for part in (scale, cap) if part) or "plain"


def _cut(model: Any, ids: torch.Tensor) -> str:
    """Compare a model of fewer layers, and the folder saved from it, with the layers in place."""
    short = shorten(model, KEPT).eval()

    def hand_on(_: Any, args: Any, named: Any, output: Any) -> Any:
        hidden = args[0] if args else named["hidden_states"]
        return type(output)([hidden, *output[1:]]) if isinstance(output, list | tuple) else hidden

    with ExitStack() as hooks:
        for i, layer in enumerate(layers_of(model)):
            if i not in KEPT:
                hooks.callback(layer.register_forward_hook(hand_on, with_kwargs=True).remove)
        expected = _logits(model, ids)
    _require_same("layers cut", _logits(short, ids), expected)
    with tempfile.TemporaryDirectory() as folder:
        short.save_pretrained(folder)
        _require_same("layers cut and saved", _logits(type(short).from_pretrained(folder).eval(), ids), expected)
    return "right"


def _adapters(name: str, ids: torch.Tensor) -> str:
    """Train adapters for a step, and compare the model before and after they are merged."""
    model = build(name)
    before = _logits(model, ids)
    adapted = add_adapters(model, rank=2, seed=0)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2)
    for _ in range(2):  # the first step moves one of the two thin matrices only
        last_hidden(model, ids).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    expected = _logits(model, ids)
    if torch.allclose(before, expected):
        raise Wrong("adapters: a step changed nothing")
    _require_same("adapters merged", _logits(merge_adapters(adapted).eval(), ids), expected)
    return "right"


def _saved(model: Any, ids: torch.Tensor) -> str:
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        _require_same("saved and loaded", _logits(type(model).from_pretrained(folder).eval(), ids), _logits(model, ids))
    return "right"


def _require_same(what: str, found: torch.Tensor, expected: torch.Tensor) -> None:
    share = difference(found, expected)
    if not share <= 1e-3:
        raise Wrong(f"{what}: logits off by {share:.1e} of the largest")


def page(rows: list[Findings]) -> str:
    """Return the table as Markdown."""
    heads = ("architecture", "records", "packed rows", "logits", "layers cut", "LoRA", "saved, loaded")
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        cells = [f"`{row.name}`", row.records, row.packing, row.head, row.cut, row.lora, row.saved]
        lines.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def read_page() -> dict[str, Findings]:
    """Return the rows of the written table by architecture."""
    rows = (line.strip("|").split("|") for line in PAGE.read_text().splitlines() if line.startswith("| `"))
    cells = ([cell.strip() for cell in row] for row in rows)
    return {name.strip("`"): Findings(name.strip("`"), *rest) for name, *rest in cells}


def main() -> None:
    """Survey the architectures named on the command line, or all."""
    names = [name for name in sys.argv[1:] if not name.startswith("--")] or list(MODELS)
    torch.set_num_threads(1)
    rows, wrong = [], []
    for name in names:
        try:
            rows.append(survey(name))
        except Wrong as error:
            wrong.append(f"{name}: {error}")
    table = page(rows)
    if "--write" in sys.argv:
        marker = "<!-- table -->\n"
        PAGE.write_text(PAGE.read_text().split(marker)[0] + marker + table)
    else:
        print(table)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    main()
