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
make_work_dirs
step "Building"
find_cargo || die "no Rust that is new enough: run tests/setup.sh"
PROGRAM=${LOCATE_PROGRAM:-}
if [ -z "$PROGRAM" ]; then
    cargo build --quiet --manifest-path "$REPO/Cargo.toml" --target-dir "$WORK/target"
    PROGRAM=$WORK/target/debug/nfs-hostchange
fi
cc -shared -fPIC -Wall -Wextra -Werror -o "$WORK/recorder.so" "$REPO/tests/lib/recorder.c" -ldl

step "Asking $CASES times, seed $SEED"
"$PYTHON" "$REPO/tests/lib/location_differential.py" \
    --work "$WORK" --program "$PROGRAM" --cases "$CASES" --seed "$SEED"
