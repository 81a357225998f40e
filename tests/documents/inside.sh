#!/usr/bin/env bash
# Runs in a stock Debian: inside.sh VERSION HOW DIST WORK. Writes WORK/block and WORK/userdb where
# the documents say, and lets alice move between two backends. HOW: system, plugin (the same users),
# vmail, example (WORK/block has the userdb), users (WORK/users, an SQLite database and an LDAP server
# have them, which WORK/userdb, WORK/sql and WORK/ldap ask).
set -euo pipefail

VERSION=$1 HOW=$2 DIST=$3 WORK=$4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
PASSWORD=pw

# --- what an administrator does once ------------------------------------------

install -m 0755 "$DIST/nfs-hostchange-login" /usr/lib/dovecot/nfs-hostchange-login
install -m 0755 "$DIST/nfs-hostchange" /usr/bin/nfs-hostchange
cp "$WORK/block" /etc/dovecot/conf.d/95-nfs-hostchange.conf
if [ "$HOW" = plugin ]; then
    install -m 0644 "$WORK/modules-$VERSION/lib90_nfs_hostchange_plugin.so" /usr/lib/dovecot/modules/
fi

one_uid() {
    adduser --quiet --system --group --uid 5000 --home /srv/mail --no-create-home vmail
    install -d -o vmail -g vmail -m 0700 /srv/mail
}
passdb() {
    case $VERSION in
        2.3) printf 'passdb {\n  driver = static\n  args = password=%s\n}\n' "$PASSWORD" ;;
        2.4) printf 'passdb static {\n  password = %s\n}\n' "$PASSWORD" ;;
    esac
}

sql_database() {
    install -m 0640 -o root -g dovecot "$WORK/sql" /etc/dovecot/dovecot-sql.conf.ext
    sqlite3 /etc/dovecot/users.db "CREATE TABLE users (userid, password, home, uid, gid);
        INSERT INTO users VALUES ('alice', '{PLAIN}$PASSWORD', '/srv/mail/alice', 5000, 5000)"
    chgrp dovecot /etc/dovecot/users.db
}

# One that is gone with this Debian.
ldap_server() {
    local port
    read -r port < <(python3 -B "$here/../lib/mailclient.py" ports 1)
    mkdir /run/ldap
    cat >/run/ldap/slapd.conf <<'END'
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/nis.schema
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix dc=example,dc=org
directory /run/ldap
END
    slapadd -f /run/ldap/slapd.conf <<END
dn: dc=example,dc=org
objectClass: domain
dc: example

dn: uid=alice,dc=example,dc=org
objectClass: account
objectClass: posixAccount
uid: alice
cn: alice
userPassword: $PASSWORD
uidNumber: 5000
gidNumber: 5000
homeDirectory: /srv/mail/alice
END
    slapd -d 0 -f /run/ldap/slapd.conf -h "ldap://127.0.0.1:$port" &
    SERVER=$!
    sed -i "s/@LDAP@/$port/" "$system" "$WORK/ldap"
    install -m 0640 -o root -g dovecot "$WORK/ldap" /etc/dovecot/dovecot-ldap.conf.ext
}
SERVER=

system=/etc/dovecot/conf.d/auth-system.conf.ext
PIDS=()
# shellcheck disable=SC2329 # the trap calls it
end() {
    local pid
    for pid in "${PIDS[@]}" $SERVER; do
        kill "$pid" 2>/dev/null || true
    done
    wait || true
}
trap end EXIT

case $VERSION-$HOW in
    *-system | *-plugin)
        useradd --create-home alice
        printf 'alice:%s\n' "$PASSWORD" | chpasswd
        [ ! -s "$WORK/userdb" ] || sed -i "/^userdb {/r $WORK/userdb" "$system"
        ;;
    *-vmail | *-example)
        one_uid
        { passdb && cat "$WORK/userdb"; } >"$system"
        ;;
    *-users)
        one_uid
        cp "$WORK/userdb" "$system"
        install -m 0640 -o root -g dovecot "$WORK/users" /etc/dovecot/users
        sql_database
        ! grep -q '^userdb ldap\|driver = ldap' "$system" || ldap_server
        ;;
esac

mkdir -p /etc/tmpfiles.d
nfs-hostchange check --tmpfiles >/etc/tmpfiles.d/nfs-hostchange.conf

# --- two backends --------------------------------------------------------------

# backend NAME PORT: a host name, list indexes and a Dovecot of its own.
backend() {
    local directory=$WORK/inside-$1
    mkdir -p "$directory"
    {
        printf 'listen = 127.0.0.1\nssl = no\nprotocols = imap\nlog_path = %s/log\n' "$directory"
        printf 'mailbox_list_index_very_dirty_syncs = yes\n'
        printf 'service imap-login {\n  inet_listener imap {\n    port = %s\n  }\n' "$2"
        printf '  inet_listener imaps {\n    port = 0\n  }\n}\n'
        case $VERSION in
            2.3) printf 'disable_plaintext_auth = no\n' ;;
            2.4) printf 'auth_allow_cleartext = yes\n' ;;
        esac
    } >"$directory/local.conf"
    touch /etc/dovecot/local.conf
    # shellcheck disable=SC2016 # for the inner shell
    unshare --mount --uts --propagation private bash -euc '
        hostname "$1.example.org"
        mount -t tmpfs tmpfs /dev/shm
        mkdir -p /run/dovecot
        mount -t tmpfs tmpfs /run/dovecot
        mount --bind "$2/local.conf" /etc/dovecot/local.conf
        # What systemd-tmpfiles would do, which is not in this Debian.
        while read -r _ path mode user _; do
            install -d -m "$mode" -o "$user" "$path"
        done </etc/tmpfiles.d/nfs-hostchange.conf
        exec dovecot -F' backend "$1" "$directory" &
    PIDS+=("$!")
}

client() { python3 -B "$here/../lib/mailclient.py" imap "$@"; }

wait_for() {
    for ((i = 0; i < 200; i++)); do
        if client "$1" alice names >/dev/null 2>&1; then
            return 0
        fi
        sleep 0.1
    done
    echo "no answer from port $1" >&2
    return 1
}

read -r A B < <(python3 -B "$here/../lib/mailclient.py" ports 2)
backend a "$A"
backend b "$B"
wait_for "$A"
wait_for "$B"

expected=INBOX
for turn in 1 2 3 4 5 6; do
    port=$A
    [ $((turn % 2)) = 1 ] || port=$B
    seen=$(client "$port" alice names | paste -sd' ')
    if [ "$seen" != "$expected" ]; then
        echo "turn $turn: the user sees '$seen' instead of '$expected'" >&2
        tail -n 20 "$WORK"/inside-*/log >&2
        exit 1
    fi
    client "$port" alice "create:f$turn" >/dev/null
    expected=$(printf '%s\nf%s\n' "${expected// /$'\n'}" "$turn" | LC_ALL=C sort | paste -sd' ')
done

# Something local was used all the time, and Dovecot has nothing to complain about.
grep -q 'host changed from [ab].example.org\|from .* to .*: ' "$WORK"/inside-*/log
if grep -E ' (Error|Fatal|Panic): ' "$WORK"/inside-*/log | grep -v 'nfs-hostchange: user='; then
    exit 1
fi

# And check has nothing to say but hints; status and locate ask the same Dovecot.
in_backend() { nsenter --target "${PIDS[0]}" --mount --uts --root nfs-hostchange "$@"; }
in_backend check --user alice
if [ "$HOW" != plugin ]; then
    in_backend status --user alice | grep '^in step  *no'
    in_backend locate --user alice | grep 'the list index is local'
fi

# When the wrapper is broken, what docs/troubleshooting.md says lets everybody in again.
if [ "$HOW" = vmail ]; then
    rm /usr/lib/dovecot/nfs-hostchange-login
    if client "$A" alice names >/dev/null 2>&1; then
        echo "a login without the program succeeds" >&2
        exit 1
    fi
    cp "$WORK/without" /etc/dovecot/conf.d/96-without.conf
    kill -HUP "${PIDS[0]}"
    wait_for "$A"
fi
