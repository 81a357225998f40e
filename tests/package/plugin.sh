#!/usr/bin/env bash
# What tests/package.sh does in a clean Debian, 12 or 13: the life of the mail plugin's package on one
# backend, each case where the one before left off.
set -euo pipefail

# shellcheck source=tests/package/with-plugin.sh
source "$(dirname "$0")/with-plugin.sh"

ONLY=${1:-}
DEBS=("$(plugin_for "$(</usr/share/dovecot/dovecot-abi)")" "$(compgen -G "/packages/${COMMAND_PACKAGE}_*.deb")")

it_installs_and_changes_nothing() {
    local file
    doveconf -n >"$WORK/doveconf"
    apt-get -q install -y --no-install-recommends "${DEBS[@]}"
    doveconf -n | diff "$WORK/doveconf" - || die "Dovecot's configuration changed"
    for file in "$MODULES/$MAIL_PLUGIN" "$MODULES/$DOVEADM_MODULE"; do
        equal "$file" "$(stat -c '%U:%G %a' "$file")" "root:root 644"
        grep -qF "$(sed -n 's/^#define DOVECOT_ABI_VERSION "\(.*\)"/\1/p' /usr/include/dovecot/config.h)" "$file" ||
            die "$file is for another Dovecot"
    done
    state_is "ii "
}

# for_another_dovecot FILE: the same package, but for a Dovecot that is not here, and newer.
for_another_dovecot() {
    rm -rf "$WORK/other"
    dpkg-deb -R "${DEBS[0]}" "$WORK/other"
    sed -i 's/^Version: .*/&.9/; s/dovecot-abi-[a-z0-9.]*/&9/' "$WORK/other/DEBIAN/control"
    printf 'nonsense\n' >"$WORK/other$MODULES/$MAIL_PLUGIN"
    dpkg-deb -Znone -b "$WORK/other" "$1"
}

another_dovecots_is_not_even_unpacked() {
    for_another_dovecot "$WORK/other.deb"
    ! dpkg --install "$WORK/other.deb" 2>"$WORK/dpkg" || die "installed"
    grep 'pre-dependency problem' "$WORK/dpkg"
    ! apt-get -q install -y "$WORK/other.deb" || die "installed by apt"
    ! grep -q nonsense "$MODULES/$MAIL_PLUGIN" || die "unpacked"
    state_is "ii "
}

# elsewhere COMMAND...: on another backend, with list indexes of its own.
elsewhere() {
    # shellcheck disable=SC2016 # for the inner shell
    unshare --mount --uts --propagation private bash -euc '
        hostname backend2.example.org
        mount -t tmpfs tmpfs /dev/shm
        install -d -o vmail -g vmail -m 0700 /dev/shm/dovecot-listindex
        exec "$@"' elsewhere "$@"
}

logins_deliveries_and_doveadm_are_right() {
    use_plugin
    imap create:One >/dev/null
    equal "folders" "$(folders)" "INBOX One"
    [ -s "$LISTINDEX/f5/alice/dovecot.list.index.log" ] || die "no list index"
    equal "who claimed" "$(claimed_by)" backend1.example.org
    elsewhere doveadm mailbox create -u alice Two
    equal "who claimed" "$(claimed_by)" backend2.example.org
    equal "folders" "$(folders)" "INBOX One Two"
    printf 'Subject: x\n\nx\n' | elsewhere /usr/lib/dovecot/dovecot-lda -o lda_mailbox_autocreate=yes -d alice -m Three
    equal "who claimed" "$(claimed_by)" backend2.example.org
    equal "folders" "$(folders)" "INBOX One Three Two"
    imap look | grep -Fx 'Three 1'
    [ -s "$LISTINDEX/f5/alice/.lasthost" ] || die "no record"
    ! grep -E 'Error|Fatal|Panic' /var/log/dovecot.log || die "Dovecot logged the errors above"
}

doveadm_cleans_as_the_manual_says() {
    indented docs/from-the-plugin.md 'A cron job that follows the manual' >"$WORK/cron"
    sh "$WORK/cron"
    [ -s "$LISTINDEX/f5/alice/.lasthost" ] || die "too young, and cleaned"
    find "$LISTINDEX" -exec touch --date '8 days ago' {} +
    sh "$WORK/cron"
    [ -z "$(ls -A "$LISTINDEX/f5/alice" 2>/dev/null)" ] || die "still there"
    equal "folders" "$(folders)" "INBOX One Three Two"
}

# log_in USER: logins until the upgrade is over, 25 at least.
log_in() {
    local n=0
    until [ "$n" -ge 25 ] && [ -e "$WORK/upgraded" ]; do
        python3 "$REPO/tests/lib/mailclient.py" imap 143 "$1" names >/dev/null || return
        n=$((n + 1))
        printf '.' >>"$WORK/logins"
    done
}

an_upgrade_loses_no_login() {
    local before user pid pids=()
    dpkg-deb -R "${DEBS[0]}" "$WORK/newer"
    sed -i 's/^Version: .*/&.1/' "$WORK/newer/DEBIAN/control"
    dpkg-deb -Znone -b "$WORK/newer" "$WORK/newer.deb"
    before=$(stat -c %i "$MODULES/$MAIL_PLUGIN")
    : >"$WORK/logins"
    for user in u1 u2 u3 u4; do
        log_in "$user" &
        pids+=("$!")
    done
    wait_until 60 "logins before the upgrade" test -s "$WORK/logins"
    apt-get -q install -y "$WORK/newer.deb"
    touch "$WORK/upgraded"
    for pid in "${pids[@]}"; do
        wait "$pid" || die "a login failed"
    done
    [ "$(stat -c %i "$MODULES/$MAIL_PLUGIN")" != "$before" ] || die "nothing was upgraded"
}

# refused WORDS COMMAND...: WORDS are in what apt says.
refused() {
    local words=$1
    shift
    ! apt-get -q -y "$@" >"$WORK/apt" 2>&1 || die "$*: it is gone"
    grep -F "$words" "$WORK/apt" || die "it does not say what to do: $(<"$WORK/apt")"
    state_is "ii "
    equal "folders" "$(folders)" "INBOX One Three Two"
}

removal_is_refused_while_the_configuration_names_it() {
    local what
    for what in "remove $NAME" "purge $NAME" "remove $COMMAND_PACKAGE" "remove dovecot-core"; do
        # shellcheck disable=SC2086 # two words
        refused 'Take nfs_hostchange out of mail_plugins' $what
    done
    grep -F 'nfs-hostchange usercache forget' "$WORK/apt"
    # In one protocol only, and in a configuration that cannot be read.
    use_plugin_in lmtp
    refused 'Take nfs_hostchange out of mail_plugins' remove $NAME
    printf 'nonsense\n' >>/etc/dovecot/local.conf
    refused 'Take nfs_hostchange out of mail_plugins' remove $NAME
    sed -i '$d' /etc/dovecot/local.conf
}

removal_is_refused_while_the_running_dovecot_has_read_another_configuration() {
    use_no_plugin
    refused 'Restart Dovecot, then remove this package' remove $NAME
}

it_goes_when_nothing_needs_it() {
    doveadm reload
    wait_until 20 "Dovecot has read its configuration" test /run/dovecot/config -nt /etc/dovecot/local.conf
    # These are no files that could name it.
    touch /etc/dovecot /etc/dovecot/private
    apt-get -q -y remove $NAME >"$WORK/apt"
    grep -F 'nfs-hostchange usercache forget' "$WORK/apt"
    equal "modules" "$(find "$MODULES" -name '*nfs_hostchange*')" ""
    equal "folders" "$(folders)" "INBOX One Three Two"
    # What stays of it keeps nobody from using apt.
    apt-get -q install -y --reinstall "${DEBS[1]}"
    doveadm stop
    dpkg --purge $NAME $COMMAND_PACKAGE
    without_plugin
    ! find / -xdev -name '*nfs*hostchange*' ! -path '/packages*' ! -path '/project*' ! -path '/tmp/*' \
        ! -path '/var/cache/*' ! -path '/var/lib/*' ! -path '/proc/*' ! -path '/root/*' | grep . || die "left behind"
}

scenario - "The plugin's package changes nothing for Dovecot, and fits it" it_installs_and_changes_nothing
scenario - "A plugin for another Dovecot is not even unpacked" another_dovecots_is_not_even_unpacked
scenario - "With the plugin logins, deliveries and doveadm are right" logins_deliveries_and_doveadm_are_right
scenario - "The cron job of the commercial plugin's manual cleans" doveadm_cleans_as_the_manual_says
scenario - "An upgrade of the plugin during 100 logins loses none" an_upgrade_loses_no_login
scenario - "Removal of the plugin is refused while the configuration names it" removal_is_refused_while_the_configuration_names_it
scenario - "Removal of the plugin is refused until Dovecot has read its configuration" \
    removal_is_refused_while_the_running_dovecot_has_read_another_configuration
scenario - "The plugin goes when nothing needs it, and logins go on" it_goes_when_nothing_needs_it
run_scenarios
print_result
