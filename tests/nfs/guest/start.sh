#!/usr/bin/env bash
# The first thing that runs in the emulated machine, as root.
#
# The machine's root directory is the host's own, read-only and uncached over 9p: every look at a path is a
# request to the emulator. The laboratory therefore works in a second copy of it, cached (nothing on the
# host changes what it needs meanwhile), with a tmpfs on top of it that takes everything written.
# Argument: the name of this machine. The host offers two 9p shares: "labroot", its root directory, and "labout", the
# directory that holds these scripts, the programs under test, the list of jobs, and takes the results.
set -euo pipefail

root=/run/lab/root

for module in loop ext4 nfsd nfs nfsv3 nfsv4 veth bridge; do
    modprobe "$module"
done

mkdir -p /run/lab/lower /run/lab/upper "$root"
mount -t 9p -o ro,trans=virtio,version=9p2000.L,cache=loose,msize=512000,access=any labroot /run/lab/lower
mount -t tmpfs -o mode=0755 tmpfs /run/lab/upper
mkdir /run/lab/upper/upper /run/lab/upper/work
mount -t overlay -o lowerdir=/run/lab/lower,upperdir=/run/lab/upper/upper,workdir=/run/lab/upper/work overlay "$root"
for directory in proc sys dev; do
    mount --rbind "/$directory" "$root/$directory"
done
for directory in run tmp var/log var/tmp; do
    mount -t tmpfs -o mode=0755 tmpfs "$root/$directory"
done
chmod 1777 "$root/tmp" "$root/var/tmp"
mkdir -p "$root/lab"
mount -t 9p -o rw,trans=virtio,version=9p2000.L,msize=512000,access=any labout "$root/lab"

sed -i '/^vmail:/d' "$root/etc/passwd" "$root/etc/group"
printf 'vmail:x:5000:5000::/nonexistent:/usr/sbin/nologin\n' >> "$root/etc/passwd"
printf 'vmail:x:5000:\n' >> "$root/etc/group"
# A mounted share is uncached; programs that are started thousands of times belong in memory.
mkdir -p "$root/opt/lab"
cp "$root"/lab/bin/* "$root"/opt/lab/
chmod -R go+rX "$root/opt/lab"

exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C MACHINE="$1" PYTHONDONTWRITEBYTECODE=1 \
    chroot "$root" /usr/bin/python3 -u /lab/guest/main.py
