#!/usr/bin/env bash
# What tests/package.sh does in the clean Debian 12 after tests/package/plugin.sh: Dovecot becomes that
# of backports, with the plugin's package for it, without, and the other way round. The packages of
# Dovecot have been downloaded.
set -euo pipefail

# shellcheck source=tests/package/with-plugin.sh
source "$(dirname "$0")/with-plugin.sh"

COMMAND_DEB=$(compgen -G "/packages/${COMMAND_PACKAGE}_*.deb")
OLD_ABI=$(</usr/share/dovecot/dovecot-abi)
OLD=$(plugin_for "$OLD_ABI")
NEW=$(plugin_for 2.3.abiv21)
VERSION=$(dovecot --version)
mapfile -t DOVECOT < <(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 'dovecot-*' |
    sed -n '/nfs-hostchange/d; s/^installed //p')

upgrade() {
    apt-get -q install -y --no-install-recommends --target-release bookworm-backports "$@"
}

nothing_has_changed() {
    equal "Dovecot" "$(dovecot --version)" "$VERSION"
    state_is "ii "
    equal "audit" "$(dpkg --audit)" ""
    equal "folders" "$(folders)" "INBOX One"
    doveadm nfs usercache sweep 7days $LISTINDEX
}

installed_on_the_old_dovecot() {
    apt-get -q install -y --no-install-recommends "$COMMAND_DEB" "$OLD"
    use_plugin
    imap create:One >/dev/null || true
    nothing_has_changed
}

# apt would remove the plugin, and is told before it begins.
apt_does_not_upgrade_dovecot_alone() {
    ! upgrade "${DOVECOT[@]}" >"$WORK/apt" 2>&1 || die "upgraded"
    grep -F 'Nothing is changed: dovecot-nfs-hostchange-plugin does not fit' "$WORK/apt"
    nothing_has_changed
    apt-get -q -y upgrade --no-download
    nothing_has_changed
}

nobody_upgrades_the_plugin_alone() {
    ! apt-get -q install -y --no-download "$NEW" || die "apt did it"
    ! dpkg --install "$NEW" || die "dpkg did it"
    nothing_has_changed
}

# What docs/from-the-plugin.md says: with nobody logged in, since Dovecot's own programs do not fit
# each other meanwhile.
both_together_are_upgraded() {
    doveadm stop
    upgrade "${DOVECOT[@]}" "$NEW" >"$WORK/apt" 2>&1 || die "$(<"$WORK/apt")"
    equal "ABI" "$(</usr/share/dovecot/dovecot-abi)" 2.3.abiv21
    [ "$(dovecot --version)" != "$VERSION" ] || die "Dovecot is not upgraded"
    state_is "ii "
    pgrep -x dovecot || dovecot
    wait_until 20 "Dovecot answers" answers
    equal "folders" "$(folders)" "INBOX One"
    imap create:Two
    equal "folders" "$(folders)" "INBOX One Two"
    ! grep -E 'Error|Fatal|Panic' /var/log/dovecot.log || die "Dovecot logged the errors above"
    doveadm nfs usercache sweep 7days $LISTINDEX
    # What comes next in this Debian begins without them.
    doveadm stop
    wait_until 20 "Dovecot has ended" has_ended
    use_no_plugin
    dpkg --purge "$NAME" "$COMMAND_PACKAGE"
    without_plugin
}

has_ended() { ! pgrep -x dovecot; }

scenario - "On Dovecot 2.3.19 the plugin's package is in use" installed_on_the_old_dovecot
scenario - "apt does not upgrade Dovecot without the plugin for it, and logins go on" apt_does_not_upgrade_dovecot_alone
scenario - "The plugin for the newer Dovecot is not installed without it, and logins go on" nobody_upgrades_the_plugin_alone
scenario - "Dovecot 2.3.21 and the plugin for it are installed together, and logins are right" both_together_are_upgraded
run_scenarios
print_result
