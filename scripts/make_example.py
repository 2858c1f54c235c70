"""Make docs/examples/: a tiny teacher, its cache over sources of this project, a published run, and scored samples.

    python scripts/make_example.py --out docs/examples/

The teacher is a Llama of two layers that is trained here for a few seconds, with a fixed seed. Everything else is made
by the commands that docs/reproduce.md shows. The test that repeats the run is tests/test_example.py.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("shards/format", "shards/storage")
"""Folders of this project whose files are the corpus."""
VOCABULARY = 384
WINDOW = 128
TEACHER_STEPS = 400
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": 0,
}
TEACHER = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
STUDENT = {"hidden_size": 48, "intermediate_size": 96, "num_hidden_layers": 1}
DUMP = (
    *("teacher-dump", "--model", "teacher", "--data", "sources", "--out", "dumped", "--engine", "transformers"),
    *("--dtype", "float32", "--max-tokens", "8000", "--window-tokens", str(WINDOW), "--task-tokens", "4000"),
    *("--chunk-tokens", "1000", "--decontaminate", "humaneval"),
)
TRAIN = (
    *("student-train", "--shards", "dumped", "--student", "student", "--out", "trained", "--max-steps", "60"),
    *("--batch-tokens", "512", "--learning-rate", "3e-3", "--held-out", "0.3", "--save-every", "20"),
    *("--dtype", "float32", "--threads", "1", "--no-tensorboard", "--no-progress"),
)
SCORE = (
    *("evalkit", "score", "run", "--tasks", "humaneval", "--limit", "4", "--engine", "transformers"),
    *("--dtype", "float32", "--max-new-tokens", "32", "--json", "samples/score.json"),
)


def main() -> None:
    """Make everything in a temporary folder, then put it in place."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "examples", help="folder of the example")
    out = parser.parse_args().out.absolute()
    os.environ["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch, chdir(scratch):
        make()
        for name in ("teacher", "cache", "run", "samples"):
            shutil.rmtree(out / name, ignore_errors=True)
            shutil.copytree(name, out / name)


def make() -> None:
    """Make the example in the current folder. Relative paths keep this machine's out of the records."""
    for folder in SOURCES:
        shutil.copytree(ROOT / folder, Path("sources") / folder, ignore=shutil.ignore_patterns("__pycache__"))
    texts = [path.read_text(encoding="utf-8") for path in sorted(Path("sources").rglob("*.py"))]
    tokenizer = save_tokenizer(texts, Path("teacher"))
    save_teacher([tokenizer(text)["input_ids"] for text in texts], Path("teacher"))
    save_fresh_student(Path("student"))
    run(*DUMP)
    run(*TRAIN)
    run("logit-shards", "publish", "dumped", "cache")
    run("student-train", "--publish", "trained", "run", "--cache-url", "../cache")
    for folder in ("cache", "run"):
        Path(folder, "README.md").unlink()  # a page of the site otherwise
    Path("samples").mkdir()
    run(*SCORE)
    Path("samples/score.html").unlink()


def run(*words: str) -> None:
    """Run a command of this project in this process, so that its record holds no path of this machine."""
    from scripts.cli_reference import COMMANDS

    print("$", " ".join(words), file=sys.stderr)
    sys.argv = list(words)
    try:
        COMMANDS[words[0]].main(list(words[1:]), prog_name=words[0])
    except SystemExit as end:
        if end.code:
            raise


def save_tokenizer(texts: list[str], folder: Path) -> Any:
    """Train a byte-level tokenizer on the corpus, save it, and return it."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<end>", eos_token="<end>")
    fast.save_pretrained(folder)
    return fast


def save_teacher(documents: list[list[int]], folder: Path) -> None:
    """Train the teacher on the corpus and save it in bfloat16."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, **TEACHER))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for batch in batches(documents):
        model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.to(torch.bfloat16).save_pretrained(folder)


def batches(documents: list[list[int]]) -> Iterator[Any]:
    """Yield random windows of the corpus, 8 at a time."""
    import torch

    ids = torch.tensor([token for document in documents for token in (0, *document)])
    for _ in range(TEACHER_STEPS):
        starts = torch.randint(len(ids) - WINDOW, (8,)).tolist()
        yield torch.stack([ids[start : start + WINDOW] for start in starts])


def save_fresh_student(folder: Path) -> None:
    """Save the configuration and the tokenizer of a student without weights: it starts fresh, by the run's seed."""
    from transformers import LlamaConfig

    LlamaConfig(**SIZES, **STUDENT, architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(Path("teacher") / name, folder / name)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()
