#!/usr/bin/env bash
# The first thing that runs in the emulated machine, as root.
#
# The machine's root directory is the host's own, read-only and uncached over 9p: every look at a path is a
# request to the emulator. The laboratory therefore works in a second copy of it, cached (nothing on the
# host changes what it needs meanwhile), with a tmpfs on top of it that takes everything written.
# Arguments: the name of this machine, the version of Dovecot in the host's root directory, and the directory there of a Debian
# with another Dovecot, with that one's version. The host offers two 9p shares: "labroot", its root directory, and "labout", the
# directory that holds these scripts, the programs under test, the list of jobs, and takes the results.
set -euo pipefail

root=/run/lab/root
# Inside of it.
other=/other

for module in loop ext4 nfsd nfs nfsv3 nfsv4 veth bridge; do
    modprobe "$module"
done

mkdir -p /run/lab/lower /run/lab/upper "$root"
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000,access=any labroot /run/lab/lower
mount -t tmpfs -o mode=0755 tmpfs /run/lab/upper

# writable NAME LOWER PLACE: the directory LOWER at PLACE, with what is written there in memory.
writable() {
    mkdir -p "/run/lab/upper/$1" "/run/lab/upper/$1.work" "$3"
    mount -t overlay -o "lowerdir=$2,upperdir=/run/lab/upper/$1,workdir=/run/lab/upper/$1.work" overlay "$3"
}

writable root /run/lab/lower "$root"
writable other "/run/lab/lower$3" "$root$other"
for directory in proc sys dev; do
    mount --rbind "/$directory" "$root/$directory"
done
for directory in run tmp var/log var/tmp; do
    mount -t tmpfs -o mode=0755 tmpfs "$root/$directory"
done
chmod 1777 "$root/tmp" "$root/var/tmp"
mkdir -p "$root/lab"
mount -t 9p -o rw,trans=virtio,version=9p2000.L,msize=512000,access=any labout "$root/lab"

for each in "$root" "$root$other"; do
    sed -i '/^vmail:/d' "$each/etc/passwd" "$each/etc/group"
    printf 'vmail:x:5000:5000::/nonexistent:/usr/sbin/nologin\n' >>"$each/etc/passwd"
    printf 'vmail:x:5000:\n' >>"$each/etc/group"
    mkdir -p "$each/opt/lab"
done
# A mounted share is uncached; programs that are started thousands of times belong in memory.
cp -r "$root"/lab/bin/* "$root"/opt/lab/
chmod -R go+rX "$root/opt/lab"

exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C MACHINE="$1" DOVECOTS="$2=/ $4=$other" PYTHONDONTWRITEBYTECODE=1 \
    chroot "$root" /usr/bin/python3 -u /lab/guest/main.py
