#!/usr/bin/env bash
# On a GPU machine: scripts/gpu-check.sh [DIR] [REPORT]
#
# Runs what scripts/build-cuda.sh left in DIR (target/cuda-out): the tests that hold the GPU's results to the CPU's, a short
# training, sampling, and the benches; ten minutes at most. Writes REPORT (gpu-report.txt), which begins with the card's name.
# Fails where a test fails or the GPU cannot be used. The benches need a Python with PyTorch (PYTHON, python3).
set -uo pipefail
cd "$(dirname "$0")/.."
dir=$(realpath "${1:-target/cuda-out}")
report=${2:-gpu-report.txt}
python=${PYTHON:-python3}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Where CUDA's libraries are not installed, a PyTorch install brings them.
for lib in $("$python" -c 'import glob, site; print(*[p for s in site.getsitepackages() for p in glob.glob(s + "/nvidia/*/lib")])' 2>/dev/null); do
  LD_LIBRARY_PATH=${LD_LIBRARY_PATH:+$LD_LIBRARY_PATH:}$lib
done
export LD_LIBRARY_PATH

failed=0
# section TITLE SECONDS COMMAND...
section() {
  local title=$1 limit=$2 started=$SECONDS
  shift 2
  echo "== $title"
  timeout "$limit" "$@" 2>&1
  local status=$?
  echo "-- exit code $status after $((SECONDS - started)) s"
  echo
  [ $status -eq 0 ] || failed=1
}

check() {
  echo "$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null || echo "no GPU: nvidia-smi finds none")"
  echo "$(date -u '+%Y-%m-%d %H:%M') UTC, lsgm at $(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
  echo
  section "devices" 30 "$dir/lsgm" devices
  for test in "$dir"/tests/*; do
    section "$(basename "$test")" 150 "$test" --nocapture
  done
  section "a training" 120 "$dir/lsgm" train configs/quickstart.toml --device cuda --time-budget 40s --out "$scratch/run" --quiet
  section "the same run on the CPU" 60 "$dir/lsgm" sample "$scratch/run" --count 4 --out "$scratch/cpu.png" --device cpu
  section "256 samples" 60 "$dir/lsgm" sample "$scratch/run" --count 256 --out "$scratch/gpu.png" --tol 1e-5 --device cuda
  if "$python" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
    section "benches" 180 "$python" benches/compare/compare.py --device cuda --rust "$dir/compare" --rounds 3 --seconds 0.2 \
      --store "$scratch/compare.json" --out "$scratch/RESULTS.md"
  else
    echo "== benches: not run, $python has no PyTorch that sees a GPU"
  fi
  [ $failed -eq 0 ] && echo "ALL GOOD" || echo "SOMETHING FAILED"
}

check > >(tee "$report")
wait
grep -q '^ALL GOOD' "$report"
