#!/bin/sh
# Pre-train on simulated and real training records, probe on real ones, beside controls and baselines on the same draws; in resumable stages.
# Fold val, the default, is for choices: the test fold is not touched. The last command says test: it is then scored, once, and written down.
# Usage: sh pipelines/real-transfer.sh PTBXL SIM_SHARDS WORK [val|test] [OPTIONS]      options: --recipe, --set, --seeds, --count
# PTBXL is the unpacked download at 500 Hz; SIM_SHARDS what cmelt ingest made of cmelt simulate with --set signal.fs_hz=100, as here of PTBXL.
set -eu
raw=$1
sim=$2
work=$3
fold=${4:-val}
shift 3
[ $# -gt 0 ] && shift
mkdir -p "$work"

[ -f "$work/real/manifest.json" ] || cmelt ingest ptbxl "$raw" "$work/real" --set signal.fs_hz=100
python -m pipelines.evidence.transfer "$work/stages" --sim "$sim" --real "$work/real" --fold "$fold" \
    --recipe few-records --set 'data.weights={ptbxl = 1, ptbxl-simulated = 5}' "$@"
