#!/bin/bash
# Puts what packaging/build-plugin.sh made below $DESTDIR. The Debian package, the RPM and an
# installation by hand all use this.
#
#   DIST=       (default: target/dist)
#   DESTDIR=    root of the installation (default: /)
#   MODULEDIR=  Dovecot's modules (default: /usr/lib/dovecot/modules)
set -euo pipefail

DIST=${DIST:-${CARGO_TARGET_DIR:-$(dirname "${BASH_SOURCE[0]}")/../target}/dist}
MODULEDIR=${DESTDIR:-}${MODULEDIR:-/usr/lib/dovecot/modules}

for file in lib90_nfs_hostchange_plugin.so doveadm/lib90_doveadm_nfs_hostchange_plugin.so; do
    # By rename: a session that starts now must not load half of it.
    install -D -m 0644 "$DIST/modules/$file" "$MODULEDIR/$file.new"
    mv -f "$MODULEDIR/$file.new" "$MODULEDIR/$file"
done
