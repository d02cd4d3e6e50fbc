#!/bin/sh
# What each part of C-MELT is worth, on simulated and real records: about an hour on two cores, in stages of minutes; run it again to go on.
# Usage: sh pipelines/evidence.sh PTBXL WORK [OPTIONS]      options: --set, --seeds, --count (so many stages now), --keep (keep the table)
set -eu
raw=$1
work=$2
shift 2
mkdir -p "$work"

[ -f "$work/raw/ptbxl_database.csv" ] || cmelt simulate "$work/raw" --records 2000 --seed 9
[ -f "$work/sim/manifest.json" ] || cmelt ingest ptbxl "$work/raw" "$work/sim"
[ -f "$work/real/manifest.json" ] || cmelt ingest ptbxl "$raw" "$work/real"
python -m pipelines.evidence.bench "$work/bench" --sim "$work/sim" --real "$work/real" \
    --set train.steps=150 --set 'data.weights={ptbxl = 0.3, ptbxl-simulated = 0.7}' \
    --set model.entity_heads=0 --set objectives.entities=0 "$@"
