#!/bin/bash
# packaging/source-tarballs.sh DIR: the source of this version, and the crates
# of Cargo.lock, in DIR under the names that dpkg-source and the .spec expect:
#
#   dovecot-nfs-hostchange_VERSION.orig.tar.gz         the files under version control
#   dovecot-nfs-hostchange_VERSION.orig-vendor.tar.gz  vendor/, the crates
#
# The same commit gives the same bytes. Needs the crates' registry, or the
# crates in cargo's cache. Prints VERSION.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repo=$(dirname "$here")
out=$(mkdir -p "$1" && cd "$1" && pwd)
name=dovecot-nfs-hostchange
version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$repo/Cargo.toml" | head -n 1)
time=$(git -C "$repo" log -1 --format=%ct)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# pack DIR FILE: a tarball of $work/DIR that depends on its contents only.
pack() {
    tar --sort=name --mtime="@$time" --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX \
        -C "$work" -c "$1" | gzip -n >"$out/$2"
}

mkdir "$work/$name-$version"
git -C "$repo" ls-files -z |
    tar -C "$repo" --null --files-from=- -c |
    tar -C "$work/$name-$version" -x
pack "$name-$version" "${name}_$version.orig.tar.gz"

"${CARGO:-cargo}" vendor --manifest-path "$repo/Cargo.toml" --quiet --locked --versioned-dirs \
    "$work/vendor" >/dev/null
# What no build here compiles, for Windows or for the tests, is nine tenths of the size, and some
# of it has no source. Cargo wants those crates to exist, no more.
mapfile -t needed < <(for libc in gnu musl; do
    "${CARGO:-cargo}" tree --manifest-path "$repo/Cargo.toml" --locked --workspace --edges normal,build \
        --target "x86_64-unknown-linux-$libc" --prefix none --format '{p}' | awk '{ print $1 "-" substr($2, 2) }'
done | sort -u)
for crate in "$work/vendor"/*; do
    [[ " ${needed[*]} " != *" ${crate##*/} "* ]] || continue
    checksum=$(sed -n 's/.*"package":"\([0-9a-f]*\)".*/\1/p' "$crate/.cargo-checksum.json")
    find "$crate" -mindepth 1 ! -name Cargo.toml -delete
    mkdir -p "$crate/src"
    touch "$crate/src/lib.rs"
    printf '{"files":{},"package":"%s"}\n' "$checksum" >"$crate/.cargo-checksum.json"
done
pack vendor "${name}_$version.orig-vendor.tar.gz"

echo "$version"
