#!/usr/bin/env bash
# What tests/package.sh does in one more clean Debian 12, with the long tests: it becomes Debian 13 with
# the mail plugin's package. The packages of Debian 13 are there.
set -euo pipefail

# shellcheck source=tests/package/with-plugin.sh
source "$(dirname "$0")/with-plugin.sh"

OLD=$(plugin_for "$(</usr/share/dovecot/dovecot-abi)")
NEW=$(plugin_for 2.4.abiv1)

full_upgrade() {
    apt-get -q full-upgrade -y --no-install-recommends -o Dpkg::Options::=--force-confnew "$@"
}

a_user_has_a_list_index_on_debian_12() {
    dpkg --install "$(compgen -G "/packages/${COMMAND_PACKAGE}_*.deb")" "$OLD"
    use_plugin
    imap create:One append:One
    equal "folders" "$(folders)" "INBOX One"
    [ -s "$LISTINDEX/f5/alice/.lasthost" ] || die "no record"
}

debian_does_not_leave_the_plugin_behind() {
    ! full_upgrade >"$WORK/apt" 2>&1 || die "upgraded: $(tail -n 30 "$WORK/apt")"
    grep -F 'Nothing is changed: dovecot-nfs-hostchange-plugin does not fit' "$WORK/apt"
    equal "audit" "$(dpkg --audit)" ""
    equal "Dovecot" "$(dovecot_series)" 2.3
    state_is "ii "
    equal "folders" "$(folders)" "INBOX One"
}

debian_12_becomes_13_with_the_plugin_for_it() {
    doveadm stop
    full_upgrade "$NEW" >"$WORK/apt" 2>&1 || die "$(tail -n 30 "$WORK/apt")"
    equal "Dovecot" "$(dovecot_series)" 2.4
    state_is "ii "
    equal "audit" "$(dpkg --audit)" ""
}

the_plugin_goes_on_with_2_4() {
    sed -i 's/^!include auth-system/#&/' /etc/dovecot/conf.d/10-auth.conf
    configuration_of_plugin 2.4
    pgrep -x dovecot || dovecot
    wait_until 20 "Dovecot answers" answers
    equal "folders" "$(folders)" "INBOX One"
    imap look | grep -Fx 'One 1'
    doveadm nfs usercache sweep 7days $LISTINDEX
    ! grep -E 'Error|Fatal|Panic' /var/log/dovecot.log || die "Dovecot logged the errors above"
}

scenario - "On Debian 12 a user has a list index with the plugin" a_user_has_a_list_index_on_debian_12
scenario - "Debian 12 does not become Debian 13 without the plugin for it, and logins go on" debian_does_not_leave_the_plugin_behind
scenario - "Debian 12 becomes Debian 13 with the plugin for it" debian_12_becomes_13_with_the_plugin_for_it
scenario - "With the configuration for 2.4 the plugin goes on" the_plugin_goes_on_with_2_4
run_scenarios
print_result
