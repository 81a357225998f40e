#!/usr/bin/env bash
# Asks real Dovecot and `nfs-hostchange locate` where the indexes of randomly made
# users and locations are, and prints every disagreement.
#
#     tests/location-differential.sh [CASES [SEED]]
#
# 300 cases by default; the seed of a run is printed, and makes it again.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"
# shellcheck source=tests/lib/build.sh
source "$REPO/tests/lib/build.sh"

CASES=${1:-300}
SEED=${2:-$RANDOM$RANDOM}

need_root
# Not /tmp: a location may cut its paths short, and nobody else may write in /var/cache.
TMPDIR=/var/cache
make_work_dirs
step "Building"
find_cargo || die "no Rust that is new enough: run tests/setup.sh"
nice cargo build --quiet --manifest-path "$REPO/Cargo.toml" --locked --bin nfs-hostchange
# A copy that mail users may execute, and that no build replaces while this runs.
install -m 0755 "${CARGO_TARGET_DIR:-$REPO/target}/debug/nfs-hostchange" "$WORK/"
cc -shared -fPIC -Wall -Wextra -Werror -o "$WORK/recorder.so" "$REPO/tests/lib/recorder.c" -ldl

step "Asking $CASES times, seed $SEED"
"$PYTHON" "$REPO/tests/lib/location_differential.py" \
    --work "$WORK" --program "$WORK/nfs-hostchange" --cases "$CASES" --seed "$SEED"
