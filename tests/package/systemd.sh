#!/usr/bin/env bash
# What tests/package.sh does in the clean Debian where systemd runs it: the file system for list
# indexes, the sweep's service and timer, each case where the one before left off.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/../lib/common.sh"

WORK=$(mktemp -d)
NAME=dovecot-nfs-hostchange
TIMER=nfs-hostchange-sweep.timer
MOUNT='dev-shm-dovecot\x2dlistindex.mount'
LISTINDEX=/dev/shm/dovecot-listindex
DEB=$(compgen -G "/packages/${NAME}_*.deb")

timer_is() { equal "timer" "$(systemctl is-enabled "$TIMER" || true) $(systemctl is-active "$TIMER" || true)" "$1"; }

# list_index UID PATH: a user's directory as logins leave it.
list_index() {
    mkdir -p "$LISTINDEX/$2"
    printf '%s\n' "1 17 1700000000.000000001 backend1.example.org" >"$LISTINDEX/$2/.lasthost"
    : >"$LISTINDEX/$2/dovecot.list.index.log"
    chmod 0700 "$LISTINDEX/$2"
    chown -R "$1:$1" "$LISTINDEX/$2"
}

installing_starts_nothing() {
    # Until now nothing was to be started here.
    rm /usr/sbin/policy-rc.d
    dpkg --install "$DEB"
    timer_is "disabled inactive"
}

list_indexes_have_a_file_system_of_their_own() {
    local option
    equal "unit" "$(systemctl is-enabled "$MOUNT" || true) $(systemctl is-active "$MOUNT" || true)" "disabled inactive"
    systemctl enable --quiet --now "$MOUNT"
    equal "file system" "$(findmnt -n -o FSTYPE --mountpoint "$LISTINDEX")" tmpfs
    for option in noexec nodev nosuid size= nr_inodes=1048576; do
        findmnt -n -o OPTIONS --mountpoint "$LISTINDEX" | grep -q "$option" || die "no $option"
    done
    equal "root" "$(stat -c '%a %u %g' "$LISTINDEX")" "711 0 0"
}

# With many uids in root's directories, and with one uid in its own; and one whose note names
# a session that has ended, for which the kernel must be asked about its connection.
service_sweeps_what_nobody_uses() {
    printf 'SWEEP_AGE=0\nSWEEP_ROOT=%s\n' "$LISTINDEX" >/etc/default/nfs-hostchange
    mkdir -p "$LISTINDEX/f5" "$LISTINDEX/own"
    chmod 0711 "$LISTINDEX"
    chmod 1733 "$LISTINDEX/f5"
    list_index 100001 f5/alice
    list_index 100002 f5/bob
    printf '%-255s\n' "1 4 0 0 $(tr -d - </proc/sys/kernel/random/boot_id | head -c 16) 4000000.1 unix:$(
        printf '%x' "$(stat -L -c %i /proc/self/ns/net)"
    ):1:7fffffff" >"$LISTINDEX/f5/bob/.lasthost.without"
    chown 100002:100002 "$LISTINDEX/f5/bob/.lasthost.without"
    list_index 100003 f5/in-use
    list_index 5000 own/carl
    chown 5000:5000 "$LISTINDEX/own"
    chmod 0700 "$LISTINDEX/own"
    touch --no-create --time=access --date=yesterday "$LISTINDEX/own"
    exec 9<"$LISTINDEX/f5/in-use/dovecot.list.index.log"
    systemctl start nfs-hostchange-sweep.service || {
        journalctl --no-pager --unit nfs-hostchange-sweep.service
        die "the service failed"
    }
    equal "access time" "$(stat -c %x "$LISTINDEX/own" | cut -d' ' -f1)" "$(date --date=yesterday +%F)"
    equal "what is left" "$(cd "$LISTINDEX" && find . -mindepth 2 -type d ! -empty | sort | xargs)" "./f5/bob ./f5/in-use"
    # The next login is to know of that session.
    equal "what is left of bob's" "$(ls -A "$LISTINDEX/f5/bob")" .lasthost.without
    journalctl --unit nfs-hostchange-sweep.service | grep -q ' 4 users, 3 cleaned, .* freed; 1 in use; '
}

service_refuses_to_guess() {
    : >/etc/default/nfs-hostchange
    ! systemctl start nfs-hostchange-sweep.service 2>/dev/null || die "it swept something"
    [ -d "$LISTINDEX/f5/in-use" ]
    systemctl reset-failed
}

upgrade_keeps_the_timer_going() {
    systemctl enable --quiet --now "$TIMER"
    dpkg-deb -R "$DEB" "$WORK/newer"
    sed -i 's/^Version: .*/&.1/' "$WORK/newer/DEBIAN/control"
    dpkg-deb -Znone -b "$WORK/newer" "$WORK/newer.deb"
    # The settings were changed: nobody is asked, and they stay.
    dpkg --install "$WORK/newer.deb" </dev/null
    timer_is "enabled active"
    equal "unit" "$(systemctl is-enabled "$MOUNT") $(systemctl is-active "$MOUNT")" "enabled active"
    # Nor was it mounted anew.
    [ -d "$LISTINDEX/f5/in-use" ] || die "the list indexes are gone"
    equal "settings" "$(</etc/default/nfs-hostchange)" ""
}

removing_stops_the_timer() {
    systemctl disable --quiet --now "$MOUNT"
    ! mountpoint -q "$LISTINDEX" || die "still mounted"
    dpkg --remove "$NAME"
    equal "units" "$(systemctl list-units --plain --no-legend 'nfs-hostchange*')" ""
    dpkg --purge "$NAME"
    ! find /etc /run /lib/systemd /var/lib/systemd -name '*nfs-hostchange*' | grep . || die "left behind"
}

scenario - "Under systemd, installing starts nothing" installing_starts_nothing
scenario - "Under systemd, list indexes have a file system of their own" list_indexes_have_a_file_system_of_their_own
scenario - "Under systemd, the sweep's service works as hardened as it is" service_sweeps_what_nobody_uses
scenario - "Under systemd, the sweep's service refuses to guess" service_refuses_to_guess
scenario - "Under systemd, an upgrade keeps settings and timer" upgrade_keeps_the_timer_going
scenario - "Under systemd, removing stops the timer" removing_stops_the_timer
run_scenarios
print_result
