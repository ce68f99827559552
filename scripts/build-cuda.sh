#!/usr/bin/env bash
# Builds lsgm for NVIDIA GPUs, on a machine that need not have one: scripts/build-cuda.sh [OUT]
#
# OUT (target/cuda-out) gets what a GPU machine needs: `lsgm`, which starts the stripped `lsgm-bin`; `tests/`, the programs that
# hold the GPU's results to the CPU's; `compare`, the Rust side of benches/compare. Copy it there with this repository and run
# scripts/gpu-check.sh.
#
# The toolkit is CUDA_HOME, or that of the nvcc on PATH, or one that ../shared/tools/cuda-toolkit.sh unpacks.
# CUDA_COMPUTE_CAP says for which GPU to build (90: H100 and H200). FEATURES=cuda builds without cuDNN.
set -euo pipefail
cd "$(dirname "$0")/.."
out=${1:-target/cuda-out}
features=${FEATURES:-cuda,cudnn}
unpack=../shared/tools/cuda-toolkit.sh

if [ -z "${CUDA_HOME:-}" ]; then
  if nvcc=$(command -v nvcc); then
    CUDA_HOME=$(dirname "$(dirname "$(readlink -f "$nvcc")")")
  elif [ -e "$unpack" ]; then
    CUDA_HOME=$PWD/target/cuda-toolkit
    [ -x "$CUDA_HOME/bin/nvcc" ] || bash "$unpack" "$CUDA_HOME"
  else
    echo "build-cuda.sh: no CUDA toolkit: install one, or set CUDA_HOME to the folder that holds bin/nvcc" >&2
    exit 2
  fi
fi
export CUDA_HOME CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-90} PATH=$CUDA_HOME/bin:$PATH
for lib in "$CUDA_HOME"/lib "$CUDA_HOME"/lib64; do
  export LIBRARY_PATH=$lib:$lib/stubs${LIBRARY_PATH:+:$LIBRARY_PATH}
done
# A folder of its own: the ordinary build and this one would compile everything anew in turn.
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target/cuda}

with_features=$(sed 's/\([a-z]\+\)/lsgm\/\1/g' <<< "$features")
cargo build --release --workspace --features "$with_features"
# Lines such as "Executable tests/cuda.rs (/path/cuda-0123)".
programs() {
  cargo "$@" --workspace --features "$with_features" --no-run 2>&1 | tee >(cat >&2) | sed -n 's/.*Executable.*(\(.*\))$/\1/p'
}
# Nothing of a build before stays, and a failed one ends the script: in a list of words its status would be lost.
rm -rf "$out/tests"
mkdir -p "$out/tests"
install -s "$CARGO_TARGET_DIR/release/lsgm" "$out/lsgm-bin"
# The loader ends a program that lacks a library before it can say what to do.
cat > "$out/lsgm" << 'LAUNCHER'
#!/bin/sh
program=$(dirname "$(readlink -f "$0")")/lsgm-bin
missing=$(ldd "$program" | awk '/not found/ { print $1 }' | sort -u | tr '\n' ' ')
case $missing in
  "") exec "$program" "$@" ;;
  *libcuda.so*) hint="libcuda belongs to the NVIDIA driver: install it, or use an lsgm that was built for the CPU" ;;
  *) hint="point LD_LIBRARY_PATH at CUDA's libraries; a PyTorch install has them in site-packages/nvidia/*/lib" ;;
esac
echo "lsgm: error: this machine lacks ${missing}($hint)" >&2
exit 2
LAUNCHER
chmod +x "$out/lsgm"
tests=$(programs test --release --test cuda --test composed --test devices)
for program in $tests; do
  name=$(basename "$program")
  install -s "$program" "$out/tests/${name%-*}"
done
compare=$(programs bench --bench compare)
install -s "$(tail -1 <<< "$compare")" "$out/compare"
ls -lh "$out" "$out/tests"
