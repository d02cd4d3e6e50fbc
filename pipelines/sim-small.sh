#!/bin/sh
# Make cmelt-sim-small, the model that cmelt ships: simulated records → shards → pre-trained model → half precision, with a card of its figures.
# Stages that are done are passed over, one that was cut off goes on: run it again until it ends. At most two hours on two cores.
# With the shards of real records (cmelt ingest ptbxl PTBXL REAL) it is measured on them too: fold val for choices, test once, at the end.
# Usage: sh pipelines/sim-small.sh [WORK [REAL [FOLD]]]      RECORDS and STEPS may be set; SHIP=cmelt/shipped/cmelt-sim-small puts it in its place
set -eu
work=${1:-sim-small}
real=${2:-}
fold=${3:-val}
run=$work/run
model=$work/cmelt-sim-small
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-2}" # sums depend on it in their last bits: the same number, the same bytes
mkdir -p "$work/done" "$work/figures"

stage() { # NAME COMMAND…: do it, unless it was done; keep its seconds
    [ -f "$work/done/$1" ] && return
    name=$1 began=$(date +%s)
    shift
    "$@"
    echo $(($(date +%s) - began)) > "$work/done/$name"
}
train() {
    again=
    [ -f "$run/recipe.json" ] && again=--resume
    cmelt pretrain --shards "$work/shards" --recipe sim-small --out "$run" ${STEPS:+--set train.steps=$STEPS} $again
}
measure() { # NAME SHARDS FOLD COMMAND…; queries: zero-shot by entity queries
    what=$1 shards=$2 of=$3
    shift 3
    for verb in "$@"; do
        by=
        command=$verb
        [ "$verb" = queries ] && command=zeroshot by="--by entities"
        cmelt "$command" $by --run "$model" --shards "$shards" --fold "$of" --json > "$work/figures/$verb-$what.json.part"
        mv "$work/figures/$verb-$what.json.part" "$work/figures/$verb-$what.json"
    done
}

stage simulate cmelt simulate "$work/raw" --records "${RECORDS:-20000}" --seed 8
stage ingest cmelt ingest ptbxl "$work/raw" "$work/shards"
stage pretrain train
stage ship python -m pipelines.ship "$run" "$model"
stage measure-simulated measure simulated "$work/shards" test zeroshot queries
[ -z "$real" ] || stage "measure-real-$fold" measure real "$real" "$fold" zeroshot queries probe
python -m pipelines.ship "$run" "${SHIP:-$model}" --figures "$work/figures" ${KEEP:+--keep}
