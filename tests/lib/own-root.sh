#!/usr/bin/env bash
# own-root.sh COMMAND [ARG...]: runs COMMAND where / is a mount point, as the tests need it, in a
# chroot that is none. They have mounts of their own, which nobody else is to see, and that cannot
# be said of a directory.
set -euo pipefail

if ! mountpoint -q /proc; then
    echo "own-root.sh: mount proc on /proc and a tmpfs on /dev/shm first" >&2
    exit 69
fi
# shellcheck disable=SC2016 # for the inner shell
exec unshare --mount --propagation unchanged bash -euc '
    # The one mount point that is surely there. Nothing that is mounted below a private mount
    # shows anywhere else, and so / can be mounted there, too.
    mount --make-private /proc
    mount --rbind / /proc/fs
    mount --make-rprivate /proc/fs
    exec chroot /proc/fs sh -c "cd \"\$1\"; shift; exec \"\$@\"" own-root "$PWD" "$@"
' own-root "$@"
