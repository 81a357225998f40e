#!/usr/bin/env bash
# The mail plugin inside real Dovecots: this machine's, and those in the roots that tests/setup.sh
# makes. Every case is a sentence; the last line counts them.
#
#   tests/plugin.sh [--wrapper PATH] [--only REGEX] [--list] [--quick] [DOVECOT...]
#
# DOVECOT is "machine" (which needs dovecot-dev) or the name of a root; all roots that are there, if
# none is named. --quick leaves out the long cases. Without --wrapper (or WRAPPER in the environment)
# that is built too.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"
# shellcheck source=tests/lib/build.sh
source "$REPO/tests/lib/build.sh"
# shellcheck source=tests/lib/cases.sh
source "$REPO/tests/lib/cases.sh"
# shellcheck source=tests/lib/roots.sh
source "$REPO/tests/lib/roots.sh"

ONLY=()
QUICK=()
DOVECOTS=()
while [ "$#" -gt 0 ]; do
    case $1 in
        --only)
            ONLY=(--only "$2")
            shift
            ;;
        --wrapper)
            WRAPPER=$2
            shift
            ;;
        --list) exec "$PYTHON" "$REPO/tests/plugin/run.py" --list ;;
        --quick) QUICK=(--quick) ;;
        -*) die "unknown option $1" ;;
        *) DOVECOTS+=("$1") ;;
    esac
    shift
done
need_root
if [ "${#DOVECOTS[@]}" = 0 ]; then
    for name in "${ALL_ROOTS[@]}"; do
        ! has_root "$name" || DOVECOTS+=("$name")
    done
fi
[ "${#DOVECOTS[@]}" -gt 0 ] || die "no Dovecot with headers; run tests/setup.sh roots"

find_cargo || die "no cargo"
[ -n "${WRAPPER:-}" ] || build_release || die "it does not build"
make_work_dirs
# The plugin for each; a mixed cluster is tried with the newest beside the others.
for name in "${DOVECOTS[@]}"; do
    include=/usr/include/dovecot
    [ "$name" = machine ] || include=$ROOTS/$name$include
    DOVECOT_INCLUDE=$include MODULES=$WORK/$name "$REPO/packaging/build-plugin.sh"
done
PLUGIN=lib90_nfs_hostchange_plugin.so
BESIDE=()
[ ! -e "$WORK/trixie/$PLUGIN" ] || BESIDE=(--beside "$ROOTS/trixie" "$WORK/trixie/$PLUGIN")
# Side by side: most of the time they wait for each other's processes.
RUNS=()
for name in "${DOVECOTS[@]}"; do
    root=()
    [ "$name" = machine ] || root=(--root "$ROOTS/$name")
    "$PYTHON" -B "$REPO/tests/plugin/run.py" "${root[@]}" "${BESIDE[@]}" "${ONLY[@]}" "${QUICK[@]}" \
        --wrapper "$WRAPPER" --plugin "$WORK/$name/$PLUGIN" >"$WORK/$name/result" 2>&1 &
    RUNS+=("$!")
done
for i in "${!DOVECOTS[@]}"; do
    wait "${RUNS[i]}" || true
    cat "$WORK/${DOVECOTS[i]}/result"
    count_result "$(tail -n 1 "$WORK/${DOVECOTS[i]}/result")" || FAILED=$((FAILED + 1))
done
print_result
[ "$FAILED" = 0 ]
