#!/usr/bin/env bash
# check.sh [--list] [--only REGEX] [--root NAME]...: what an administrator gets wrong, on real Dovecots of both
# versions: `nfs-hostchange check` finds it, and when its remedies were applied as they are printed, it finds nothing
# any more, logins work, and a user who moves between two backends sees what is there.
#
# The Dovecots are those of tests/setup.sh roots. Each backend is a system of its own (tests/lib/in-root.sh) with its
# own /dev/shm and host name; the mail store in /tmp is shared.
set -euo pipefail
# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"

roots=() options=()
while [ "$#" -gt 0 ]; do
    case $1 in
        --list) options+=(--list) ;;
        --only) options+=(--only "${2:?--only needs a regular expression}") && shift ;;
        --root) roots+=("${2:?--root needs a name}") && shift ;;
        *) die "usage: check.sh [--list] [--only REGEX] [--root NAME]..." ;;
    esac
    shift
done
[ "${#roots[@]}" -gt 0 ] || roots=(bookworm trixie)
need_root
make_work_dirs
if [[ " ${options[*]} " != *" --list "* ]]; then
    "$REPO/packaging/build.sh" >"$WORK/build.log" 2>&1 || { cat "$WORK/build.log" >&2 && die "building failed"; }
    mkdir "$WORK/bin"
    cp "${CARGO_TARGET_DIR:-$REPO/target}"/dist/nfs-hostchange{,-login} "$WORK/bin/"
fi
status=0 passed=0 failed=0
for root in "${roots[@]}"; do
    step "$root"
    "$PYTHON" "$REPO/tests/check/cases.py" "$root" "$WORK" "${options[@]}" | tee "$WORK/result" || status=1
    read -r p _ f _ < <(tail -n 1 "$WORK/result")
    passed=$((passed + ${p//[!0-9]/})) failed=$((failed + ${f//[!0-9]/}))
done
say "$passed passed, $failed failed"
exit "$status"
