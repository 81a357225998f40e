#!/usr/bin/env bash
# check.sh [--list] [--only REGEX] [--root NAME]: what an administrator gets wrong, on real Dovecots of both
# versions: `nfs-hostchange check` finds it, and when its remedies were applied as they are printed, it finds nothing
# any more, logins work, and a user who moves between two backends sees what is there. The configurations begin with one
# that works (check/mistakes.py), or are of the kind that public projects ship (check/clusters.py).
#
# The Dovecots are those of tests/setup.sh roots. Each backend is a system of its own (tests/lib/in-root.sh) with its
# own /dev/shm and host name; the mail store in /tmp is shared. The last line counts the cases.
set -euo pipefail
# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"

read_options --list '--only REGEX' '--root NAME' -- "$@"
roots=(bookworm trixie)
[ -z "$ROOT" ] || roots=("$ROOT")
options=(--only "$ONLY")
! $LIST || options+=(--list)
need_root
make_work_dirs
if ! $LIST; then
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
for root in "${roots[@]}"; do
    try_beside "$root" "$PYTHON" "$REPO/tests/check/run.py" "$root" "$WORK" "${options[@]}"
done
for root in "${roots[@]}"; do
    step "$root"
    result_of "$root"
done
print_result
