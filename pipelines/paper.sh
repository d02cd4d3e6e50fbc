#!/bin/sh
# The paper, from raw data to its tables: ingest, leak check, report embeddings, pre-training, every downstream table, one page.
# Usage: sh pipelines/paper.sh RAW SHARDS RUNS [--dry-run] [--slurm] [--recipe NAME] [--set VERB.KEY=VALUE] ...   (--help tells the rest)
# RAW holds a folder (or zip) a data set: mimic-iv-ecg, ptb-xl, cpsc2018, csn, cinc2021, code-test. What is missing is named and left out.
# Cut off anywhere, the same line goes on: what a stage has finished is not done again. How long it takes: --dry-run; docs/guides/paper.md
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python}" -m pipelines.paper "$@"
