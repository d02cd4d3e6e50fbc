#!/bin/sh
# How probe and zero-shot on real records grow with simulated records, steps and model size; in resumable stages, run it again to go on.
# Usage: sh pipelines/scaling.sh PTBXL WORK [OPTIONS]      RECORDS may be set; options: --set, --seeds, --count (so many stages now), --keep
set -eu
raw=$1
work=$2
shift 2
mkdir -p "$work"

[ -f "$work/raw/ptbxl_database.csv" ] || cmelt simulate "$work/raw" --records "${RECORDS:-20000}" --seed 8
[ -f "$work/sim/manifest.json" ] || cmelt ingest ptbxl "$work/raw" "$work/sim"
[ -f "$work/real/manifest.json" ] || cmelt ingest ptbxl "$raw" "$work/real"
python -m pipelines.evidence.scaling "$work/stages" --sim "$work/sim" --real "$work/real" --set train.steps=300 "$@"
