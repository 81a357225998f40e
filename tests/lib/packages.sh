# shellcheck shell=bash
# Installs Debian packages without starting anything.

export DEBIAN_FRONTEND=noninteractive

UPDATED=false

apt() { apt-get -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 "$@" </dev/null; }

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# A server's package starts the server unless told not to. A policy that is there
# stays; ours is taken away again.
forbid_service_starts() {
    local policy=/usr/sbin/policy-rc.d
    [ ! -e "$policy" ] || return 0
    on_exit rm -f "$policy"
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
}

# candidate PACKAGE: the version that apt would install, or "(none)".
candidate() { apt-cache policy "$1" | awk '$1 == "Candidate:" { print $2 }'; }

install_packages() {
    local package missing=() log
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    if [ "${#missing[@]}" = 0 ]; then
        note "already there: $*"
        return
    fi
    need_root
    forbid_service_starts
    log=$(mktemp)
    on_exit rm -f "$log"
    if ! $UPDATED; then
        note "apt-get update"
        apt update >"$log" 2>&1 || note "apt-get update failed; trying with the lists that are there"
        UPDATED=true
    fi
    note "apt-get install ${missing[*]}"
    if ! apt install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        die "apt-get install failed"
    fi
    disable_services "${missing[@]}"
}

# The tests start servers of their own. Nothing that only they wanted must come up
# at the next boot either.
disable_services() {
    local units
    [ -d /run/systemd/system ] || return 0
    mapfile -t units < <(dpkg -L "$@" | sed -n 's,.*/lib/systemd/system/\([^/@]*\.\(service\|socket\|target\)\)$,\1,p' | sort -u)
    [ "${#units[@]}" = 0 ] || systemctl --quiet disable "${units[@]}" >/dev/null 2>&1 || true
}
