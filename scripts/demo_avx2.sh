#!/usr/bin/env bash
# Run a reduced demo with oneDNN and ATen capped to AVX2. A step that computes in bfloat16 there takes 50 times as long
# and exceeds the time limit. docs/compatibility.md lists what the caps imitate.
set -euo pipefail
cd "$(dirname "$0")/.."
export ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2
DEMO_OUT=$(mktemp -d)
export DEMO_OUT DEMO_TOKENS=5000 DEMO_LAYERS=4 DEMO_STEPS=2 DEMO_LIMIT=4
trap 'rm -rf "$DEMO_OUT"' EXIT
timeout --foreground "${DEMO_LIMIT_S:-1800}" scripts/demo.sh
.venv/bin/python - "$DEMO_OUT" <<'EOF'
"""Check that every step computed in float32."""
import json
import sys
from pathlib import Path

out = Path(sys.argv[1])
dtypes = {
    "teacher-dump": json.loads((out / "shards/manifest.json").read_bytes())["engine"]["dtype"],
    "student-train": json.loads((out / "ckpt/run.json").read_bytes())["hardware"]["dtype"],
    "evalkit": json.loads((out / "humaneval.json").read_bytes())["generation"]["dtype"],
}
print(f"dtypes on a processor capped to AVX2: {dtypes}")
sys.exit(f"demo_avx2: the dtypes are {dtypes}, expected float32 everywhere" if set(dtypes.values()) != {"float32"} else 0)
EOF
