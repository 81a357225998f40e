#!/usr/bin/env bash
# The mail plugin inside real Dovecots: this machine's, and those in the roots that tests/setup.sh
# makes. Every case is a sentence; the last line counts them.
#
#   tests/plugin.sh [--wrapper PATH] [--only REGEX] [--list] [--quick] [DOVECOT...]
#   tests/plugin.sh --wrong [DOVECOT...]
#
# DOVECOT is "machine" (which needs dovecot-dev) or the name of a root; all roots that are there, if
# none is named. --quick leaves out the long cases. Without --wrapper (or WRAPPER in the environment)
# that is built too. --wrong shows of each mistake in plugin/wrong.py that its case fails with it.
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
WRONG=false
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
        --wrong) WRONG=true ;;
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

# include_of DOVECOT: where its headers are.
include_of() { if [ "$1" = machine ]; then echo /usr/include/dovecot; else echo "$ROOTS/$1/usr/include/dovecot"; fi; }

# try_wrong NUMBER: builds it, for the first of the Dovecots, and expects its case to fail.
try_wrong() {
    local name=${DOVECOTS[0]} tree=$CARGO_TARGET_DIR/wrong what fails root=()
    rm -rf "$tree/src"
    mkdir -p "$tree/src"
    git -C "$REPO" ls-files -z --cached --others --exclude-standard -- src packaging 'Cargo.*' tests/plugin tests/fuzz tests/common/probe.rs |
        tar -C "$REPO" -c --null -T - | tar -C "$tree/src" -x
    "$PYTHON" "$REPO/tests/plugin/wrong.py" break "$1" "$tree/src" >"$WORK/what"
    IFS=$'\t' read -r what fails <"$WORK/what"
    DOVECOT_INCLUDE=$(include_of "$name") MODULES=$WORK/wrong CARGO_TARGET_DIR=$tree \
        "$tree/src/packaging/build-plugin.sh" >"$WORK/build" 2>&1 || {
        cat "$WORK/build"
        die "$what: it does not build"
    }
    [ "$name" = machine ] || root=(--root "$ROOTS/$name")
    "$PYTHON" -B "$REPO/tests/plugin/run.py" "${root[@]}" --only "$fails" --wrapper "$WRAPPER" \
        --plugin "$WORK/wrong/lib90_nfs_hostchange_plugin.so" >"$WORK/result" 2>&1 || true
    if [[ $(tail -n 1 "$WORK/result") =~ ^0\ passed,\ [1-9][0-9]*\ failed$ ]]; then
        PASSED=$((PASSED + 1))
        printf 'ok     fails as it must: %s\n' "$what"
    else
        FAILED=$((FAILED + 1))
        printf 'FAILED is not noticed: %s\n' "$what"
        sed 's/^/   /' "$WORK/result"
    fi
}

if $WRONG; then
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPO/target}
    for number in $("$PYTHON" "$REPO/tests/plugin/wrong.py" list); do
        try_wrong "$number"
    done
    print_result
    [ "$FAILED" = 0 ]
    exit
fi

# The plugin for each; a mixed cluster is tried with the newest beside the others.
for name in "${DOVECOTS[@]}"; do
    DOVECOT_INCLUDE=$(include_of "$name") MODULES=$WORK/$name "$REPO/packaging/build-plugin.sh"
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
