#!/usr/bin/env bash
# Run the main job on this machine: a teacher becomes shards, a student learns from them, both are measured.
# Every step resumes or reuses what an earlier run left in demo/.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
mkdir -p demo

run() {
    printf '\n$ %s\n' "$*"
    "$bin/$1" "${@:2}"
}

begin=$SECONDS
run teacher-dump --model smollm2-135m --data stdlib --out demo/shards/ --max-documents 200 \
    --max-tokens 9600 --window-tokens 256 --task-tokens 4096
run student-train --shards demo/shards/ --out demo/ckpt/ --student teacher --student-layers 26 --control \
    --max-steps 7 --batch-tokens 1024 --micro-tokens 1024 --learning-rate 1e-4 --warmup 0.15 --ce-weight 0.1 \
    --held-out 0.2
run evalkit score demo/ckpt/ --tasks humaneval --max-new-tokens 64 --batch-size 41 --json demo/humaneval.json
run evalkit report demo/ckpt/ --score demo/humaneval.json --out demo/report.html --markdown demo/report.md
printf '\nThe main job took %d s. Open demo/report.html for the pictures.\n' $((SECONDS - begin))
