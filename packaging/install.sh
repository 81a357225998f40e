#!/bin/bash
# Puts the built programs and everything that belongs to them below $DESTDIR.
# The Debian package, the RPM and an installation by hand all use this.
#
#   DIST=         what packaging/build.sh made (default: target/dist)
#   DESTDIR=      root of the installation (default: /)
#   LIBEXECDIR=   Dovecot's libexec directory (default: /usr/lib/dovecot)
#   UNITDIR=      systemd's unit directory (default: /usr/lib/systemd/system)
#   DEFAULTSDIR=  where services keep their variables (default: /etc/default)
#   DOCDIR=       default: /usr/share/doc/dovecot-nfs-hostchange
#   ZSHDIR=       zsh's completions (default: /usr/share/zsh/site-functions)
#   SECURITY=     apparmor or selinux: rules for that, too (default: none)
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DIST=${DIST:-${CARGO_TARGET_DIR:-$here/../target}/dist}
DESTDIR=${DESTDIR:-}
LIBEXECDIR=${LIBEXECDIR:-/usr/lib/dovecot}
UNITDIR=${UNITDIR:-/usr/lib/systemd/system}
DEFAULTSDIR=${DEFAULTSDIR:-/etc/default}
DOCDIR=${DOCDIR:-/usr/share/doc/dovecot-nfs-hostchange}
ZSHDIR=${ZSHDIR:-/usr/share/zsh/site-functions}
SECURITY=${SECURITY:-}

# put MODE SOURCE TARGET: a file with the paths of this system in it.
put() {
    mkdir -p "$DESTDIR$(dirname "$3")"
    sed -e "s|@libexecdir@|$LIBEXECDIR|g" -e "s|@defaults@|$DEFAULTSDIR|g" -e "s|@docdir@|$DOCDIR|g" "$2" >"$DESTDIR$3"
    chmod "$1" "$DESTDIR$3"
}

# program SOURCE TARGET: takes the place of an older one whole, since somebody may be logging in.
program() {
    install -D -m 0755 "$1" "$DESTDIR$2.new"
    mv -f "$DESTDIR$2.new" "$DESTDIR$2"
}

# settings SOURCE TARGET: what the administrator has written stays.
settings() {
    [ -e "$DESTDIR$2" ] || put 0644 "$1" "$2"
}

program "$DIST/nfs-hostchange-login" "$LIBEXECDIR/nfs-hostchange-login"
program "$DIST/nfs-hostchange" /usr/bin/nfs-hostchange
# For "doveadm exec nfs-hostchange".
ln -sfn ../../bin/nfs-hostchange "$DESTDIR$LIBEXECDIR/nfs-hostchange"

settings "$here/nfs-hostchange.toml" /etc/dovecot/nfs-hostchange.toml
settings "$here/systemd/nfs-hostchange.default" "$DEFAULTSDIR/nfs-hostchange"
put 0644 "$here/systemd/nfs-hostchange-sweep.service" "$UNITDIR/nfs-hostchange-sweep.service"
put 0644 "$here/systemd/nfs-hostchange-sweep.timer" "$UNITDIR/nfs-hostchange-sweep.timer"
# A mount unit is called like its place, as systemd-escape(1) writes it.
put 0644 "$here/systemd/list-indexes.mount" "$UNITDIR/dev-shm-dovecot\\x2dlistindex.mount"

# Packages run it; who installs by hand can do so, too.
put 0755 "$here/before-removal" /usr/share/dovecot-nfs-hostchange/before-removal

put 0644 "$here/man/nfs-hostchange-login.8" /usr/share/man/man8/nfs-hostchange-login.8
put 0644 "$here/man/nfs-hostchange.toml.5" /usr/share/man/man5/nfs-hostchange.toml.5
for page in "$DIST/generated"/*.8; do
    put 0644 "$page" "/usr/share/man/man8/${page##*/}"
done
put 0644 "$DIST/generated/nfs-hostchange.bash" /usr/share/bash-completion/completions/nfs-hostchange
put 0644 "$DIST/generated/_nfs-hostchange" "$ZSHDIR/_nfs-hostchange"
put 0644 "$DIST/generated/nfs-hostchange.fish" /usr/share/fish/vendor_completions.d/nfs-hostchange.fish

for page in "$here"/../docs/*.md; do
    put 0644 "$page" "$DOCDIR/${page##*/}"
done
for picture in "$here"/../docs/performance/*.svg; do
    put 0644 "$picture" "$DOCDIR/performance/${picture##*/}"
done
put 0644 "$here/examples/README" "$DOCDIR/examples/README"
put 0644 "$here/examples/dovecot-nfs-hostchange.conf" "$DOCDIR/examples/dovecot-nfs-hostchange.conf"
put 0644 "$here/examples/dovecot-2.4.conf" "$DOCDIR/examples/dovecot-2.4.conf"
put 0644 "$here/examples/prometheus-alerts.yml" "$DOCDIR/examples/prometheus-alerts.yml"
put 0644 "$here/examples/grafana-dashboard.json" "$DOCDIR/examples/grafana-dashboard.json"
put 0644 "$here/examples/cron.d" "$DOCDIR/examples/cron.d"
put 0644 "$here/examples/tmpfiles-one-uid.conf" "$DOCDIR/examples/tmpfiles-one-uid.conf"
put 0644 "$here/examples/tmpfiles-many-uids.conf" "$DOCDIR/examples/tmpfiles-many-uids.conf"

case $SECURITY in
    apparmor)
        put 0644 "$here/apparmor/usr.lib.dovecot.nfs-hostchange-login" /etc/apparmor.d/usr.lib.dovecot.nfs-hostchange-login
        for file in "$here"/apparmor/local-*; do
            put 0644 "$file" "$DOCDIR/examples/apparmor/${file##*/}"
        done
        ;;
    selinux)
        for file in "$here"/selinux/*; do
            put 0644 "$file" "$DOCDIR/examples/selinux/${file##*/}"
        done
        ;;
esac
