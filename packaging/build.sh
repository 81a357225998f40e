#!/bin/bash
# Builds everything that install.sh installs, and puts it into
# $CARGO_TARGET_DIR/package (default: target/package): both programs, the
# command's manual page and the shells' completions.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$(dirname "$here")/target}
package=$CARGO_TARGET_DIR/package
cd "$here/.."

packaging/cargo-musl.sh build --release --locked --no-default-features --bin nfs-hostchange-login
# Not static: it asks the system for users, which may be in LDAP.
cargo build --release --locked --bin nfs-hostchange
cargo build --release --locked --example generate

rm -rf "$package"
mkdir -p "$package"
cp "$CARGO_TARGET_DIR/$(uname -m)-unknown-linux-musl/release/nfs-hostchange-login" "$package/"
cp "$CARGO_TARGET_DIR/release/nfs-hostchange" "$package/"
"$CARGO_TARGET_DIR/release/examples/generate" "$package/generated"
