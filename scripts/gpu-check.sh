#!/usr/bin/env bash
# On a GPU machine: scripts/gpu-check.sh [DIR] [REPORT]
#
# Runs what scripts/build-cuda.sh left in DIR (target/cuda-out): the tests that hold the GPU's results to the CPU's, trainings in f32
# and bf16, one that goes on between GPU and CPU, sampling, and the benches; ten minutes at most. Writes REPORT (gpu-report.txt), which
# begins with the card's name, and the benches' tables beside it. Fails where a test fails or the GPU cannot be used. The benches
# need a Python with PyTorch and SciPy (PYTHON, python3).
set -uo pipefail
cd "$(dirname "$0")/.."
dir=$(realpath "${1:-target/cuda-out}")
report=$(realpath -m "${2:-gpu-report.txt}")
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
deadline=$((SECONDS + 590))

# Where CUDA's libraries are not installed, a PyTorch install brings them.
for lib in $("$python" -c 'import glob, site; print(*[p for s in site.getsitepackages() for p in glob.glob(s + "/nvidia/*/lib")])' 2>/dev/null); do
  LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$lib
done
export LD_LIBRARY_PATH

failed=0
# section TITLE SECONDS COMMAND...: a command, or what there is time for.
section() {
  local title=$1 limit=$2 started=$SECONDS
  shift 2
  echo "== $title"
  if [ $((deadline - SECONDS)) -lt 5 ]; then
    echo "-- not run: the ten minutes are over"
    failed=1
    return
  fi
  [ $((deadline - SECONDS)) -ge "$limit" ] || limit=$((deadline - SECONDS))
  timeout "$limit" "$@" 2>&1
  local status=$?
  echo "-- exit code $status after $((SECONDS - started)) s"
  echo
  [ $status -eq 0 ] || failed=1
}

# part SECONDS DEVICE [ARGUMENT...]: some of the training of a run, which stops there as it would at Ctrl-C.
part() {
  local seconds=$1 device=$2 status
  shift 2
  timeout --foreground --signal=INT "$seconds" "$dir/lsgm" train configs/quickstart.toml --device "$device" --out "$scratch/moved" --quiet "$@"
  status=$?
  [ $status -eq 0 ] || [ $status -eq 124 ] || [ $status -eq 130 ]
}
moved_training() {
  part 10 cuda && part 10 cpu --resume && part 10 cuda --resume && "$dir/lsgm" sample "$scratch/moved" --count 4 \
    --out "$scratch/moved.png" --device cpu
}
export -f part moved_training
export dir scratch

check() {
  echo "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no GPU: nvidia-smi finds none")"
  echo "$(date -u '+%Y-%m-%d %H:%M') UTC, lsgm at $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
  echo
  section "devices" 30 "$dir/lsgm" devices
  for test in cuda composed devices; do
    section "$test" 120 "$dir/tests/$test" --nocapture
  done
  local train=("$dir/lsgm" train configs/quickstart.toml --device cuda --time-budget 25s --quiet)
  section "a training" 60 "${train[@]}" --out "$scratch/run"
  section "a training in bf16" 60 "${train[@]}" --out "$scratch/bf16" --set train.precision=bf16
  section "a training that moves from the GPU to the CPU and back" 60 bash -c moved_training
  section "256 samples" 40 "$dir/lsgm" sample "$scratch/run" --count 256 --out "$scratch/gpu.png" --tol 1e-5 --device cuda
  if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    local compare=("$python" benches/compare/compare.py --device cuda --rust "$dir/compare" --rounds 3 --seconds 0.2)
    section "benches" 150 "${compare[@]}" --store "$scratch/eager.json" --out "${report%.*}-benches.md"
    # Compiling takes PyTorch long: that these are not done in time is no failure.
    local so_far=$failed
    section "benches, compiled" 120 "${compare[@]}" --compile --no-memory --rows "training step" \
      --store "$scratch/compiled.json" --out "${report%.*}-benches-compiled.md"
    failed=$so_far
  else
    echo "== benches: not run, $python has no PyTorch that sees a GPU"
  fi
  [ $failed -eq 0 ] && echo "ALL GOOD" || echo "SOMETHING FAILED"
}

check > >(tee "$report")
wait
grep -q '^ALL GOOD' "$report"
