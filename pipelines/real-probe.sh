#!/bin/sh
# The standing measurement on real records: the 500 Hz recordings of a PTB-XL folder, fixed recipe, steps and seeds.
# Recipes and prompts are chosen on fold 9; fold 10 is read last, by the two commands at the end. Rerun unchanged after every change.
# Usage: sh pipelines/real-probe.sh PTBXL_FOLDER [WORK_FOLDER]
set -eu
raw=$1
work=${2:-real-probe}
mkdir -p "$work"
rm -rf "$work/shards" "$work/run"

cmelt ingest ptbxl "$raw" "$work/shards" --recipe clinical --records500
cmelt pretrain --shards "$work/shards" --recipe tiny --out "$work/run" --set train.seed=0 \
    --set train.steps=150 --set train.batch=64 --set train.validate_every=50
cmelt probe --task superclass --run "$work/run"
cmelt zeroshot --task superclass --run "$work/run"
