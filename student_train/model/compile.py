"""Compile the layers of a student in place with torch.compile.

All layers share one compiled program, which serves every shape. The first step compiles it, in about a minute. Names
of parameters do not change, so checkpoints are compatible. Compiled arithmetic rounds differently: a run is repeatable
with compilation and without it, but not from one to the other.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from student_train.errors import TrainError
from student_train.model.parts import layers_of


def compile_layers(model: Any, *, device_type: str) -> None:
    """Compile each layer of a model, before its parameters are split over ranks.

    Args:
        model: transformers causal language model.
        device_type: Type of the device that trains, `cpu` or `cuda`.

    Raises:
        TrainError: There is no compiler.
    """
    compiler = os.environ.get("CXX", "g++")
    if device_type == "cpu" and shutil.which(compiler) is None:
        raise TrainError(
            f"compile: found no {compiler}, expected a C++ compiler, as torch.compile writes C++ on a CPU; install "
            "one, or use --no-compile"
        )
    for layer in layers_of(model):
        layer.compile(dynamic=True)
