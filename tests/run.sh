#!/usr/bin/env bash
# Every test of this project. The last line counts them: "N passed, N failed, N skipped".
#
#   tests/run.sh [--quick]
#
# --quick leaves out what takes many minutes: kernel NFS, packages, benchmarks, and what smoke.sh
# leaves out with its own --quick.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"

read_options --quick -- "$@"

LOG=$(mktemp)
on_exit rm -f "$LOG"

# run COMMAND...: shows what it says and keeps it in LOG.
run() {
    local status=0
    nice "$@" 2>&1 </dev/null | tee "$LOG" || status=$?
    return "$status"
}

# timed NAME FUNCTION...: a part, with its time.
timed() {
    local name=$1 began=$SECONDS
    shift
    step "$name"
    "$@"
    note "$name: $((SECONDS - began)) s"
}

# check COMMAND...: counts as one test.
check() {
    if run "$@"; then PASSED=$((PASSED + 1)); else FAILED=$((FAILED + 1)); fi
}

# left_out WHY: a part that cannot be run here.
left_out() {
    say "   skipped: $1"
    SKIPPED=$((SKIPPED + 1))
}

check_cargo() {
    if cargo "$1" --version >/dev/null 2>&1; then
        check cargo "$@"
    else
        left_out "there is no cargo $1 here"
    fi
}

# rust-version of Cargo.toml. The crates are here since the build.
check_oldest_rust() {
    check env CARGO_TARGET_DIR="$CARGO_TARGET_DIR/trixie" "$REPO/tests/lib/in-root.sh" trixie \
        cargo clippy --offline --quiet --locked --workspace --all-targets -- -D warnings
}

check_shell() {
    local scripts
    mapfile -t scripts < <(git ls-files '*.sh' .ci/run)
    check shellcheck -x "${scripts[@]}"
}

# The tests in Rust; each test program says "test result: ok. N passed; N failed; N ignored; ...".
check_rust() {
    local passed failed ignored status=0
    run env NFS_HOSTCHANGE_LOGIN="$WRAPPER" cargo test --locked --workspace --no-fail-fast || status=$?
    read -r passed failed ignored < <(
        awk '/^test result:/ { p += $4; f += $6; i += $8 } END { print p + 0, f + 0, i + 0 }' "$LOG"
    )
    # Failed without a failed test: it did not build, or died.
    [ "$status" = 0 ] || [ "$failed" -gt 0 ] || failed=1
    count_result "$passed passed, $failed failed, $ignored skipped"
}

# check_script SCRIPT [OPTION...]: a script of ours, whose last line counts its tests.
check_script() {
    local status=0 failed_before=$FAILED
    run "$REPO/tests/$1" "${@:2}" || status=$?
    if ! count_result "$(tail -n 1 "$LOG")"; then
        say "   $1 ended without a result, with exit status $status"
        FAILED=$((FAILED + 1))
    elif [ "$status" != 0 ] && [ "$FAILED" = "$failed_before" ]; then
        say "   $1 ended with exit status $status"
        FAILED=$((FAILED + 1))
    fi
}

cd "$REPO"
timed "setup" "$REPO/tests/setup.sh" roots
find_cargo || die "no cargo"
timed "building" build_release || die "it does not build"
export WRAPPER COMMAND
timed "format" check_cargo fmt --all --check
timed "lints" check_cargo clippy --locked --workspace --all-targets -- -D warnings
timed "lints of Debian 13's Rust" check_oldest_rust
timed "licences" check_cargo deny --locked check licenses bans sources
timed "shell scripts" check_shell
timed "tests in Rust" check_rust
if $QUICK; then
    timed "real Dovecot" check_script smoke.sh --quick
    say "== left out: sessions without list index, the plugin, check, documents, alerts, load, kernel NFS, packages, benchmarks"
else
    timed "real Dovecot" check_script smoke.sh
    timed "sessions without list index" check_script failsafe.sh
    timed "plugin" check_script plugin.sh
    timed "what check finds" check_script check.sh
    timed "what the documents say" check_script documents.sh
    timed "alerts and dashboard" check_script monitoring.sh
    timed "load" check_script load.sh
    timed "kernel NFS" check_script nfs/run.sh
    timed "packages" check_script package.sh
    # That it runs; how long things take depends on the machine.
    timed "benchmarks" check "$REPO/tests/bench/run.sh" --quick
fi
say "== all parts: $SECONDS s"
print_result
