#!/usr/bin/env bash
# The main job on this machine: a teacher becomes shards, a student learns from them, both are measured.
# Every step continues or reuses what an earlier run left in demo/.
set -euo pipefail
cd "$(dirname "$0")/.."
bin=.venv/bin
mkdir -p demo

run() {
    printf '\n$ %s\n' "$*"
    "$bin/$1" "${@:2}"
}

begin=$SECONDS
run teacher-dump --model smollm2-135m --data stdlib --out demo/shards/ \
    --max-tokens 28000 --window-tokens 512 --task-tokens 8192
run student-train --shards demo/shards/ --out demo/ckpt/ --student teacher --student-layers 4 --control \
    --max-steps 28 --batch-tokens 2048 --micro-tokens 2048 --learning-rate 6e-4 --warmup 0.15 \
    --dtype bfloat16 --held-out 0.2
run evalkit score demo/ckpt/ --tasks humaneval --max-new-tokens 128 --json demo/humaneval.json
run evalkit report demo/ckpt/ --score demo/humaneval.json --out demo/report.html --markdown demo/report.md
printf '\nThe main job took %d s. Open demo/report.html for the pictures.\n' $((SECONDS - begin))
