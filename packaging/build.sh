#!/bin/bash
# Builds everything that install.sh installs, and puts it into $PACKAGE (default:
# target/package): both programs, the command's manual page and the shells'
# completions.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$(dirname "$here")/target}
package=${PACKAGE:-$CARGO_TARGET_DIR/package}
cd "$here/.."

options=(--release --locked)
# A source package brings the crates of Cargo.lock along, and needs no network.
if [[ -d vendor ]]; then
    options+=(--offline --config 'source.crates-io.replace-with="vendor"'
        --config 'source.vendor.directory="vendor"')
fi
packaging/cargo-musl.sh build "${options[@]}" --no-default-features --bin nfs-hostchange-login
# Not static: it asks the system for users, which may be in LDAP.
cargo build "${options[@]}" --bin nfs-hostchange
cargo build "${options[@]}" --package generate

rm -rf "$package"
mkdir -p "$package"
cp "$CARGO_TARGET_DIR/$(uname -m)-unknown-linux-musl/release/nfs-hostchange-login" "$package/"
cp "$CARGO_TARGET_DIR/release/nfs-hostchange" "$package/"
"$CARGO_TARGET_DIR/release/generate" "$package/generated"
