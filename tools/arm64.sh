#!/usr/bin/env bash
# Runs the tests of a crate (default: the kernels) on 64-bit ARM under qemu-user: correctness, no speed. Needs `rustup target add
# aarch64-unknown-linux-gnu`, gcc-aarch64-linux-gnu and qemu-user.
#   tools/arm64.sh                              # all tests of the kernels
#   tools/arm64.sh lowbit-c                     # the C program with the static library
#   tools/arm64.sh lowbit-kernels --test gemm   # one of them
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
for tool in aarch64-linux-gnu-gcc qemu-aarch64; do
    command -v "$tool" > /dev/null || { echo "arm64: $tool is not installed" >&2; exit 1; }
done
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc
crate=${1:-lowbit-kernels}
exec cargo test --release --locked --target aarch64-unknown-linux-gnu -p "$crate" "${@:2}"
