#!/usr/bin/env bash
# Draw samples from a trained run with every solver, and measure them; the JSON files go to RUN/solvers:
#
#   scripts/solvers.sh RUN DIR_WITH_DATA [SAMPLES]     # 1000 samples by default
#
# All solvers start from the same noise. `scripts/tables.py solvers RUN/solvers` prints the table of docs/solvers.md.
# LSGM names the binary, THREADS the threads.
set -euo pipefail
run=${1:?usage: scripts/solvers.sh RUN DIR_WITH_DATA [SAMPLES]}
data=${2:?usage: scripts/solvers.sh RUN DIR_WITH_DATA [SAMPLES]}
samples=${3:-1000}
lsgm=${LSGM:-target/release/lsgm}
mkdir -p "$run/solvers"

measure() { # NAME ARGUMENTS...
  [ -f "$run/solvers/$1.json" ] && return
  "$lsgm" --quiet --threads "${THREADS:-2}" evaluate "$run" --data "$data" --limit 100 --bound nelbo \
    --set evaluate.reconstruction_items=0 --samples "$samples" --json "$run/solvers/$1.json" "${@:2}" >/dev/null
}

for tol in 1e-5 1e-3; do measure "rk45 $tol" --solver rk45 --tol "$tol"; done
for steps in 3 4 5 6; do measure "heun $steps" --solver heun --steps "$steps"; done
for grid in uniform karras; do measure "heun 6 $grid" --solver heun --steps 6 --grid "$grid"; done
for solver in dpm-solver-2m dpm-solver-3m dpm-solver-sde-2m adams-bashforth; do
  for steps in 8 12; do measure "$solver $steps" --solver "$solver" --steps "$steps"; done
done
measure "ddim 12" --solver ddim --steps 12
for solver in euler-maruyama ancestral; do measure "$solver 50" --solver "$solver" --steps 50; done
measure "predictor-corrector 25" --solver predictor-corrector --steps 25
