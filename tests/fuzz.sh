#!/usr/bin/env bash
# Fuzzes everything that reads bytes from outside, one target after the other, with
# cargo-fuzz and a nightly Rust. `cargo test --test fuzz` is the short run, which needs
# neither.
#
#     tests/fuzz.sh [SECONDS [DIRECTORY]]
#
# SECONDS for each target, 540 unless given: an hour in all. Inputs that reach something
# new are kept in DIRECTORY, and so are those that crash or take 10 seconds.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"

SECONDS_EACH=${1:-540}
TARGETS=(location login record claim configuration age command_line border)

cargo +nightly fuzz --version >/dev/null 2>&1 || die "this takes a nightly Rust and cargo-fuzz"
if [ -n "${2:-}" ]; then
    mkdir -p "$2"
    FOUND=$(cd "$2" && pwd)
else
    FOUND=$(mktemp -d)
    on_exit rm -rf "$FOUND"
fi
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPO/target/fuzz}
cd "$REPO/tests/fuzz"
"$PYTHON" seeds.py "$FOUND"

status=0
for target in "${TARGETS[@]}"; do
    step "$target"
    mkdir -p "$FOUND/$target" "corpus/$target"
    nice -n 19 cargo +nightly fuzz run --fuzz-dir . "$target" "$FOUND/$target" "corpus/$target" -- \
        -max_total_time="$SECONDS_EACH" -timeout=10 -max_len=2048 -dict=dictionary -verbosity=0 \
        -print_final_stats=1 -artifact_prefix="$FOUND/" || status=1
done
exit "$status"
