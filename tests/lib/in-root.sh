#!/usr/bin/env bash
# in-root.sh NAME COMMAND [ARG...]: runs COMMAND in the Debian NAME that tests/setup.sh roots made,
# with this machine's /proc, /dev, /sys, /tmp and network, this project, its build directory and
# cargo's crates in the same places, and the same working directory. What it writes elsewhere is seen by nobody else
# and gone when it ends. COMMAND has the process id that this script had.
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
root=${XDG_CACHE_HOME:-$HOME/.cache}/nfs-hostchange/roots/$1
shift
if [ ! -d "$root" ]; then
    echo "in-root.sh: there is no $root; run tests/setup.sh roots" >&2
    exit 69
fi
# shellcheck disable=SC2016 # for the inner shell
exec unshare --mount --propagation private bash -euc '
    root=$1 directory=$PWD
    same_places=("$2" "$3" "$4" "${TMPDIR:-/tmp}")
    shift 4
    # What is written goes to memory, over the root that stays as it is.
    mount -t tmpfs -o mode=0755 tmpfs "$root/mnt"
    mkdir "$root/mnt/upper" "$root/mnt/work"
    mount -t overlay -o "lowerdir=$root,upperdir=$root/mnt/upper,workdir=$root/mnt/work" overlay "$root"
    for place in /dev /proc /sys /tmp; do
        mount --rbind "$place" "$root$place"
    done
    mount -t tmpfs -o mode=0755 tmpfs "$root/run"
    for place in "${same_places[@]}"; do
        case $place/ in
            /tmp/*) continue ;;
        esac
        [ -d "$place" ] || continue
        mkdir -p "$root$place"
        mount --rbind "$place" "$root$place"
    done
    for file in /etc/hosts /etc/resolv.conf; do
        [ ! -e "$file" ] || cp "$file" "$root$file"
    done
    export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
    # The root has no other locale.
    export LC_ALL=C.UTF-8
    exec chroot "$root" sh -c "cd \"\$1\" 2>/dev/null || cd /; shift; exec \"\$@\"" in_root "$directory" "$@"
' in_root "$root" "$repo" "${CARGO_TARGET_DIR:-$repo/target}" "${CARGO_HOME:-$HOME/.cargo}/registry" "$@"
