#!/bin/sh
# Reports written from ECG tokens: simulated records → shards → a tokenizer of four leads at 50 Hz → a small language model from scratch → its scores.
# With the shards of real records (cmelt ingest ptbxl PTBXL REAL, by the default recipe), the model goes on learning from their training split, and both
# are scored there: fold val for choices, test once, at the end. Stages that are done are passed over, training that was cut off goes on.
# Usage: sh pipelines/generate.sh WORK [REAL [FOLD]]      RECORDS and LIMIT (of the simulated ones that are scored) may be set; SIM names simulated shards that are there already
set -eu
work=$1
real=${2:-}
fold=${3:-val}
sim=${SIM:-$work/shards}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" # sums depend on it in their last bits: the same number, the same bytes
mkdir -p "$work"

train() { # RUN SHARDS OPTIONS…
    run=$1 shards=$2
    shift 2
    [ -f "$run/done" ] && return
    again=
    [ -f "$run/recipe.json" ] && again=--resume
    cmelt generate train --shards "$shards" --tokenizer "$work/tokenizer" --out "$run" --set train.save_every=25 "$@" $again
    touch "$run/done"
}

[ -f "$sim/manifest.json" ] || {
    [ -d "$work/raw" ] || cmelt simulate "$work/raw" --records "${RECORDS:-20000}" --seed 8
    cmelt ingest ptbxl "$work/raw" "$sim"
}
[ -d "$work/tokenizer" ] || cmelt tokenizer train "$sim" --leads I,II,V1,V5 --rate 50 --clip 0.1 --symbols 32 --merges 1000 --records 1000 \
    --out "$work/tokenizer"
train "$work/simulated" "$sim" --set train.validate_every=100
cmelt generate score --run "$work/simulated" --fold test ${LIMIT:+--limit "$LIMIT"}
[ -n "$real" ] || exit 0
train "$work/real" "$real" --model "$work/simulated/writer" --set optim.lr=5e-4 --set train.steps=90 --set train.validate_every=15
cmelt generate score --run "$work/real" --fold "$fold"
