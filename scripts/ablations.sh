#!/usr/bin/env bash
# Train every variant in configs/ablations with the given seeds, one after another, and keep runs/ablations/NAME-SEED:
#
#   scripts/ablations.sh DIR_WITH_MNIST [SEED...]      # seeds 1 2 3 by default
#
# Runs that are finished are not repeated. `scripts/tables.py ablations runs/ablations` prints the table of
# docs/ablations.md.
# LSGM names the binary, RUNS the folder of the runs, THREADS the threads of a training.
set -euo pipefail
data=${1:?usage: scripts/ablations.sh DIR_WITH_MNIST [SEED...]}
shift
cd "$(dirname "$0")/.."
lsgm=${LSGM:-target/release/lsgm}
runs=${RUNS:-runs/ablations}
[ $# -gt 0 ] || set -- 1 2 3
for seed in "$@"; do
  for config in configs/ablations/*.toml; do
    run=$runs/$(basename "$config" .toml)-$seed
    if [ ! -f "$run/evaluation.json" ]; then
      rm -rf "$run"
      "$lsgm" --quiet --threads "${THREADS:-1}" train "$config" --data "$data" --seed "$seed" --out "$run"
    fi
    if [ ! -f "$run/samples.json" ]; then
      "$lsgm" --quiet --threads "${THREADS:-1}" evaluate "$run" --limit 100 --bound nelbo \
        --samples 2000 --solver heun --steps 10 --json "$run/samples.json"
    fi
  done
done
