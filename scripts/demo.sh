#!/usr/bin/env bash
# Run the whole pipeline on this machine: dump a teacher's records, train a student, score it, write a report.
# Each step resumes from or reuses the files of an earlier run in demo/.
# DEMO_* variables reduce its size; scripts/demo_avx2.sh sets them.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
out=${DEMO_OUT:-demo}
mkdir -p "$out"

run() {
    printf '\n$ %s\n' "$*"
    "$bin/$1" "${@:2}"
}

begin=$SECONDS
run teacher-dump --model smollm2-135m --data stdlib --out "$out/shards/" --max-documents 200 \
    --max-tokens "${DEMO_TOKENS:-12800}" --window-tokens 256 --task-tokens 4096
run student-train --shards "$out/shards/" --out "$out/ckpt/" --student teacher \
    --student-layers "${DEMO_LAYERS:-26}" --control --max-steps "${DEMO_STEPS:-7}" --batch-tokens 1024 \
    --micro-tokens 1024 --learning-rate 1e-4 --warmup 0.15 --ce-weight 0.1 --held-out 0.2
run evalkit score "$out/ckpt/" --tasks humaneval --max-new-tokens 64 --batch-size 41 \
    ${DEMO_LIMIT:+--limit "$DEMO_LIMIT"} --json "$out/humaneval.json"
run evalkit report "$out/ckpt/" --score "$out/humaneval.json" --out "$out/report.html" --markdown "$out/report.md"
run logit-shards inspect "$out/shards/" --row 5 --html "$out/row.html"
printf '\nThe pipeline took %d s. Look at %s/report.html (curves, completions, what to do next) and %s/row.html (a row\n' \
    $((SECONDS - begin)) "$out" "$out"
printf "with the teacher's choices).\n"
