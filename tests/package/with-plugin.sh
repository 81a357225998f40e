# shellcheck shell=bash
# shellcheck disable=SC2034 # some are for the scripts that source this
# A backend with the mail plugin's package, in a clean Debian.

# shellcheck source=tests/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/../lib/common.sh"

WORK=$(mktemp -d)
NAME=dovecot-nfs-hostchange-plugin
COMMAND_PACKAGE=dovecot-nfs-hostchange
MODULES=/usr/lib/dovecot/modules
MAIL_PLUGIN=lib90_nfs_hostchange_plugin.so
DOVEADM_MODULE=doveadm/lib90_doveadm_nfs_hostchange_plugin.so
LISTINDEX=/dev/shm/dovecot-listindex

# plugin_for ABI: the package for it.
plugin_for() { compgen -G "/packages/${NAME}_*+$1_*.deb" || die "no package for $1"; }

state_is() { equal "state" "$(dpkg-query -W -f '${db:Status-Abbrev}' $NAME)" "$1"; }

imap() { python3 "$REPO/tests/lib/mailclient.py" imap 143 alice "$@"; }
folders() { imap names | paste -sd' '; }
claimed_by() { head -n 1 /srv/mail/alice/mdbox/.lasthost; }
answers() { imap names >/dev/null 2>&1; }
dovecot_series() { dovecot --version | cut -c 1-3; }

# use_plugin: the configuration of docs/plugin.md for one mail uid, and a Dovecot that runs with it.
use_plugin() {
    local series
    series=$(dovecot_series)
    id vmail >/dev/null 2>&1 || adduser --quiet --system --group --uid 5000 --home /srv/mail --no-create-home vmail
    install -d -o vmail -g vmail -m 0700 /srv/mail
    sed -i 's/^!include auth-system/#&/' /etc/dovecot/conf.d/10-auth.conf
    configuration_of_plugin "$series"
    install -d -o vmail -g vmail -m 0700 $LISTINDEX
    # Without what other cases left in it.
    : >/var/log/dovecot.log
    pgrep -x dovecot >/dev/null || dovecot
    wait_until 20 "Dovecot answers" answers
}

configuration_of_plugin() {
    {
        block docs/plugin.md "$1"
        printf 'mailbox_list_index_very_dirty_syncs = yes\n'
    } >/etc/dovecot/conf.d/95-nfs-hostchange.conf
    {
        printf 'ssl = no\nlog_path = /var/log/dovecot.log\nprotocols = imap lmtp\n'
        case $1 in
            2.3) printf 'passdb {\n  driver = static\n  args = password=pw\n}\ndisable_plaintext_auth = no\n' ;;
            2.4) printf 'passdb static {\n  password = pw\n}\nauth_allow_cleartext = yes\ndovecot_storage_version = 2.3.19\n' ;;
        esac
        userdb_of_one_uid "$1" | grep -v 'default_fields'
    } >/etc/dovecot/local.conf
}

# Files that change now are newer than what Dovecot has read.
use_no_plugin() {
    sed -Ei '/^(mail_plugins|protocol)/,$d; s/:LISTINDEX=.*//; /mailbox_list_index_prefix/d' /etc/dovecot/conf.d/95-nfs-hostchange.conf
    touch /etc/dovecot/local.conf
}

# shellcheck disable=SC2016 # for Dovecot
use_plugin_in() {
    use_no_plugin
    case $(dovecot_series) in
        2.3) printf 'protocol %s {\n  mail_plugins = $mail_plugins nfs_hostchange\n}\n' "$1" ;;
        2.4) printf 'protocol %s {\n  mail_plugins {\n    nfs_hostchange = yes\n  }\n}\n' "$1" ;;
    esac >>/etc/dovecot/conf.d/95-nfs-hostchange.conf
}

without_plugin() {
    rm -rf /srv/mail /etc/dovecot/conf.d/95-nfs-hostchange.conf /etc/dovecot/local.conf $LISTINDEX /var/log/dovecot.log
    sed -i 's/^#!include auth-system/!include auth-system/' /etc/dovecot/conf.d/10-auth.conf
    deluser --quiet vmail
}
