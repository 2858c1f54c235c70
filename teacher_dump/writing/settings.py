"""Settings of writing, validated once. A field with a help text is also a command-line option."""

from __future__ import annotations

from dataclasses import dataclass, field

from teacher_dump.errors import DumpError

MAX_SAMPLES = 100_000
"""Most responses to one prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WritingSettings:
    """What is written, and how it is sampled."""

    prompts: str | None = field(
        default=None,
        metadata={
            "metavar": "PROMPTS",
            "default_text": "none: record --data",
            "help": "Write responses to these prompts, then record them: JSONL or parquet with `prompt` or `messages`, "
            "a hub data set, mbpp:train, mbpp:validation, or signatures:FOLDER, the documented functions of a folder.",
        },
    )
    writer: str | None = field(
        default=None,
        metadata={
            "metavar": "NAME",
            "default_text": "the teacher",
            "help": "Model that writes: a short name, a hub id or a folder, such as a checkpoint of the student.",
        },
    )
    writer_tensor_parallel_size: int | None = field(
        default=None,
        metadata={
            "default_text": "--tensor-parallel-size, or 1 with --writer",
            "help": "GPUs that the writer's layers are split over.",
        },
    )
    samples: int = field(default=1, metadata={"help": "Responses to each prompt."})
    temperature: float = field(default=1.0, metadata={"help": "Temperature of the samples; 0 is greedy."})
    top_p: float = field(default=1.0, metadata={"help": "Sample from the smallest set of tokens with this mass."})
    max_new_tokens: int = field(default=512, metadata={"help": "Most tokens of a response, end of turn included."})
    responses_only: bool = field(
        default=False,
        metadata={"help": "Stop after writing: --out holds responses.jsonl, which `evalkit score --samples` reads."},
    )
    answers_per_task: int = field(
        default=256,
        metadata={"help": "Responses of a writing task; a crash loses at most the tasks that are being written."},
    )

    def __post_init__(self) -> None:
        limits = {"samples": MAX_SAMPLES, "max_new_tokens": None, "answers_per_task": None}
        for name, most in {**limits, "writer_tensor_parallel_size": None}.items():
            value = getattr(self, name)
            if value is None:
                continue
            if value < 1 or (most is not None and value > most):
                raise DumpError(f"{name}: found {value}, expected at least 1" + (f", at most {most:,}" if most else ""))
        if not 0 <= self.temperature <= 100:
            raise DumpError(f"temperature: found {self.temperature:g}, expected 0 to 100")
        if not 0 < self.top_p <= 1:
            raise DumpError(f"top_p: found {self.top_p:g}, expected a share above 0, at most 1")
        if self.temperature == 0 and self.samples > 1:
            raise DumpError(
                f"--samples {self.samples}: found --temperature 0, with which all responses to a prompt are the same; "
                "give a temperature, or one sample"
            )
        if self.prompts is None and (self.writer is not None or self.responses_only):
            option = "--writer" if self.writer is not None else "--responses-only"
            raise DumpError(f"{option}: found no prompts to respond to; give --prompts")

    def parallel_sizes(self, tensor_parallel_size: int, pipeline_parallel_size: int) -> tuple[int, int]:
        """Return the numbers of GPUs that the writer's layers are split over, and of groups that each have some layers.

        Args:
            tensor_parallel_size: That of the teacher. It does not apply to another model, which may be too small.
            pipeline_parallel_size: That of the teacher, likewise.
        """
        is_teacher = self.writer is None
        own = self.writer_tensor_parallel_size or (tensor_parallel_size if is_teacher else 1)
        return own, pipeline_parallel_size if is_teacher else 1
