"""Print the requirements of vLLM, one per line, without packages that exist as CUDA builds only.

torch is installed before. torchvision, torchaudio and torchcodec are not needed to prefill text, and their CUDA builds
break transformers beside a CPU build of torch.
"""

from __future__ import annotations

import importlib.metadata
import sys

from packaging.requirements import Requirement

EXCLUDED = {"torch", "torchaudio", "torchvision", "torchcodec"}


def main(distribution: str) -> None:
    """Print the requirements of an installed distribution that apply to this environment."""
    for line in importlib.metadata.requires(distribution) or []:
        requirement = Requirement(line)
        if requirement.name in EXCLUDED or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        requirement.marker = None
        print(requirement)


if __name__ == "__main__":
    main(sys.argv[1])
