#!/usr/bin/env bash
# Run the demo's steps, small, with oneDNN and ATen capped to AVX2: a step that asks for bfloat16 there takes 50 times
# as long and runs into the time limit. What the caps can and cannot imitate is in docs/compatibility.md.
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
found = {
    "teacher-dump": json.loads((out / "shards/manifest.json").read_bytes())["engine"]["dtype"],
    "student-train": json.loads((out / "ckpt/run.json").read_bytes())["hardware"]["dtype"],
    "evalkit": json.loads((out / "humaneval.json").read_bytes())["generation"]["dtype"],
}
print(f"dtypes on a processor capped to AVX2: {found}")
sys.exit(f"demo_avx2: found {found}, expected float32 everywhere" if set(found.values()) != {"float32"} else 0)
EOF
