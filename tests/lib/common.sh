# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this
# What every test script shares: progress, options, a work directory of its own, undoing on exit what
# was done, and the files that are sourced at the end. Source this after `set -euo pipefail`.

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

# read_options OPTION... -- WORD...: reads a script's words. OPTION is one as the usage shows it: "--list" sets LIST to
# true or false, "--only REGEX" sets ONLY; what is no option goes to WORDS, if the last OPTION has no dash. What is not
# given stays as the script or the environment has it.
read_options() {
    local options=() option name
    while [ "$1" != -- ]; do
        options+=("$1")
        name=${1%% *} name=${name#--} name=${name^^}
        case $1 in
            --*' '*) declare -g "$name=${!name:-}" ;;
            --*) declare -g "$name=false" ;;
        esac
        shift
    done
    shift
    WORDS=()
    while [ "$#" -gt 0 ]; do
        name=${1#--} name=${name^^}
        for option in "${options[@]}" unknown; do
            case $option in
                "$1") declare -g "$name=true" && break ;;
                "$1 "*) [ "$#" -gt 1 ] && declare -g "$name=$2" && shift && break ;;
                unknown) die "usage: ${0##*/}$(printf ' [%s]' "${options[@]}")" ;;
                --*) ;;
                *) [[ $1 == -* ]] || { WORDS+=("$1") && break; } ;;
            esac
        done
        shift
    done
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

# shellcheck source=tests/lib/build.sh
source "$REPO/tests/lib/build.sh"
# shellcheck source=tests/lib/cases.sh
source "$REPO/tests/lib/cases.sh"
# shellcheck source=tests/lib/packages.sh
source "$REPO/tests/lib/packages.sh"
# shellcheck source=tests/lib/pages.sh
source "$REPO/tests/lib/pages.sh"
# shellcheck source=tests/lib/roots.sh
source "$REPO/tests/lib/roots.sh"
