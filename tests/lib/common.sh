# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this
# What every test script shares: progress, a work directory of its own, and
# undoing on exit what was done. Source this after `set -euo pipefail`.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

# Where the tests keep what they download and make once.
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/nfs-hostchange

# Debian's own interpreter: another one on PATH may lack modules or be slow.
PYTHON=/usr/bin/python3

# Nothing is left in the source tree.
export PYTHONDONTWRITEBYTECODE=1

# In a chroot / often is no mount point, and then no mount there can be hidden from others.
[ ! -e /proc/self/mountinfo ] || mountpoint -q / || exec "$REPO/tests/lib/own-root.sh" "$0" "$@"

say() { printf '%s\n' "$*"; }
step() { printf '== %s\n' "$*"; }
note() { printf '   %s\n' "$*"; }
die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

need_root() {
    [ "$(id -u)" = 0 ] || die "must run as root: Dovecot and the changes of identity need it"
}

# wait_until SECONDS WHAT COMMAND [ARG...]: until COMMAND succeeds.
wait_until() {
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        if [ "$SECONDS" -ge "$deadline" ]; then
            printf 'not had in time: %s\n' "$what" >&2
            return 1
        fi
        sleep 0.05
    done
}

# Two directories that nobody else uses: WORK on disk, SHM on tmpfs. Mail users
# must be able to walk through both, but not to look around in them.
make_work_dirs() {
    [ -d /dev/shm ] || die "/dev/shm is missing; mount a tmpfs there"
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/nfs-hostchange.XXXXXXXX")
    SHM=$(mktemp -d /dev/shm/nfs-hostchange.XXXXXXXX)
    chmod 0711 "$WORK" "$SHM"
    on_exit rm -rf --one-file-system "$WORK" "$SHM"
    on_exit end_those_that_stayed "$WORK"
}

# Ends wrappers below DIRECTORY that stayed behind for sessions whose INDEX never came.
end_those_that_stayed() {
    local process
    for process in /proc/[0-9]*; do
        case $(tr '\0' ' ' 2>/dev/null <"$process/cmdline") in
        "$1"/*nfs-hostchange-login*) kill -KILL "${process#/proc/}" ;;
        esac
    done
}

# on_exit COMMAND [ARG...]: run when this script ends, the last one first.
ON_EXIT=()
on_exit() {
    [ "${#ON_EXIT[@]}" -gt 0 ] || trap run_on_exit EXIT
    trap 'exit 129' HUP
    trap 'exit 130' INT
    trap 'exit 143' TERM
    ON_EXIT+=("$(printf '%q ' "$@")")
}

run_on_exit() {
    local status=$? i
    trap '' HUP INT TERM
    set +e
    for ((i = ${#ON_EXIT[@]} - 1; i >= 0; i--)); do
        eval "${ON_EXIT[i]}"
    done
    exit "$status"
}
