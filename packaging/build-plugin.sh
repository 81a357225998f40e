#!/bin/bash
# Builds the mail plugin and the doveadm module for the Dovecot whose headers are in $DOVECOT_INCLUDE
# (default: /usr/include/dovecot, of Debian's dovecot-dev), and puts them into
# $CARGO_TARGET_DIR/dist/modules/. CPPFLAGS, CFLAGS and LDFLAGS are a distribution's.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
source=$here/../src/plugin
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$(dirname "$here")/target}
include=${DOVECOT_INCLUDE:-/usr/include/dovecot}
modules=${MODULES:-$CARGO_TARGET_DIR/dist/modules}

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

read -ra cflags <<<"${CPPFLAGS:-} ${CFLAGS:--O2}"
# A distribution strips what it builds itself.
read -ra ldflags <<<"${LDFLAGS:--s}"

# module FILE SOURCE...: renamed into place, since a running Dovecot must never see half of it, nor
# another build. Sorted by name, functions of ours are beside each other: a mail process that has
# just been started waits for every page that it touches.
module() {
    local file=$modules/$1
    shift
    mkdir -p "${file%/*}"
    "${CC:-cc}" -std=gnu99 "${cflags[@]}" -fPIC -Wall -Wextra -Werror -Wno-unused-parameter -DHAVE_CONFIG_H \
        -I"$include" -shared -o "$file.$$" "$@" "${ldflags[@]}" \
        -static-libgcc -Wl,--gc-sections -Wl,-z,now -Wl,-z,relro -Wl,-z,noexecstack \
        -Wl,-z,pack-relative-relocs -Wl,--sort-section=name \
        -Wl,--version-script="$source/exports.map"
    mv "$file.$$" "$file"
}
trap 'rm -f "$modules"/*."$$" "$modules"/doveadm/*."$$"' EXIT

module lib90_nfs_hostchange_plugin.so \
    "$source/nfs-hostchange-plugin.c" "$CARGO_TARGET_DIR/release/libnfs_hostchange_plugin.a"
module doveadm/lib90_doveadm_nfs_hostchange_plugin.so "$source/doveadm-nfs-hostchange-plugin.c"
