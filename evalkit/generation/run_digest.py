"""The digest of a run: of everything that determines the samples, so that a file of samples is reused or is not.

In version 0.2.0 every digest covered the batch size, and none the benchmark. `RunDigest.earlier` is what that version
called the same run. It is None where a file of that version is more likely to hold answers to other prompts.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from evalkit.generation.base import EngineSettings
from evalkit.generation.checkpoint import Checkpoint
from evalkit.outputs.files import sha256_text
from evalkit.request import GenerationRequest
from evalkit.samples.base import SamplePlan
from evalkit.samples.sample_file import EarlierRun
from evalkit.tasks.base import Benchmark
from evalkit.tasks.presets import PromptProtocol
from evalkit.tasks.protocols import find


@dataclass(frozen=True, kw_only=True, slots=True)
class RunDigest:
    """The digest of a run, and what an earlier version called it."""

    run: str
    earlier: EarlierRun | None = None

    def derived(self, *parts: object) -> RunDigest:
        """Return the digest of a run that depends on this one and on more settings."""
        earlier = None
        if self.earlier is not None:
            earlier = self.earlier._replace(run=_digest([self.earlier.run, *parts]))
        return RunDigest(run=_digest([self.run, *parts]), earlier=earlier)


def run_digest(
    checkpoint: Checkpoint, plan: SamplePlan, settings: EngineSettings, request: GenerationRequest
) -> RunDigest:
    """Return the digest of everything that determines the samples of a plan.

    The batch size is a part of it in deterministic runs only: in others it decides nothing but rounding.

    Args:
        checkpoint: The checkpoint that generates.
        plan: The benchmark and the protocol.
        settings: The engine's settings.
        request: Source of the seed and of the documentation in prompts.
    """
    assert plan.protocol is not None
    protocol, benchmark = plan.protocol, plan.benchmark
    parts = [checkpoint.sha256, recorded(protocol), settings.run_dict(), request.seed]
    earlier_parts = [checkpoint.sha256, recorded(protocol), asdict(settings), request.seed]
    if request.retrieval is not None:
        from evalkit.tools.docs.retrieval import settings_record

        parts.append(record := settings_record(request.retrieval))
        earlier_parts.append(record)
    parts.append(benchmark.sha256)
    earlier = None
    if _whole(benchmark.name) == _usual_benchmark(protocol):
        earlier = EarlierRun(_digest(earlier_parts), changed=_reduced_otherwise(benchmark))
    return RunDigest(run=_digest(parts), earlier=earlier)


def recorded(protocol: PromptProtocol) -> dict[str, Any]:
    """Return the settings of a protocol without those that are off.

    A setting that a later version adds then leaves the samples of earlier runs valid.
    """
    described = ("visible_tests",)  # says what the prompt form shows, and decides nothing
    return {key: value for key, value in protocol.to_dict().items() if value is not False and key not in described}


def _usual_benchmark(protocol: PromptProtocol) -> str:
    """Return the benchmark whose answers a file of 0.2.0 is taken to hold.

    Of the benchmarks that a protocol covers it is the one whose default the protocol is, or else the one with the
    shortest name, of which the others are editions.
    """
    name = protocol.name.partition("+")[0]  # without `+changed` and the names of tools
    own = [task for task in protocol.tasks if find(None, task=task, kind=protocol.kind).name == name]
    return _whole(own[0] if own else min(protocol.tasks, key=len))


def _whole(benchmark: str) -> str:
    """Return the name of the benchmark that `benchmark` is a part of: the ids of its parts differ."""
    return benchmark.partition(":")[0]


def _reduced_otherwise(benchmark: Benchmark) -> frozenset[str]:
    """Return the tasks of which 0.2.0 kept only the first name that the checks use, and what that name needs."""
    return frozenset(problem.task_id for problem in benchmark.problems if len(problem.entry_points) > 1)


def _digest(parts: list[Any]) -> str:
    return sha256_text(json.dumps(parts))[:16]
