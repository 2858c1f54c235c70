"""What does vLLM need beside itself? Its requirements without the packages that only come as CUDA builds.

torch is installed before; torchvision, torchaudio and torchcodec are not needed to prefill text, and their CUDA
builds break transformers beside a CPU build of torch. Prints one requirement a line.
"""

from __future__ import annotations

import importlib.metadata
import sys

from packaging.requirements import Requirement

LEFT_OUT = {"torch", "torchaudio", "torchvision", "torchcodec"}


def main(distribution: str) -> None:
    """Print the requirements of an installed distribution that apply here."""
    for line in importlib.metadata.requires(distribution) or []:
        requirement = Requirement(line)
        if requirement.name in LEFT_OUT or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        requirement.marker = None
        print(requirement)


if __name__ == "__main__":
    main(sys.argv[1])
