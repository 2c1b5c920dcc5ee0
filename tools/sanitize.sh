#!/usr/bin/env bash
# Tests of the kernels under a sanitizer, on the stable toolchain with its rust-src component (rustup component add rust-src):
#   tools/sanitize.sh pool       ThreadSanitizer on the thread pool and its stress test, a minute
#   tools/sanitize.sh thread     ThreadSanitizer on all tests of lowbit-kernels, long
#   tools/sanitize.sh address    AddressSanitizer on the same
# The standard library is built anew for ThreadSanitizer, which must see its atomics. Left out is a test that limits the address
# space, of which a sanitizer takes all.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/sanitize
case ${1:-} in
pool)
    crate=$(mktemp -d)
    trap 'rm -rf "$crate"' EXIT
    printf '[package]\nname = "pool"\nedition = "2024"\n[lib]\npath = "%s"\n[workspace]\n' \
        "$PWD/crates/lowbit-kernels/src/pool.rs" > "$crate/Cargo.toml"
    RUSTFLAGS=-Zsanitizer=thread cargo test --manifest-path "$crate/Cargo.toml" --lib -Zbuild-std --target "$host"
    ;;
# The guard pages of tests/guard.rs end a process themselves.
thread)
    TSAN_OPTIONS=handle_segv=0 RUSTFLAGS=-Zsanitizer=thread \
        cargo test --release -p lowbit-kernels --lib --tests -Zbuild-std --target "$host" -- --skip memory_that_cannot_be_had
    ;;
address)
    ASAN_OPTIONS=handle_segv=0:detect_leaks=0 RUSTFLAGS='-Zsanitizer=address -Cunsafe-allow-abi-mismatch=sanitizer' \
        cargo test --release -p lowbit-kernels --lib --tests --target "$host" -- --skip memory_that_cannot_be_had
    ;;
*)
    sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
    ;;
esac
