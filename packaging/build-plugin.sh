#!/bin/bash
# Builds the mail plugin for the Dovecot whose headers are in $DOVECOT_INCLUDE (default:
# /usr/include/dovecot, of Debian's dovecot-dev), and puts it into $CARGO_TARGET_DIR/dist/modules/.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$here/../src/plugin
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$(dirname "$here")/target}
include=${DOVECOT_INCLUDE:-/usr/include/dovecot}
modules=${MODULES:-$CARGO_TARGET_DIR/dist/modules}
plugin=lib90_nfs_hostchange_plugin.so

[[ -f $include/config.h ]] || {
    echo "${0##*/}: no headers of Dovecot in $include; install dovecot-dev" >&2
    exit 1
}
cd "$here/.."
options=(--release --locked)
if [[ -d vendor ]]; then
    options+=(--offline --config 'source.crates-io.replace-with="vendor"'
        --config 'source.vendor.directory="vendor"')
fi
"${CARGO:-cargo}" build "${options[@]}" --package nfs-hostchange-plugin

mkdir -p "$modules"
# Renamed into place: a running Dovecot must never see half of it, nor another build.
new=$modules/$plugin.$$
trap 'rm -f "$new"' EXIT
# Sorted by name, functions of ours are beside each other: a mail process that has just been started
# waits for every page that it touches.
"${CC:-cc}" -std=gnu99 -O2 -fPIC -Wall -Wextra -Werror -Wno-unused-parameter -DHAVE_CONFIG_H \
    -I"$include" -shared -o "$new" \
    "$source/nfs-hostchange-plugin.c" "$CARGO_TARGET_DIR/release/libnfs_hostchange_plugin.a" \
    -static-libgcc -Wl,--gc-sections -Wl,-z,now -Wl,-z,relro -Wl,-z,noexecstack -s \
    -Wl,-z,pack-relative-relocs -Wl,--sort-section=name \
    -Wl,--version-script="$source/exports.map"
mv "$new" "$modules/$plugin"
