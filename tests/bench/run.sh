#!/usr/bin/env bash
# What the programs cost, side by side with the least that could do the same work
# and with what one would use otherwise. Every comparison is interleaved: each round
# takes every candidate once, in a changing order.
#
#   tests/bench/run.sh [--quick] [PART...]
#
# PART is start, dovecot, plugin, change or sweep; all of them without any. Rewrites the
# tables of docs/performance.md and the pictures in docs/performance/, and says
# which goals were met. Takes three quarters of an hour, 12 GB of memory for a million users, and
# an idle machine to mean something.
#
# --quick takes few rounds of small cases, prints the tables, and writes nothing: it
# shows in a minute and a half that all this works, and no time that it prints matters.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/../lib/common.sh"
# shellcheck source=tests/lib/dovecot.sh
source "$REPO/tests/lib/dovecot.sh"

BENCH=$REPO/tests/bench
read_options --quick PART... -- "$@"
[ "${#WORDS[@]}" -gt 0 ] || WORDS=(start dovecot plugin change sweep)
for part in "${WORDS[@]}"; do
    [ -e "$BENCH/$part.sh" ] || die "there is no part $part"
done

# rounds FULL QUICK: the number that this run is to use.
rounds() { if $QUICK; then printf '%s\n' "$2"; else printf '%s\n' "$1"; fi; }

# The comparisons in C. All binaries that are measured are copies: one as the linker
# wrote it starts slower than a copy of it.
build_comparisons() {
    local source strict=(-O2 -Wall -Wextra -Werror -s)
    local bare=(-static -nostdlib -fno-pie -no-pie -fno-stack-protector -fno-asynchronous-unwind-tables)
    mkdir -p "$BIN/new"
    for source in exec end; do
        gcc "${strict[@]}" "${bare[@]}" "$BENCH/start/${source}_bare.c" -o "$BIN/new/$source.bare"
    done
    for source in exec job; do
        musl-gcc "${strict[@]}" -static "$BENCH/start/$source.c" -o "$BIN/new/$source.musl"
        gcc "${strict[@]}" -static "$BENCH/start/$source.c" -o "$BIN/new/$source.static"
    done
    gcc "${strict[@]}" "$BENCH/start/exec.c" -o "$BIN/new/exec.dynamic"
    gcc "${strict[@]}" "$BENCH/start/inspect.c" -o "$BIN/new/inspect"
    gcc "${strict[@]}" "$BENCH/spawn.c" -o "$BIN/new/spawn"
    gcc "${strict[@]}" "$BENCH/sweep/populate.c" -o "$BIN/new/populate"
    gcc "${strict[@]}" "$BENCH/sweep/sweep.c" -o "$BIN/new/sweep"
    install -m 0755 "$BIN/new/"* "$BENCH"/start/*.sh "$BENCH/change/prepare.sh" "$BIN/"
    install -m 0755 "$WRAPPER" "$BIN/nfs-hostchange-login"
    install -m 0755 "$COMMAND" "$BIN/nfs-hostchange"
    # What a toolchain without the musl target makes of it.
    local target
    target=$(uname -m)-unknown-linux-gnu
    RUSTFLAGS="${RUSTFLAGS-} -C target-feature=+crt-static" nice cargo build --manifest-path "$REPO/Cargo.toml" \
        --release --locked --target "$target" --no-default-features --bin nfs-hostchange-login
    install -m 0755 "$CARGO_TARGET_DIR/$target/release/nfs-hostchange-login" "$BIN/nfs-hostchange-login.glibc"
}

# The highest priority, among processes and among sessions (sched(7), autogroup).
hurry() {
    renice --priority -20 $$ >/dev/null && { [ ! -e /proc/$$/autogroup ] || echo -20 >"/proc/$$/autogroup"; }
}

as_mail_user() { setpriv --reuid=mail --regid=mail --clear-groups "$@"; }

# candidate NAME WORD...: one line for spawn.
candidate() {
    local IFS=$'\t'
    printf '%s\n' "$*"
}

# The environment that script-login gives to USER, one variable in each line; his
# home is HOME and his list index in LIST.
environment_of() {
    printf '%s\n' "USER=$1" IP=192.0.2.7 LOCAL_IP=192.0.2.1 "HOME=$2" \
        "UID=$(id -u mail)" "GID=$(id -g mail)" AUTH_TOKEN=0123456789abcdef0123456789abcdef01234567 \
        AUTH_MECH=PLAIN "MAIL_LOCATION=mdbox:~/mdbox:LISTINDEX=$3/dovecot.list.index" \
        'USERDB_KEYS=home uid gid auth_token auth_mech mail_location '
}

# with_environment FILE COMMAND...
with_environment() {
    local variables
    mapfile -t variables <"$1"
    env --ignore-environment "${variables[@]}" "${@:2}"
}

# shellcheck source=tests/bench/start.sh
source "$BENCH/start.sh"
# shellcheck source=tests/bench/dovecot.sh
source "$BENCH/dovecot.sh"
# shellcheck source=tests/bench/plugin.sh
source "$BENCH/plugin.sh"
# shellcheck source=tests/bench/change.sh
source "$BENCH/change.sh"
# shellcheck source=tests/bench/sweep.sh
source "$BENCH/sweep.sh"

need_root
step "installing what is needed"
"$REPO/tests/setup.sh" roots
install_packages musl-tools dash systemd
step "building"
build_release || die "it does not build"
make_work_dirs
BIN=$WORK/bin
RESULTS=$WORK/results
mkdir -p "$BIN" "$RESULTS"
build_comparisons
# Before whatever else runs here; the programs that are compared inherit it.
$QUICK || hurry || note "without a higher priority"
into=(--into "$REPO/docs")
! $QUICK || into=()
for part in "${WORDS[@]}"; do
    step "$part"
    "measure_$part"
    cp /proc/loadavg "$RESULTS/$part.load"
    "$PYTHON" "$BENCH/report.py" "${into[@]}" "$RESULTS" "$part"
done
