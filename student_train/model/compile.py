"""How is the student compiled? Layer by layer, in place, by torch.compile.

All layers share one compiled program, which is made at the first step (a minute or so) and holds for every shape. Names
of parameters stay as they are, so checkpoints do not notice. Compiled arithmetic rounds otherwise than plain: a run is
repeatable with it and without it, but not from one to the other.
"""

from __future__ import annotations

import os
import shutil
from typing import Any

from student_train.errors import TrainError
from student_train.model.parts import layers_of


def compile_layers(model: Any, *, device_type: str) -> None:
    """Compile each layer of `model`, before it is split over ranks. Raises: TrainError where there is no compiler."""
    compiler = os.environ.get("CXX", "g++")
    if device_type == "cpu" and shutil.which(compiler) is None:
        raise TrainError(
            f"compile: found no {compiler}, expected a C++ compiler, as torch.compile writes C++ on a CPU; install "
            "one, or use --no-compile"
        )
    for layer in layers_of(model):
        layer.compile(dynamic=True)
