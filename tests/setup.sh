#!/usr/bin/env bash
# Installs what building and testing need on Debian 12: Dovecot, a C compiler for
# linking, a few tools, and Rust unless a new enough one is there. Asks nothing,
# starts no service, and does nothing where everything is there already.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"
# shellcheck source=tests/lib/build.sh
source "$REPO/tests/lib/build.sh"

PACKAGES=(
    ca-certificates gcc libc6-dev
    dovecot-core dovecot-imapd dovecot-pop3d dovecot-lmtpd
    python3 strace procps util-linux
)

UPDATED=false

export DEBIAN_FRONTEND=noninteractive

apt() { apt-get -qq -o DPkg::Lock::Timeout=600 -o Dpkg::Use-Pty=0 "$@" </dev/null; }

is_installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# Dovecot's package starts Dovecot on the mail ports unless told not to. A policy
# that is there stays; ours is taken away again.
forbid_service_starts() {
    local policy=/usr/sbin/policy-rc.d
    [ ! -e "$policy" ] || return 0
    on_exit rm -f "$policy"
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
}

install_packages() {
    local package missing=() dovecot_is_new=false log
    for package in "$@"; do
        is_installed "$package" || missing+=("$package")
    done
    if [ "${#missing[@]}" = 0 ]; then
        note "already there: $*"
        return
    fi
    need_root
    is_installed dovecot-core || dovecot_is_new=true
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
    # The tests start Dovecots of their own. One that nobody asked for must not
    # come up at the next boot either.
    if $dovecot_is_new && [ -d /run/systemd/system ]; then
        systemctl --quiet disable dovecot.service dovecot.socket >/dev/null 2>&1 || true
    fi
}

step "packages"
install_packages "${PACKAGES[@]}"

step "Rust"
if ! find_cargo; then
    install_packages rustc-web cargo-web
    find_cargo || die "cargo-web is not new enough either"
fi
note "$(cargo --version), $(command -v cargo)"

# The wrapper is to be a static musl program. rustup has that target ready made;
# Debian's Rust has what packaging/cargo-musl.sh makes it from.
if [ "$(command -v cargo)" = /usr/bin/cargo ]; then
    install_packages rust-web-src musl-tools
elif command -v rustup >/dev/null; then
    musl=$(uname -m)-unknown-linux-musl
    note "rustup target add $musl"
    rustup --quiet target add "$musl" || note "$musl is not to be had"
fi
