#!/usr/bin/env bash
# private-dev.sh DIR COMMAND [ARG...]: runs COMMAND with a /dev of its own, in which
# /dev/log is the socket DIR/syslog. To be started by `unshare --mount`, so
# that nobody else sees it.
set -euo pipefail

dir=$1
shift
mkdir -p "$dir/dev"
mount -t tmpfs -o mode=0755 tmpfs "$dir/dev"
for node in null zero full random urandom tty; do
    : >"$dir/dev/$node"
    mount --bind "/dev/$node" "$dir/dev/$node"
done
mkdir "$dir/dev/shm"
mount --bind /dev/shm "$dir/dev/shm"
ln -s /proc/self/fd "$dir/dev/fd"
: >"$dir/dev/log"
mount --bind "$dir/syslog" "$dir/dev/log"
mount --rbind "$dir/dev" /dev
exec "$@"
