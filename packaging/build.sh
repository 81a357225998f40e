#!/bin/bash
# Builds everything that is installed, and leaves it in $CARGO_TARGET_DIR/dist (target/dist):
#
#   nfs-hostchange-login   the wrapper, static
#   nfs-hostchange         the administrator's command
#   generated/             the command's manual page and the shells' completions
#   modules/               the mail plugin, where Dovecot's headers are (see build-plugin.sh)
#
# What has not changed keeps its time. CARGO names another cargo than the first on PATH.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
cargo=${CARGO:-cargo}
dist=$CARGO_TARGET_DIR/dist
options=(--release --locked)
# A source package brings the crates of Cargo.lock along, and needs no network.
if [[ -d vendor ]]; then
    options+=(--offline --config 'source.crates-io.replace-with="vendor"'
        --config 'source.vendor.directory="vendor"')
fi

# put FILE: what is in dist is a copy, since a program as the linker wrote it starts slower; and
# it takes its place whole, since somebody may be executing the old one.
put() {
    local to=$dist/${1##*/}
    cmp -s "$1" "$to" && return
    mkdir -p "$dist"
    cp "$1" "$to.$$"
    mv "$to.$$" "$to"
}

if [[ -f ${DOVECOT_INCLUDE:-/usr/include/dovecot}/config.h ]]; then
    packaging/build-plugin.sh
fi

# Both programs are static. At every login the dynamic loader would cost more than the whole job; and the
# command runs on whatever release of whatever distribution. Neither asks the C library for
# users, groups or hosts, which a static program could not look up everywhere.
#
# The wrapper starts faster with musl than with glibc, but not every toolchain has that target:
# rustup's has, Debian's has not. The command's threads allocate, which musl is slow at.
gnu=$(uname -m)-unknown-linux-gnu
musl=$(uname -m)-unknown-linux-musl
wrapper=$gnu
! compgen -G "$(rustc --print sysroot)/lib/rustlib/$musl/lib/libstd-*.rlib" >/dev/null || wrapper=$musl
export RUSTFLAGS="${RUSTFLAGS-} -C target-feature=+crt-static"
"$cargo" build "${options[@]}" --target "$wrapper" --no-default-features --bin nfs-hostchange-login
put "$CARGO_TARGET_DIR/$wrapper/release/nfs-hostchange-login"
"$cargo" build "${options[@]}" --target "$gnu" --package dovecot-nfs-hostchange --package generate \
    --bin nfs-hostchange --bin generate
put "$CARGO_TARGET_DIR/$gnu/release/nfs-hostchange"
"$CARGO_TARGET_DIR/$gnu/release/generate" "$dist/generated.$$"
rm -rf "$dist/generated"
mv -T "$dist/generated.$$" "$dist/generated"
