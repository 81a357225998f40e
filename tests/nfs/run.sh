#!/usr/bin/env bash
# The wrapper and the plugin on kernel NFS: real servers, real clients, real Dovecots, in emulated
# machines. Every case is a sentence; the last line counts them.
#
#   tests/nfs/run.sh [--wrapper PATH] [--command PATH] [--versions "3 4.2"]
#                    [--only REGEX] [--full] [--machines N] [--table FILE] [--list]
#
# Without --wrapper (or WRAPPER in the environment) both programs are built. With it,
# the cases of the administrator's command need --command (COMMAND). --full
# takes every case through every version, mount option and identity. --table writes
# what was checked, and on what, as a Markdown page. Several machines share the
# work, one processor each.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/../lib/common.sh"
# shellcheck source=tests/nfs/cache.sh
source "$REPO/tests/nfs/cache.sh"

# A machine that takes longer than this hangs.
TIME_LIMIT=5400
MEGABYTES=1536

MACHINES=$(nproc)
read_options '--wrapper PATH' '--command PATH' '--versions "3 4.2"' '--only REGEX' --full '--machines N' '--table FILE' --list -- "$@"

# The directory that the machines share with this script.
OUT=$(mktemp -d "${TMPDIR:-/tmp}/nfs-hostchange-nfs.XXXXXXXX")
KEEP=false
# shellcheck disable=SC2317 # called on exit
clean_up() { $KEEP || rm -rf "$OUT"; }
on_exit clean_up

# plan: what is to be run, as the machines read it, and the same for people.
plan() {
    local with_command=true
    [ -n "$COMMAND" ] || [ -z "$WRAPPER" ] || with_command=false
    # shellcheck disable=SC2153 # read_options sets it
    "$PYTHON" "$REPO/tests/nfs/guest/plan.py" "$VERSIONS" "$ONLY" "$FULL" "$with_command"
}

# release_of COMMAND...: "2.3" or "2.4", of the Dovecot whose version that prints.
release_of() { "$@" | cut -d . -f 1,2; }

# build_plugin ROOT RELEASE: the mail plugin for that Dovecot.
build_plugin() {
    DOVECOT_INCLUDE=$ROOTS/$1/usr/include/dovecot MODULES=$OUT/bin/modules-$2 "$REPO/packaging/build-plugin.sh"
}

# start_machine NAME: in the background; its process group is in PIDS.
PIDS=()
start_machine() {
    local share version
    version=$(kernel_version)
    share="-fsdev local,id=labroot,path=/,security_model=none,readonly=on,multidevs=remap"
    share+=" -device virtio-9p-pci,fsdev=labroot,mount_tag=labroot"
    share+=" -fsdev local,id=labout,path=$OUT,security_model=none"
    share+=" -device virtio-9p-pci,fsdev=labout,mount_tag=labout"
    : >"$OUT/progress.$1"
    # Its own process group, so that the emulator goes with the programs that start it.
    PATH="$VENV/bin:$PATH" setsid timeout "$TIME_LIMIT" \
        vng --run "$KERNEL/boot/vmlinuz-$version" --force-9p --disable-kvm --cpus 1 --memory "${MEGABYTES}M" \
        --verbose --exec "bash $OUT/guest/start.sh $1 ${DOVECOTS[*]}" --qemu-opts="$share" \
        </dev/null >"$OUT/console.$1" 2>&1 &
    PIDS+=("$!")
}

# shellcheck disable=SC2317 # called on exit
stop_machines() {
    local pid
    for pid in "${PIDS[@]}"; do
        kill -KILL -- "-$pid" 2>/dev/null || true
    done
}

if $LIST; then
    plan | "$PYTHON" "$REPO/tests/nfs/report.py" list
    exit
fi

"$REPO/tests/nfs/setup.sh"
step "building"
find_cargo || die "no cargo; run tests/setup.sh"
[ -n "$WRAPPER" ] || build_release

OTHER=$(other_root)
DOVECOTS=("$(release_of dovecot --version)" "$ROOTS/$OTHER" "$(release_of in_root "$OTHER" dovecot --version)")

step "machines"
mkdir "$OUT/bin" "$OUT/claimed"
cp -r "$REPO/tests/nfs/guest" "$OUT/guest"
cp "$WRAPPER" "$OUT/bin/nfs-hostchange-login"
[ -z "$COMMAND" ] || cp "$COMMAND" "$OUT/bin/nfs-hostchange"
mv "$OUT/guest/plain-stat.sh" "$OUT/bin/"
build_plugin bookworm 2.3
build_plugin trixie 2.4
plan >"$OUT/plan.json"
note "$MACHINES, kernel $(kernel_version), logs in $OUT"
on_exit stop_machines
for ((machine = 1; machine <= MACHINES; machine++)); do
    start_machine "$machine"
done

# Shows the progress of all machines until the last one has ended.
(for pid in "${PIDS[@]}"; do while kill -0 "$pid" 2>/dev/null; do sleep 1; done; done) &
tail --quiet --lines=+1 --follow --pid="$!" "$OUT"/progress.* &
wait "$!" || true
for ((machine = 1; machine <= MACHINES; machine++)); do
    status=0
    wait "${PIDS[machine - 1]}" || status=$?
    if [ ! -e "$OUT/done.$machine" ]; then
        note "machine $machine ended early, with exit status $status; the end of its console:"
        tail -n 40 "$OUT/console.$machine" | sed 's/^/      /'
    fi
done
PIDS=()

step "result"
status=0
[ -z "$TABLE" ] || "$PYTHON" "$REPO/tests/nfs/report.py" table "$OUT" "$(kernel_version)" >"$TABLE"
"$PYTHON" "$REPO/tests/nfs/report.py" count "$OUT" || status=$?
if [ "$status" != 0 ]; then
    KEEP=true
fi
exit "$status"
