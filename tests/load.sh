#!/usr/bin/env bash
# Many logins at once on real Dovecots, users who move between two backends, and a
# sweep that cleans both again and again; then the same without the wrapper. Then with
# the plugin: users whose sessions on both backends overlap, and deliveries into their
# folders; and that without the plugin. The last line counts the cases.
#
#   tests/load.sh [--wrapper PATH] [--command PATH] [--only REGEX] [--list]
#
# About two minutes; with NFS_HOSTCHANGE_TESTS=long in the environment 20,000 logins of
# 2,000 users, 50 at once. Without --wrapper and --command (or WRAPPER and COMMAND)
# both programs are built.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"
# shellcheck source=tests/lib/dovecot.sh
source "$REPO/tests/lib/dovecot.sh"

read_options '--wrapper PATH' '--command PATH' '--only REGEX' --list -- "$@"

USERS=100 LOGINS=1500 AT_ONCE=50
# Those whose sessions overlap.
OVERLAPPING=600
[ "${NFS_HOSTCHANGE_TESTS:-}" != long ] || USERS=2000 LOGINS=20000 OVERLAPPING=20000
# What the sweeps on a and on b spare. Less than a login takes would not do: between the
# wrapper and IMAP nobody has the list index open.
AGES=('10 secs' '30 secs')
# Users who are connected all the time.
HOLDERS=5

# What a busy server has.
SETTINGS='
service imap-login {
  process_limit = 1024
}
'

start() { "site_$1"; }
site_loaded() { load_site loaded syslog; }
site_plain() { load_site plain none; }
site_plugged() {
    find_cargo || die "no cargo"
    build_plugin_for_machine "$WORK/plugged/modules"
    SETTINGS+="$FOLDERS
mail_plugins = nfs_hostchange
mail_plugin_dir = $WORK/plugged/modules
" load_site plugged plugin
}
site_bare() { SETTINGS+=$FOLDERS load_site bare none; }

# Deliveries into folders.
FOLDERS='
recipient_delimiter = +
lmtp_save_to_detail_mailbox = yes
lda_mailbox_autocreate = yes
'

load_site() {
    local host number
    SITE_SETTINGS=$SETTINGS start_site "$1" many "$2"
    for host in a b; do
        # As tmpfiles.d makes them at boot.
        for ((number = 0; number < 256; number++)); do
            printf '%s/%s/%02x\n' "$SITE_SHM" "$host" "$number"
        done | xargs mkdir -m 1733
        for ((number = 0; number < USERS + HOLDERS; number++)); do
            printf 'user%d:{PLAIN}pw:%d:%d::%s::%s\n' "$number" $((100000 + number)) $((100000 + number)) \
                "$SITE/store/user$number" \
                "userdb_mail_location=mdbox:~/mdbox:LISTINDEX=$SITE_SHM/$host/%2.256Nu/%u/dovecot.list.index" \
                >"$SITE/$host/users/user$number"
        done
        # One session, after which all that stays is there.
        add_user_on "$host" first "mdbox:~/mdbox:LISTINDEX=@LOCAL@/%2.256Nu/%u/dovecot.list.index"
        imap "$host" first look >/dev/null
        wait_until 20 "the first session's processes are gone" sessions_are_gone "$host"
        descriptors "$host" >"$SITE/$host/descriptors"
    done
}

# --- helpers ----------------------------------------------------------------

# The processes of a backend: "PID NAME" per line.
processes() {
    local pid
    pid=$(<"$SITE/$1/pid")
    ps -o pid=,comm= --ppid "$pid"
}

sessions_are_gone() {
    ! processes "$1" | grep -E 'imap|script-login|nfs-hostchange|pop3' >/dev/null
}

# How many descriptors each of the processes that stay has: "NAME COUNT" per line. Not auth,
# which keeps every user's password file open, nor config, from which an LMTP process that waits
# for more has one.
descriptors() {
    local pid name
    {
        printf '%s dovecot\n' "$(<"$SITE/$1/pid")"
        processes "$1"
    } | while read -r pid name; do
        [[ ! $name =~ ^(dovecot|anvil|log)$ ]] || printf '%s %d\n' "$name" "$(find "/proc/$pid/fd" -type l | wc -l)"
    done | LC_ALL=C sort
}

figure() { "$PYTHON" -c 'import functools, json, sys
print(functools.reduce(lambda object, key: object[key], sys.argv[2:], json.load(open(sys.argv[1]))))' "$@"; }

# load LOGINS [OPTION...]
load() {
    "$PYTHON" "$REPO/tests/lib/load.py" --logins "$1" "${@:2}" --ports "$(port_of a IMAP)" "$(port_of b IMAP)" \
        --roots "$SITE_SHM/a" "$SITE_SHM/b" --command "$COMMAND" --ages "${AGES[@]}" \
        --users "$USERS" --holders "$HOLDERS" --at-once "$AT_ONCE" >"$SITE/figures"
    cat "$SITE/figures"
}

# --- cases ------------------------------------------------------------------

overlapping() {
    load "$OVERLAPPING" --overlapping --lmtp "$(port_of a LMTP)" "$(port_of b LMTP)" --first-uid 100000
}

all_is_right() {
    load "$LOGINS"
    expect_right "$LOGINS" "$((LOGINS * 2))"
}

all_that_overlaps_is_right() {
    overlapping
    expect_right "$OVERLAPPING" "$OVERLAPPING"
}

# expect_right LOGINS LOOKS
expect_right() {
    equal failures "$(figure "$SITE/figures" failed)" 0
    equal logins "$(figure "$SITE/figures" logins)" "$1"
    equal 'wrong looks' "$(figure "$SITE/figures" wrong)" 0
    [ "$(figure "$SITE/figures" looks)" -ge "$2" ] || die "too few looks"
}

sweeps_did_something() {
    equal "failed" "$(figure "$SITE/figures" sweeps failed)" 0
    equal "exit status" "$(figure "$SITE/figures" sweeps exit)" 0
    [ "$(figure "$SITE/figures" sweeps cleaned)" -gt 0 ] || die "they cleaned nothing"
    [ "$(figure "$SITE/figures" sweeps in_use)" -gt 0 ] || die "they did not see those who are connected"
}

# Syslog's severity 3 of the facility mail.
no_errors_of_the_wrapper() {
    local host
    for host in a b; do
        [ -s "$SITE/$host/syslog.messages" ] || die "the wrapper said nothing"
        ! grep -F '<19>' "$SITE/$host/syslog.messages" || die "errors"
        ! grep -F nfs-hostchange "$SITE/$host/log" || die "something in Dovecot's log"
    done
}

nothing_is_left_running() {
    local host
    for host in a b; do
        wait_until 20 "$host's sessions are gone" sessions_are_gone "$host" || {
            processes "$host"
            die "processes are left"
        }
        diff "$SITE/$host/descriptors" <(descriptors "$host") || die "descriptors are left"
    done
}

nothing_is_left_in_the_store() {
    local found
    found=$(find "$SITE/store" -name '*lasthost*' ! -name .lasthost)
    [ -z "$found" ] || die "temporary files: $found"
    found=$(find "$SITE/store" -name .lasthost | wc -l)
    equal 'claims' "$found" "$(find "$SITE/store" -mindepth 1 -maxdepth 1 | wc -l)"
    found=$(find "$SITE/store" -name 'dovecot.list.index*')
    [ -z "$found" ] || die "list indexes: $found"
}

a_sweep_leaves_nothing() {
    local host found
    for host in a b; do
        "$COMMAND" usercache sweep 0 "$SITE_SHM/$host"
        # Users' own directories stay, empty.
        found=$(find "$SITE_SHM/$host" -mindepth 2 ! -type d)
        [ -z "$found" ] || die "left: $found"
    done
}

no_errors_of_the_plugin() {
    local host
    for host in a b; do
        grep -F 'nfs_hostchange: ' "$SITE/$host/log" >/dev/null || die "the plugin said nothing"
        ! grep -E '(Error|Fatal|Panic): |Warning: nfs_hostchange: ' "$SITE/$host/log" || die "errors"
    done
}

# without_it_looks_are_wrong LOAD...
without_it_looks_are_wrong() {
    "$@"
    expect_errors .
    [ "$(figure "$SITE/figures" wrong)" -gt 0 ] || die "this load shows nothing"
}

scenario loaded "$LOGINS logins of $USERS users, $AT_ONCE at once: none fails, and every look is right" all_is_right
scenario loaded "sweeps cleaned all the while, and never failed" sweeps_did_something
scenario loaded "the wrapper logged no error" no_errors_of_the_wrapper
scenario loaded "no process and no descriptor is left" nothing_is_left_running
scenario loaded "each user has one claim, and nothing else of ours is in the store" nothing_is_left_in_the_store
scenario loaded "a last sweep leaves no file and no directory of a user's" a_sweep_leaves_nothing
scenario plain "without the wrapper, looks are wrong" without_it_looks_are_wrong load "$LOGINS"
scenario plugged "with the plugin, $OVERLAPPING logins that overlap on two backends, and deliveries into folders: none fails, and every look is right" all_that_overlaps_is_right
scenario plugged "sweeps cleaned all the while, and never failed, with the plugin" sweeps_did_something
scenario plugged "the plugin logged no error, and Dovecot neither" no_errors_of_the_plugin
scenario plugged "no process and no descriptor is left, with the plugin" nothing_is_left_running
scenario plugged "each user has one claim, and nothing else of ours is in the store, with the plugin" nothing_is_left_in_the_store
scenario plugged "a last sweep leaves no file and no directory of a user's, with the plugin" a_sweep_leaves_nothing
scenario bare "without the plugin, looks are wrong" without_it_looks_are_wrong overlapping

need_root
$LIST || { [ -n "$WRAPPER" ] && [ -n "$COMMAND" ]; } || build_release || die "it does not build"
# In memory: a disk's fsync would be all that is measured.
TMPDIR=/dev/shm make_work_dirs
run_scenarios
$LIST || for site in loaded plain plugged bare; do
    [ ! -s "$WORK/$site/figures" ] || note "$site: $(<"$WORK/$site/figures")"
done
print_result
