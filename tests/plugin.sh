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

read_options '--wrapper PATH' '--only REGEX' --list --quick --wrong DOVECOT... -- "$@"
! $LIST || exec "$PYTHON" "$REPO/tests/plugin/run.py" --list
need_root
DOVECOTS=("${WORDS[@]}")
if [ "${#DOVECOTS[@]}" = 0 ]; then
    for name in "${ALL_ROOTS[@]}"; do
        ! has_root "$name" || DOVECOTS+=("$name")
    done
fi
[ "${#DOVECOTS[@]}" -gt 0 ] || die "no Dovecot with headers; run tests/setup.sh roots"

find_cargo || die "no cargo"
[ -n "$WRAPPER" ] || build_release || die "it does not build"
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
    "$PYTHON" "$REPO/tests/plugin/run.py" "${root[@]}" --only "$fails" --wrapper "$WRAPPER" \
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
    exit
fi

# The plugin for each; a mixed cluster is tried with the newest beside the others.
for name in "${DOVECOTS[@]}"; do
    DOVECOT_INCLUDE=$(include_of "$name") MODULES=$WORK/$name "$REPO/packaging/build-plugin.sh"
done
PLUGIN=lib90_nfs_hostchange_plugin.so
mixed=()
[ ! -e "$WORK/trixie/$PLUGIN" ] || mixed=(--beside "$ROOTS/trixie" "$WORK/trixie/$PLUGIN")
options=(--only "$ONLY")
! $QUICK || options+=(--quick)
# Side by side: most of the time they wait for each other's processes.
for name in "${DOVECOTS[@]}"; do
    root=()
    [ "$name" = machine ] || root=(--root "$ROOTS/$name")
    try_beside "$name" "$PYTHON" "$REPO/tests/plugin/run.py" "${root[@]}" "${mixed[@]}" "${options[@]}" \
        --wrapper "$WRAPPER" --plugin "$WORK/$name/$PLUGIN"
done
for name in "${DOVECOTS[@]}"; do
    result_of "$name"
done
print_result
