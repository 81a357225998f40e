#!/usr/bin/env bash
# Installs what the NFS laboratory needs: an emulator, the tools of an NFS server and
# client, a kernel to boot, the program that boots it, and a Debian with another Dovecot.
# Starts no service. The last three stay out of the system, in a cache directory.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/../lib/common.sh"
# shellcheck source=tests/nfs/cache.sh
source "$REPO/tests/nfs/cache.sh"

PACKAGES=(
    busybox-static debootstrap dovecot-core dovecot-imapd dovecot-lmtpd
    e2fsprogs iproute2 kmod nfs-common nfs-kernel-server python3 python3-venv qemu-system-x86 rpcbind util-linux
)

[ "$(uname -m)" = x86_64 ] || die "the laboratory emulates a PC; it was never tried on $(uname -m)"
step "packages of the NFS laboratory"
install_packages "${PACKAGES[@]}"
mkdir -p "$CACHE"

step "the other Dovecot"
# The one has the other Dovecot, both the headers that the plugin is built with.
make_roots bookworm trixie

# What the cache holds is complete or not there: it is made beside its place and moved.
making=$(mktemp -d "$CACHE/making.XXXXXXXX")
on_exit rm -rf "$making"

step "virtme-ng"
if cmp -s "$REPO/tests/nfs/requirements.txt" "$VENV/requirements.txt"; then
    note "already there: $VENV"
else
    # Programs in it name its path, so it is made in its place; the list of what is in it comes last.
    rm -rf "$VENV"
    "$PYTHON" -m venv "$VENV"
    "$VENV/bin/pip" --quiet --disable-pip-version-check install --requirement "$REPO/tests/nfs/requirements.txt"
    cp "$REPO/tests/nfs/requirements.txt" "$VENV/"
    note "installed in $VENV"
fi

step "kernel"
if kernel_version >/dev/null; then
    note "already there: $(kernel_version), $KERNEL"
else
    apt-cache show linux-image-amd64 >/dev/null 2>&1 || apt update
    package=$(apt-cache depends linux-image-amd64 | sed -n 's/^ *Depends: //p' | head -n 1)
    note "$package"
    (cd "$making" && apt -o APT::Sandbox::User=root download "$package")
    dpkg-deb --extract "$making/$package"_*.deb "$making/kernel"
    depmod --basedir "$making/kernel" "$(ls "$making/kernel/lib/modules")"
    rm -rf "$KERNEL"
    mv "$making/kernel" "$KERNEL"
    note "unpacked in $KERNEL"
fi
