#!/usr/bin/env bash
# Installs what building and testing need on Debian 12 or 13: Dovecot, a C compiler for
# linking, a few tools, and Rust unless a new enough one is there. Asks nothing,
# starts no service, and does nothing where everything is there already.
#
#   tests/setup.sh [roots] [packaging]
#
# With "roots", also Debians with other Dovecots (see lib/roots.sh), in the cache directory. With
# "packaging", also what building packages needs.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"

PACKAGES=(
    ca-certificates gcc libc6-dev
    dovecot-core dovecot-imapd dovecot-pop3d dovecot-lmtpd
    dovecot-managesieved dovecot-submissiond
    git python3 shellcheck strace procps systemd util-linux
)

step "packages"
install_packages "${PACKAGES[@]}"

# Debian 13's Rust is new enough; Debian 12 has a newer one beside its own.
step "Rust"
if ! find_cargo; then
    install_packages ca-certificates
    if dpkg --compare-versions "$(candidate cargo)" ge "1.$RUST_MINOR_NEEDED"; then
        install_packages cargo rustc
    else
        install_packages cargo-web rustc-web
    fi
    find_cargo || die "there is no Rust 1.$RUST_MINOR_NEEDED or newer"
fi
case $(command -v cargo) in
    /usr/bin/cargo)
        if is_installed cargo-web; then
            install_packages rust-web-clippy rustfmt-web
        else
            install_packages rust-clippy rustfmt
        fi
        ;;
    *)
        # With musl the wrapper starts faster; without, it is built with glibc.
        if command -v rustup >/dev/null; then
            rustup --quiet component add clippy rustfmt || note "rustup has no clippy or no rustfmt"
            rustup --quiet target add "$(uname -m)-unknown-linux-musl" || note "rustup has no target for musl"
        fi
        ;;
esac
note "$(cargo --version), $(command -v cargo)"

for part in "$@"; do
    case $part in
        roots)
            step "other Debians"
            install_packages debootstrap
            make_roots
            ;;
        packaging)
            step "packaging"
            install_packages build-essential debhelper dh-apparmor dovecot-dev iproute2 rpm selinux-policy-dev
            ;;
        *) die "usage: ${0##*/} [roots] [packaging]" ;;
    esac
done
