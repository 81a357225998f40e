#!/usr/bin/env bash
# own-control-group.sh COMMAND...: runs COMMAND in a control group (cgroups(7)) of its own,
# as systemd wants it; the group is removed afterwards.
set -euo pipefail

if [ "$1" != --mounted ]; then
    # Whatever this machine has there, nobody else sees it change.
    exec unshare --mount --propagation private "$0" --mounted "$@"
fi
shift
mount -t cgroup2 cgroup2 /sys/fs/cgroup
group=$(mktemp -d /sys/fs/cgroup/nfs-hostchange.XXXXXXXX)
trap 'find "$group" -depth -type d -exec rmdir {} +' EXIT
(
    echo 0 >"$group/cgroup.procs"
    exec "$@"
)
