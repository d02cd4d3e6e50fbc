#!/bin/sh
# The whole main job on simulated data: raw records → shards → pre-trained model → probe, zero-shot, one page.
# Usage: sh pipelines/demo.sh [FOLDER]      about six minutes on two cores, no GPU, no network
set -eu
demo=${1:-demo}
mkdir -p "$demo"
rm -rf "$demo/raw" "$demo/raw.part" "$demo/shards" "$demo/run"

cmelt simulate "$demo/raw" --records 4500 --seed 1
cmelt ingest ptbxl "$demo/raw" "$demo/shards" --set signal.fs_hz=100
cmelt verify "$demo/shards"
cmelt inspect "$demo/shards"
cmelt pretrain --shards "$demo/shards" --recipe tiny --out "$demo/run" \
    --set train.steps=540 --set train.validate_every=180 --set train.save_every=180
cmelt probe --task superclass --run "$demo/run"
cmelt zeroshot --task superclass --run "$demo/run"
cmelt report "$demo/run" --out "$demo/report.html"
