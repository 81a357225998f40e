# shellcheck shell=bash
# Debian systems with Dovecot, each in a directory of its own: what the tests run when they need
# another Dovecot than the machine's.
#
#   bookworm             Debian 12, Dovecot 2.3.19.1
#   bookworm-backports   Debian 12 with backports, Dovecot 2.3.21.1
#   trixie               Debian 13, Dovecot 2.4.1, Rust 1.85.1
#   forky                Debian 13 with the Dovecot of testing, 2.4.5 or later. What is in testing
#                        changes, and may not fit: then there is none.
#
# Nothing changes them once they are made: in-root.sh throws away what a command writes there.

ROOTS=$CACHE/roots
ALL_ROOTS=(bookworm bookworm-backports trixie)

has_root() { [ -d "$ROOTS/$1" ]; }

# Whether a root has the packages that it would be made with today.
is_complete() { [ "$(cat "$ROOTS/$1/.packages" 2>/dev/null)" = "${DOVECOT_IN_ROOT[*]} ${TOOLS_IN_ROOT[*]}" ]; }

# in_root NAME COMMAND [ARG...]: see in-root.sh.
in_root() { "$REPO/tests/lib/in-root.sh" "$@"; }

# make_roots [NAME...]: those that are not there yet, or lack packages; all, if none is named. A root is complete or
# absent: it is made beside its place and moved.
make_roots() {
    local name
    [ "$#" -gt 0 ] || set -- "${ALL_ROOTS[@]}" forky
    mkdir -p "$ROOTS"
    (
        flock 9
        # Of somebody who was interrupted.
        rm -rf --one-file-system "$ROOTS"/making.*
        for name in "$@"; do
            if is_complete "$name"; then
                note "already there: $ROOTS/$name"
            elif [ "$name" = forky ]; then
                (make_root "$name") || note "without $name"
            else
                make_root "$name"
            fi
        done
    ) 9<"$ROOTS"
}

make_root() {
    local name=$1 making
    making=$(mktemp -d "$ROOTS/making.XXXXXXXX")
    ROOT_LOG=$making/log
    note "making $ROOTS/$name"
    case $name in
        bookworm)
            bootstrap bookworm "$making/root"
            install_in_root "$making/root" "${DOVECOT_IN_ROOT[@]}" "${TOOLS_IN_ROOT[@]}"
            ;;
        bookworm-backports)
            is_complete bookworm || make_root bookworm
            cp -a "$ROOTS/bookworm" "$making/root"
            printf 'deb %s bookworm-backports main\n' "$(mirror)" >"$making/root/etc/apt/sources.list.d/backports.list"
            install_in_root "$making/root" --target-release bookworm-backports "${DOVECOT_IN_ROOT[@]}"
            ;;
        trixie)
            bootstrap trixie "$making/root"
            install_in_root "$making/root" "${DOVECOT_IN_ROOT[@]}" "${TOOLS_IN_ROOT[@]}" cargo rustc rust-clippy rustfmt
            ;;
        forky)
            is_complete trixie || make_root trixie
            cp -a "$ROOTS/trixie" "$making/root"
            # A mirror that stands still does no harm.
            printf 'deb [check-valid-until=no] %s forky main\n' "$(mirror)" >"$making/root/etc/apt/sources.list.d/forky.list"
            install_in_root "$making/root" --target-release forky "${DOVECOT_IN_ROOT[@]}"
            ;;
        *) die "no root is called $name" ;;
    esac
    printf '%s\n' "${DOVECOT_IN_ROOT[*]} ${TOOLS_IN_ROOT[*]}" >"$making/root/.packages"
    rm -rf --one-file-system "${ROOTS:?}/$name"
    mv -T "$making/root" "$ROOTS/$name"
    rm -r "$making"
}

DOVECOT_IN_ROOT=(
    dovecot-core dovecot-imapd dovecot-pop3d dovecot-lmtpd dovecot-managesieved dovecot-submissiond dovecot-sieve dovecot-dev
    dovecot-ldap dovecot-sqlite
)
TOOLS_IN_ROOT=(gcc ldap-utils libc6-dev libnss-extrausers procps python3 slapd sqlite3 strace)

# Where this machine gets its own Debian from.
mirror() {
    local codename
    # shellcheck disable=SC1091
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    # shellcheck disable=SC2016 # for apt
    apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' |
        awk -v codename="$codename" '$1 == codename { print $2; found = 1; exit } END { exit !found }' ||
        die "apt knows no mirror of Debian $codename; run apt-get update"
}

# bootstrap SUITE DIRECTORY: a bare Debian, in which nothing starts a service.
bootstrap() {
    # It mounts things there.
    in_log unshare --mount --propagation private \
        debootstrap --variant=minbase --include=ca-certificates "$1" "$2" "$(mirror)"
    printf '#!/bin/sh\nexit 101\n' >"$2/usr/sbin/policy-rc.d"
    chmod 0755 "$2/usr/sbin/policy-rc.d"
}

# install_in_root DIRECTORY [OPTION...] PACKAGE...
install_in_root() {
    local root=$1
    shift
    # shellcheck disable=SC2016 # for the inner shell
    in_log unshare --mount --pid --fork --kill-child --propagation private bash -euc '
        root=$1
        shift
        cp /etc/resolv.conf "$root/etc/resolv.conf"
        mount -t proc proc "$root/proc"
        apt=(chroot "$root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8
            PATH=/usr/sbin:/usr/bin:/sbin:/bin apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Options::=--force-unsafe-io)
        "${apt[@]}" update
        "${apt[@]}" install -y --no-install-recommends "$@"
        "${apt[@]}" clean
    ' install_in_root "$root" "$@"
}

# in_log COMMAND...: shows what it said only if it failed.
in_log() {
    nice "$@" >"$ROOT_LOG" 2>&1 </dev/null || {
        tail -n 40 "$ROOT_LOG" >&2
        die "failed: $*"
    }
}
