#!/bin/bash
# packaging/build-rpm.sh DIR [RPMBUILD OPTION...]: builds the source and binary
# RPM of this source tree into DIR.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
shift
top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT

"$here/source-tarballs.sh" "$top/SOURCES" >/dev/null
# The same commit gives the same package.
SOURCE_DATE_EPOCH=$(git -C "$here" log -1 --format=%ct)
export SOURCE_DATE_EPOCH
rpmbuild -ba --define "_topdir $top" --define "use_source_date_epoch_as_buildtime 1" \
    --define "clamp_mtime_to_source_date_epoch 1" --define "_buildhost localhost" \
    "$@" "$here/rpm/dovecot-nfs-hostchange.spec"
find "$top/RPMS" "$top/SRPMS" -name '*.rpm' -exec cp -t "$out" {} +
