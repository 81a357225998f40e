#!/usr/bin/env bash
# The packages: built twice and compared, read by lintian, and then used in a clean
# Debian 12 and a clean Debian 13: installed, configured as their README says, logged in
# through, upgraded, removed and purged. The command's package is for both, the mail plugin's is
# built for each Dovecot. The cases inside are those of tests/package/*.sh, and beforehand those
# of tests/doveadm.sh. Installs what it needs. With NFS_HOSTCHANGE_TESTS=long two
# more Debian 12 become Debian 13. The last line counts.
#
#   tests/package.sh [--packages DIR]
#
# With --packages, those of DIR are tested, and nothing is built.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"

ONLY=
read_options '--packages DIR' -- "$@"
[ -z "$PACKAGES" ] || PACKAGES=$(cd "$PACKAGES" && pwd)

need_root
step "installing what is needed (tests/setup.sh roots packaging)"
"$REPO/tests/setup.sh" roots packaging
find_cargo || die "no cargo"
make_work_dirs
RELEASES=(bookworm trixie)
LOG=$WORK/log

# logged COMMAND...: shows what it said only if it failed.
logged() {
    "$@" >"$LOG" 2>&1 || {
        tail -n 40 "$LOG" >&2
        die "failed: $*"
    }
}

# beside NAME COMMAND...: in the background, in a process group of its own that does not
# outlive this script. joined NAME: waits for it, and shows what it said if it failed.
beside() {
    local name=$1
    shift
    setsid -- nice "$@" >"$WORK/$name.log" 2>&1 &
    printf '%s\n' "$!" >"$WORK/$name.pid"
    on_exit end_group "$WORK/$name.pid"
}

joined() {
    local status=0
    wait "$(<"$WORK/$1.pid")" || status=$?
    rm "$WORK/$1.pid"
    [ "$status" = 0 ] || {
        tail -n 40 "$WORK/$1.log" >&2
        die "failed: $1"
    }
}

# shellcheck disable=SC2317 # called on exit
end_group() {
    [ ! -e "$1" ] || kill -- "-$(<"$1")" 2>/dev/null || true
}

# in_debian [--no-network | --systemd] COMMAND...: in the clean Debian, with mounts and
# processes of its own, which end with it, this project in /project and the
# packages in /packages. COMMAND is what systemd is started with, then.
in_debian() {
    local own=(unshare --mount --pid --fork --kill-child --uts --ipc --propagation private) how=
    case $1 in
        --no-network) own+=(--net) ;;
        --systemd)
            own=("$REPO/tests/package/own-control-group.sh" "${own[@]}" --net --cgroup)
            how=systemd
            ;;
    esac
    [[ $1 != --* ]] || shift
    # shellcheck disable=SC2016 # for the inner shell
    "${own[@]}" bash -euc '
        root=$1
        # Services that get mounts of their own want a root that is a mount point.
        mount --bind "$root" "$root"
        mount -t proc proc "$root/proc"
        mount -t tmpfs -o mode=0755 run "$root/run"
        if [ "$4" = systemd ]; then
            mount -t sysfs -o ro sysfs "$root/sys"
            mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
            # systemd makes itself at home in it.
            mount -t tmpfs -o mode=0755 dev "$root/dev"
            for node in null zero full random urandom tty; do
                touch "$root/dev/$node"
                mount --bind "/dev/$node" "$root/dev/$node"
            done
            ln -s /proc/self/fd "$root/dev/fd"
            ln -s pts/ptmx "$root/dev/ptmx"
            mkdir "$root/dev/shm" "$root/dev/pts"
        fi
        mount -t tmpfs -o mode=1777 shm "$root/dev/shm"
        mount -t devpts -o newinstance,ptmxmode=0666 devpts "$root/dev/pts"
        mount --bind "$2" "$root/project"
        mount --bind "$3" "$root/packages"
        mount -o remount,bind,ro "$root/project"
        ip link set lo up 2>/dev/null || true
        hostname backend1.example.org
        shift 4
        exec chroot "$root" env -i HOME=/root TERM=dumb LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive container=unshare \
            PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
    ' in_debian "$DEBIAN" "$REPO" "$PACKAGES" "$how" "$@"
}

# under_systemd SCRIPT: as a service in the clean Debian, started by a systemd that is the
# first process there; its output goes to stdout.
under_systemd() {
    local unit=$DEBIAN/etc/systemd/system/packages-test.service
    printf '%s\n' '[Service]' 'Type=oneshot' \
        'Environment=HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive' \
        'StandardOutput=file:/root/systemd.out' 'StandardError=inherit' "ExecStart=$1" \
        'ExecStopPost=systemctl --no-block --force poweroff' >"$unit"
    in_debian --systemd /lib/systemd/systemd --log-target=null --show-status=no \
        --unit=packages-test.service || true
    cat "$DEBIAN/root/systemd.out"
}

# copy_debian NAME [AS]: with nothing of ours, but with what the package depends on.
copy_debian() {
    DEBIAN=$WORK/${2:-$1}
    cp -a "$ROOTS/$1" "$DEBIAN"
    mkdir "$DEBIAN/project" "$DEBIAN/packages"
    cp /etc/resolv.conf "$DEBIAN/etc/resolv.conf"
}

# make_debian NAME: the same, with what looks at the package.
make_debian() {
    copy_debian "$1"
    printf 'path-include=/usr/share/man/*\n' >"$DEBIAN/etc/dpkg/dpkg.cfg.d/manual-pages"
    in_debian apt-get -q update
    in_debian apt-get -q install -y --no-install-recommends \
        apparmor bash-completion fish lintian man-db rpm systemd zsh "${TO_BUILD[@]}"
    [ "$1" != bookworm ] || download_backports
}

# The Dovecot that bookworm gets in tests/package/dovecot-upgrade.sh.
download_backports() {
    cp "$ROOTS/bookworm-backports/etc/apt/sources.list.d/backports.list" "$DEBIAN/etc/apt/sources.list.d/"
    in_debian apt-get -q update
    in_debian apt-get -q install -y --no-install-recommends --download-only \
        --target-release bookworm-backports "${DOVECOT_IN_ROOT[@]}"
}

# What builds the plugin's package there, unless this machine's fits.
TO_BUILD=()
what_builds_in() {
    local codename
    # shellcheck disable=SC1091
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    TO_BUILD=()
    [ "$codename" = "$1" ] || TO_BUILD=(debhelper dh-apparmor)
    [[ "$codename $1" != *' bookworm' ]] || [ "$codename" = bookworm ] || TO_BUILD+=(cargo-web rustc-web)
}

# abi_of NAME: as the package names it.
abi_of() { cat "$ROOTS/$1/usr/share/dovecot/dovecot-abi"; }

has_plugin_for() { compgen -G "$PACKAGES/dovecot-nfs-hostchange-plugin_*+$(abi_of "$1")_*.deb" >/dev/null; }

# The plugin's package, of the source package and with what that Debian has.
build_plugin_in() {
    DEBIAN=$WORK/$1
    in_debian --no-network sh -euc 'cd /root
        dpkg-source --extract /packages/*.dsc source
        (cd source && dpkg-buildpackage --no-sign --no-check-builddeps --build=any \
            --build-profiles=pkg.dovecot-nfs-hostchange.plugin-only)
        mv ./*.deb /packages/
        rm -r ./*'
}

# plugin_with_headers_of NAME: the package for a Dovecot that has only a root. Its two files are those of
# packaging/build-plugin.sh; around them is what was built for this machine's.
plugin_with_headers_of() {
    local root=$WORK/plugin-$1 abi first
    has_plugin_for "$1" && return
    abi=$(abi_of "$1")
    first=$(compgen -G "$PACKAGES/dovecot-nfs-hostchange-plugin_*.deb" | head -n 1)
    dpkg-deb -R "$first" "$root"
    CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPO/target} DOVECOT_INCLUDE=$ROOTS/$1/usr/include/dovecot \
        MODULES=$root/usr/lib/dovecot/modules "$REPO/packaging/build-plugin.sh"
    sed -Ei "s/^(Version: .*\+).*/\1$abi/; s/dovecot-abi-[a-z0-9.]+/dovecot-abi-$abi/" "$root/DEBIAN/control"
    dpkg-deb -Znone -b "$root" "$PACKAGES"
}

# tests_in NAME: everything that is to be seen in that Debian.
tests_in() {
    DEBIAN=$WORK/$1
    step "in the clean Debian $1"
    count_cases in_debian --no-network /project/tests/package/inside.sh
    count_cases in_debian --no-network /project/tests/package/plugin.sh
    [ "$1" != bookworm ] || count_cases in_debian --no-network /project/tests/package/dovecot-upgrade.sh
    count_cases under_systemd /project/tests/package/systemd.sh
    scenario - "lintian of $1 has neither errors nor warnings" no_lintian_tags "$1"
}

# release_upgrade SCRIPT
release_upgrade() {
    copy_debian bookworm "${1%.sh}"
    logged in_debian sh -c 'sed -i s/bookworm/trixie/g /etc/apt/sources.list && apt-get -q update &&
        apt-get -q full-upgrade -y --no-install-recommends --download-only'
    count_cases in_debian --no-network "/project/tests/package/$1"
}

# The maintainers' address is an example. Each package is for both releases: what one calls the
# directory of units, the other calls odd.
no_lintian_tags() {
    local tags
    DEBIAN=$WORK/$1
    # shellcheck disable=SC2016 # for the inner shell
    in_debian --no-network sh -c 'lintian --allow-root --fail-on none --suppress-tags bogus-mail-host \
        /packages/*.changes /packages/dovecot-nfs-hostchange-plugin_*+"$0"_*.deb' "$(abi_of "$1")" >"$WORK/lintian.log"
    tags=$(grep -E '^[EW]:' "$WORK/lintian.log" || true)
    [ -z "$tags" ] || die "$tags"
}

same_packages() {
    local second file
    # The first also has the plugin for other Dovecots.
    for second in "$WORK"/second/*.deb "$WORK"/second/*.dsc "$WORK"/second/*.tar.*; do
        file=${second##*/}
        cmp "$PACKAGES/$file" "$second" || die "$file differs"
    done
}

selinux_module_compiles() {
    [ -e /usr/share/selinux/devel/Makefile ] || skip "there is no selinux-policy-dev here"
    cp -r "$REPO/packaging/selinux" "$WORK/"
    make -s -C "$WORK/selinux" -f /usr/share/selinux/devel/Makefile dovecot_nfs_hostchange.pp
    [ -s "$WORK/selinux/dovecot_nfs_hostchange.pp" ]
}

# The RPM, of the programs that tests/run.sh has just built: %build would take
# as long as a Debian package does.
build_rpm() {
    local top=$WORK/rpmbuild spec=$REPO/packaging/rpm/dovecot-nfs-hostchange.spec version
    # There is no dovecot-devel whose version could be taken.
    local define=(--define "_topdir $top" --define "dovecot_evr 1:2.3.19.1")
    version=$("$REPO/packaging/source-tarballs.sh" "$top/SOURCES")
    rpmbuild "${define[@]}" --nodeps -bp "$spec"
    mkdir "$top/BUILD/dovecot-nfs-hostchange-$version/target"
    cp -r "$DIST" "$top/BUILD/dovecot-nfs-hostchange-$version/target/"
    rpmbuild "${define[@]}" --nodeps -bi --short-circuit "$spec"
    rpmbuild "${define[@]}" --nodeps -bb --short-circuit "$spec"
    cp "$top"/RPMS/*/*.rpm "$PACKAGES/"
}

# count_cases COMMAND...: one that shows cases of its own, and in the last line how many.
count_cases() {
    "$@" | tee "$LOG" || true
    count_result "$(tail -n 1 "$LOG")" || FAILED=$((FAILED + 1))
}

if [ -z "$PACKAGES" ]; then
    PACKAGES=$WORK/packages
    mkdir "$PACKAGES"
    step "building the Debian packages, twice, and making clean Debians"
    beside first "$REPO/packaging/build-deb.sh" "$PACKAGES"
    beside second "$REPO/packaging/build-deb.sh" "$WORK/second"
    for release in "${RELEASES[@]}"; do
        what_builds_in "$release"
        logged make_debian "$release"
    done
    joined first
    joined second
    step "building the plugin's package for the other Dovecots"
    for release in "${RELEASES[@]}"; do
        has_plugin_for "$release" || logged build_plugin_in "$release"
    done
    logged plugin_with_headers_of bookworm-backports
    step "building the RPM"
    build_release || die "it does not build"
    logged build_rpm
    scenario - "Building twice gives the same packages" same_packages
else
    step "making clean Debians"
    for release in "${RELEASES[@]}"; do
        logged make_debian "$release"
    done
fi
for release in "${RELEASES[@]}"; do
    tests_in "$release"
done
if [ "${NFS_HOSTCHANGE_TESTS:-}" = long ]; then
    step "two Debian 12 that become Debian 13"
    release_upgrade release-upgrade.sh
    release_upgrade release-upgrade-plugin.sh
fi
step "doveadm nfs usercache"
count_cases "$REPO/tests/doveadm.sh"
scenario - "The SELinux module compiles" selinux_module_compiles
run_scenarios
print_result
