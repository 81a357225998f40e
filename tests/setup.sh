#!/usr/bin/env bash
# Installs what building and testing need on Debian 12: Dovecot, a C compiler for
# linking, a few tools, and Rust unless a new enough one is there. Asks nothing,
# starts no service, and does nothing where everything is there already.
#
#   tests/setup.sh [roots] [packaging]
#
# With "roots", also Debians with other Dovecots (see lib/roots.sh), in the cache directory. With
# "packaging", also what building and looking at the packages needs.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"
# shellcheck source=tests/lib/build.sh
source "$REPO/tests/lib/build.sh"
# shellcheck source=tests/lib/packages.sh
source "$REPO/tests/lib/packages.sh"
# shellcheck source=tests/lib/roots.sh
source "$REPO/tests/lib/roots.sh"

PACKAGES=(
    ca-certificates gcc libc6-dev
    dovecot-core dovecot-imapd dovecot-pop3d dovecot-lmtpd
    dovecot-managesieved dovecot-submissiond
    python3 strace procps systemd util-linux
)

step "packages"
install_packages "${PACKAGES[@]}"

step "Rust"
if ! find_cargo; then
    install_packages rustc-web cargo-web
    find_cargo || die "cargo-web is not new enough either"
fi
note "$(cargo --version), $(command -v cargo)"

# With musl the wrapper starts faster; without, it is built with glibc.
if command -v rustup >/dev/null; then
    musl=$(uname -m)-unknown-linux-musl
    note "rustup target add $musl"
    rustup --quiet target add "$musl" || note "$musl is not to be had"
fi

for part in "$@"; do
    case $part in
        roots)
            step "other Debians"
            install_packages debootstrap
            make_roots
            ;;
        packaging)
            step "packaging"
            install_packages build-essential debhelper debootstrap dh-apparmor iproute2 lintian rpm
            ;;
        *) die "usage: ${0##*/} [roots] [packaging]" ;;
    esac
done
