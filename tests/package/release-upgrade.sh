#!/usr/bin/env bash
# What tests/package.sh does in one more clean Debian 12, with the long tests: it becomes Debian 13,
# and Dovecot 2.3 becomes 2.4, as docs/installation.md tells. The packages of Debian 13 are there.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/../lib/common.sh"

WORK=$(mktemp -d)
NAME=dovecot-nfs-hostchange
DEB=$(compgen -G "/packages/${NAME}_*.deb")
LISTINDEX=/dev/shm/dovecot-listindex
CLAIM=/srv/mail/alice/mdbox/.lasthost

imap() { python3 "$REPO/tests/lib/mailclient.py" imap 143 alice "$@"; }
folders() { imap names | paste -sd' '; }
in_step() { nfs-hostchange status --json --user alice | grep -o '"in_step":[a-z]*'; }

# ours VERSION: what docs/installation.md says for one mail uid, and what every Dovecot has of its own.
ours() {
    {
        block docs/installation.md "$1"
        printf 'mailbox_list_index_very_dirty_syncs = yes\n'
    } >/etc/dovecot/conf.d/95-nfs-hostchange.conf
    printf 'ssl = no\nlog_path = /var/log/dovecot.log\nprotocols = imap pop3 lmtp\n' >/etc/dovecot/local.conf
    sed -i 's/^!include auth-system/#&/' /etc/dovecot/conf.d/10-auth.conf
    case $1 in
        2.3) printf 'passdb {\n  driver = static\n  args = password=pw\n}\ndisable_plaintext_auth = no\n' ;;
        2.4) printf 'passdb static {\n  password = pw\n}\nauth_allow_cleartext = yes\ndovecot_storage_version = 2.3.19\n' ;;
    esac >>/etc/dovecot/local.conf
    userdb_of_one_uid "$1" >>/etc/dovecot/local.conf
}

start() {
    doveadm stop 2>/dev/null || true
    dovecot
    wait_until 10 "Dovecot answers" answers
}
answers() { (exec 9<>/dev/tcp/127.0.0.1/143) 2>/dev/null; }

# Steps 5 of the page, without systemd.
make_directories() {
    local path mode user
    nfs-hostchange check --tmpfiles >/etc/tmpfiles.d/nfs-hostchange.conf
    while read -r _ path mode user _; do
        install -d -m "$mode" -o "$user" "$path"
    done </etc/tmpfiles.d/nfs-hostchange.conf
}

# A folder made past every list index on this backend, as from another one.
another_backend_makes() {
    doveadm -o mailbox_list_index=no mailbox create -u alice "$1"
    setpriv --reuid vmail --regid vmail --clear-groups sh -c "echo other >$CLAIM.new && mv $CLAIM.new $CLAIM"
}

a_user_has_a_list_index_on_debian_12() {
    equal "Dovecot" "$(dovecot --version | cut -c 1-3)" 2.3
    dpkg --install "$DEB"
    adduser --quiet --system --group --uid 5000 --home /srv/mail --no-create-home vmail
    install -d -o vmail -g vmail -m 0700 /srv/mail
    mkdir -p /etc/tmpfiles.d
    printf '[log]\ntarget = "stderr"\n' >/etc/dovecot/nfs-hostchange.toml
    ours 2.3
    make_directories
    start
    imap create:One append:One
    imap create:Two
    equal "folders" "$(folders)" "INBOX One Two"
    equal "in step" "$(in_step)" '"in_step":true'
    [ -s "$LISTINDEX/f5/alice/dovecot.list.index.log" ] || die "no list index"
    doveadm stop
}

# Of packages' own files in /etc/dovecot the new ones are taken.
debian_12_becomes_13() {
    apt-get -q full-upgrade -y --no-install-recommends --no-download -o Dpkg::Options::=--force-confnew
    equal "Dovecot" "$(dovecot --version | cut -c 1-3)" 2.4
    equal "package" "$(dpkg-query -W -f '${db:Status-Abbrev}' "$NAME")" "ii "
    [ -e /etc/dovecot/nfs-hostchange.toml ] || die "the wrapper's configuration is gone"
    ! doveconf -n >/dev/null 2>&1 || die "Dovecot 2.4 takes the configuration of 2.3: the documents say that it does not"
}

dovecot_2_4_uses_the_list_index_of_2_3() {
    local log=$LISTINDEX/f5/alice/dovecot.list.index.log before
    before=$(stat -c %i "$log")
    : >/var/log/dovecot.log
    ours 2.4
    start
    equal "folders" "$(folders)" "INBOX One Two"
    equal "in step" "$(in_step)" '"in_step":true'
    [ "$(stat -c %i "$log")" = "$before" ] || die "it was made anew: $(</var/log/dovecot.log)"
    imap look | grep -Fx 'One 1' >/dev/null || die "$(imap look)"
}

another_backend_is_still_noticed() {
    another_backend_makes Three
    equal "folders" "$(folders)" "INBOX One Three Two"
    equal "in step" "$(in_step)" '"in_step":true'
}

after_a_reboot_nothing_is_missed() {
    doveadm stop
    rm -r "$LISTINDEX"
    make_directories
    start
    equal "folders" "$(folders)" "INBOX One Three Two"
    folders >/dev/null
    equal "in step" "$(in_step)" '"in_step":true'
}

check_has_nothing_but_hints() {
    nfs-hostchange check --user alice >"$WORK/check" || die "$(<"$WORK/check")"
}

scenario - "On Debian 12 a user has a local list index" a_user_has_a_list_index_on_debian_12
scenario - "Debian 12 becomes Debian 13, and the package stays" debian_12_becomes_13
scenario - "With the configuration for 2.4 the list index of 2.3 is used" dovecot_2_4_uses_the_list_index_of_2_3
scenario - "After the upgrade another backend is still noticed" another_backend_is_still_noticed
scenario - "After a reboot nothing is missed" after_a_reboot_nothing_is_missed
scenario - "After the upgrade check has nothing but hints" check_has_nothing_but_hints
run_scenarios
print_result
