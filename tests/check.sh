#!/usr/bin/env bash
# check.sh [--list] [--only REGEX] [--root NAME]...: what an administrator gets wrong, on real Dovecots of both
# versions: `nfs-hostchange check` finds it, and when its remedies were applied as they are printed, it finds nothing
# any more, logins work, and a user who moves between two backends sees what is there. The configurations begin with one
# that works (check/mistakes.py), or are of the kind that public projects ship (check/clusters.py).
#
# The Dovecots are those of tests/setup.sh roots. Each backend is a system of its own (tests/lib/in-root.sh) with its
# own /dev/shm and host name; the mail store in /tmp is shared. The last line counts the cases.
set -euo pipefail
# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"
# shellcheck source=tests/lib/build.sh
source "$REPO/tests/lib/build.sh"
# shellcheck source=tests/lib/cases.sh
source "$REPO/tests/lib/cases.sh"
# shellcheck source=tests/lib/roots.sh
source "$REPO/tests/lib/roots.sh"

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
list=false
[[ " ${options[*]} " != *" --list "* ]] || list=true
if ! $list; then
    build_release || die "it does not build"
    mkdir "$WORK/bin"
    cp "$DIST"/nfs-hostchange{,-login} "$WORK/bin/"
    # Either Dovecot is also given the plugin that was built for the other.
    for version in 2.3:bookworm 2.4:trixie; do
        DOVECOT_INCLUDE=$ROOTS/${version#*:}/usr/include/dovecot MODULES=$WORK/bin/modules-${version%:*} \
            "$REPO/packaging/build-plugin.sh"
    done
fi
# Side by side: most of the time they wait for each other's processes.
runs=()
for root in "${roots[@]}"; do
    "$PYTHON" "$REPO/tests/check/run.py" "$root" "$WORK" "${options[@]}" >"$WORK/$root.result" 2>&1 &
    runs+=("$!")
done
for i in "${!roots[@]}"; do
    wait "${runs[i]}" || true
    step "${roots[i]}"
    cat "$WORK/${roots[i]}.result"
    $list || count_result "$(tail -n 1 "$WORK/${roots[i]}.result")" || FAILED=$((FAILED + 1))
done
$list || print_result
[ "$FAILED" = 0 ]
