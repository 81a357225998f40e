#!/bin/bash
# packaging/build-deb.sh [--plugin] DIR: builds the Debian source and binary packages of
# this source tree into DIR. With --plugin only the mail plugin's, for another Dovecot: the one
# whose headers are in $DOVECOT_INCLUDE (default: /usr/include/dovecot).
#
# What it does is what a distribution does: unpack the upstream tarballs, put
# debian/ into the tree, dpkg-buildpackage. The build itself uses no network.
set -euo pipefail

plugin=false
if [[ $1 == --plugin ]]; then
    plugin=true
    shift
fi
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=$(mkdir -p "$1" && cd "$1" && pwd)
name=dovecot-nfs-hostchange
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

version=$("$here/source-tarballs.sh" "$work")
tree=$work/$name-$version
tar -C "$work" -xf "$work/${name}_$version.orig.tar.gz"
tar -C "$tree" -xf "$work/${name}_$version.orig-vendor.tar.gz"
cp -a "$tree/packaging/debian" "$tree/debian"

# A toolchain from rustup is no package; otherwise the build dependencies are checked.
options=()
[[ $(command -v cargo) == /usr/bin/cargo && ! -v DOVECOT_INCLUDE ]] || options=(--no-check-builddeps)
results=(-type f)
if $plugin; then
    options+=(--build=any --build-profiles=pkg.dovecot-nfs-hostchange.plugin-only)
    results=(-name '*.deb')
fi
export CARGO_TARGET_DIR=$work/target

# Without network, where this system lets one be without.
offline=(unshare --net --)
"${offline[@]}" true 2>/dev/null || offline=()
(cd "$tree" && "${offline[@]}" dpkg-buildpackage --no-sign "${options[@]}")
find "$work" -maxdepth 1 "${results[@]}" -exec cp -t "$out" {} +
