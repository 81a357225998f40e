#!/usr/bin/env bash
# The wrapper under real Dovecot, case by case. Every case is a sentence; the last
# line counts them.
#
#   tests/smoke.sh [--wrapper PATH] [--command PATH] [--dovecot NAME] [--only REGEX] [--list] [--quick]
#
# --dovecot is the Dovecot of all cases that do not name another: "machine" (this one's, unless
# said otherwise) or a root that tests/setup.sh made (bookworm, bookworm-backports, trixie, forky).
# Without --wrapper (or WRAPPER in the environment) both programs are built. With
# it, an installed one is tested and nothing is built; --command (COMMAND) is
# the administrator's command, whose cases are left out without it. --quick leaves
# out the cases that kill a program before each of its system calls.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"
# shellcheck source=tests/lib/dovecot.sh
source "$REPO/tests/lib/dovecot.sh"

DOVECOT=machine
read_options '--wrapper PATH' '--command PATH' '--dovecot NAME' '--only REGEX' --list --quick -- "$@"

# A Dovecot of the other version.
if is_2_4 "$DOVECOT"; then OTHER=bookworm; else OTHER=trixie; fi
if has_dovecot machine && is_2_4 machine && ! is_2_4 "$DOVECOT"; then OTHER=machine; fi
has_dovecot "$OTHER" || OTHER=

# words_of SITE: what it runs on, for a sentence.
words_of() {
    case $1 in
        other_*) printf ' on %s' "$OTHER" ;;
        mixed_*) printf ' with %s on one backend' "$OTHER" ;;
        mixed2_*) printf ' with %s on the first backend' "$OTHER" ;;
    esac
}

# Where a user's list index is on a backend; @LOCAL@ is the backend's own directory.
HASHED='LISTINDEX=@LOCAL@/%2.256Nu/%u/dovecot.list.index'
FLAT='LISTINDEX=@LOCAL@/%u/dovecot.list.index'

LAYOUTS=(
    'maildir++|maildir:~/Maildir'
    'maildir++ with INDEX|maildir:~/Maildir:INDEX=~/index'
    'maildir with LAYOUT=fs|maildir:~/Maildir:LAYOUT=fs'
    'maildir with LAYOUT=fs and INDEX|maildir:~/Maildir:LAYOUT=fs:INDEX=~/index'
    'mdbox|mdbox:~/mdbox'
    'mdbox with INDEX|mdbox:~/mdbox:INDEX=~/index'
    'sdbox|sdbox:~/sdbox'
    'sdbox with INDEX|sdbox:~/sdbox:INDEX=~/index'
    'mbox|mbox:~/mail'
    'mbox with INDEX|mbox:~/mail:INDEX=~/index'
)

# --- sites ------------------------------------------------------------------

# start NAME: a site as its name says; "other_" on another Dovecot, "mixed_" with backend b on it,
# "mixed2_" the other way round.
start() {
    local names=$DOVECOT
    case $1 in
        other_*) names=$OTHER ;;
        mixed_*) names="$DOVECOT $OTHER" ;;
        mixed2_*) names="$OTHER $DOVECOT" ;;
    esac
    SITE_DOVECOTS=$names "start_${1##*_}" "$1"
}
start_none() { start_site "$1" many none; }
start_many() { start_site "$1" many wrapper; }
start_vmail() { start_site "$1" vmail wrapper; }
start_drop() { start_site "$1" drop wrapper; }
start_chain() { start_site "$1" many chain; }

# No user has a location of his own.
start_default() {
    local location="mdbox:~/mdbox:$HASHED"
    SITE_USERDB="default_fields = mail_location=$location" \
        SITE_USERDB_2_4=$(printf 'userdb_fields {\n%s\n}' "$(fields_of_2_4 "$location" | sed 's/=/ = /')") \
        start_site "$1" many wrapper
}

# INDEX directories that only a group may enter.
start_groups() {
    SITE_SETTINGS='mail_access_groups = games' SITE_HOOK_SETTINGS='extra_groups = games' \
        SITE_SETTINGS_2_4=$'mail_access_groups = games\nnamespace inbox {\n inbox = yes\n}' \
        start_site "$1" vmail wrapper
}

# Another namespace in which the list index is no cache.
start_archive() {
    SITE_SETTINGS="namespace inbox {
  inbox = yes
  separator = /
}
namespace archive {
  prefix = archive/
  separator = /
  location = mdbox:~/archive:LAYOUT=index
}" SITE_SETTINGS_2_4="namespace inbox {
  inbox = yes
  separator = /
}
namespace archive {
  prefix = archive/
  separator = /
  mail_driver = mdbox
  mail_path = ~/archive
  mailbox_list_layout = index
  mailbox_list_index_prefix = dovecot.list.index
}" start_site "$1" many wrapper
}

start_syslog() { start_site "$1" many syslog; }

# All services that have a post-login script. Nobody listens where mails would be sent to.
start_services() {
    local settings=$'submission_relay_host = 127.0.0.1\nsubmission_relay_port = 1'
    SITE_PROTOCOLS='submission sieve' SITE_SETTINGS=$settings \
        SITE_SETTINGS_2_4=$settings$'\nnamespace inbox {\n  inbox = yes\n}' start_site "$1" many wrapper
}

# Sessions that wait give their process back.
start_hibernate() {
    local settings='imap_hibernate_timeout = 1s
service imap {
  extra_groups = dovecot
  unix_listener imap-master {
    user = dovecot
  }
}
service imap-hibernate {
  unix_listener imap-hibernate {
    mode = 0660
    group = dovecot
  }
}'
    SITE_SETTINGS=$settings SITE_SETTINGS_2_4=$settings$'\nnamespace inbox {\n  inbox = yes\n}' \
        start_site "$1" many wrapper
}

# What a post-login script does that has not read the fine print: it makes the
# user's directory, as root and under script-login's umask.
start_careless() {
    mkdir -p "$WORK/careless.bin"
    # shellcheck disable=SC2016 # for the script to expand
    printf '#!/bin/sh\nmkdir -p "$1/made"\nshift\nexec "$@"\n' >"$WORK/careless.bin/hook"
    chmod -R 0755 "$WORK/careless.bin"
    start_site "$1" many "$WORK/careless.bin/hook"
}

# --- helpers ----------------------------------------------------------------

# A user that no other case has (CASE is the number of the case). Sets WHO and an
# empty book.
USERS=0
new_user() {
    open_book "user$CASE-$((USERS += 1))"
    add_user "$WHO" "$@"
}

home_of() { printf '%s/store/%s\n' "$SITE" "$1"; }

# The user's directory for list indexes on a backend, wherever below it is.
local_dir() { find "$SITE_SHM/$1" -type d -name "$2"; }

# The claim in the store: its path, nothing if there is none.
claim_of() { find "$(home_of "$1")" \( -name .lasthost -o -name dovecot.lasthost \); }

no_list_index_in_the_store() {
    local found
    found=$(find "$(home_of "$WHO")" -name 'dovecot.list.index*')
    [ -z "$found" ] || die "a list index in the store: $found"
}

all_looks_were_right() {
    equal "wrong looks of $LOOKS" "$WRONG" 0
}

# Makes the user known to both backends, with a claim and a list index on each,
# the last login on a.
settle() {
    local host
    for host in a b a; do
        move "$host" "Settled$host$LOOKS"
    done
}

# create_folders HOST N: so many that Dovecot writes dovecot.list.index, not only its log.
create_folders() {
    local n commands=()
    for ((n = 1; n <= $2; n++)); do
        commands+=("create:Folder$n")
        BOOK[Folder$n]=0
    done
    imap "$1" "$WHO" "${commands[@]}" look >/dev/null
}

# --- moves ------------------------------------------------------------------

# Three logins on each backend at least: the first ones only begin.
moves() {
    local n
    for n in 1 2 3 4; do
        move a "FromA$n"
        move b "FromB$n"
    done
    look a
    look a
    look b
}

without_it_looks_are_wrong() {
    new_user "$1"
    moves
    [ "$WRONG" -gt 0 ] || die "no wrong look: the cases for the wrapper would show nothing"
}

with_it_looks_are_right() {
    new_user "$1"
    moves
    all_looks_were_right
    equal "what Dovecot says without list indexes" "$(truth "$WHO")" "$(book)"
    no_list_index_in_the_store
}

# INDEX=MEMORY: as soon as there is a list index, Dovecot's IMAP panics at every STATUS
# of a folder that is not selected. Folders alone, then.
folder_moves() {
    local n host
    new_user "$1"
    for n in 1 2 3; do
        for host in a b; do
            look_for_names "$host"
            imap "$host" "$WHO" "create:$host$n"
            BOOK[$host$n]=0
        done
    done
    look_for_names a
    look_for_names b
}

look_for_names() {
    LAST_TRUE=$(book | cut -d ' ' -f 1)
    LAST_SAW=$(imap "$1" "$WHO" names)
    compare "$1"
}

without_it_folders_are_wrong() {
    folder_moves "$1"
    [ "$WRONG" -gt 0 ] || die "no wrong look: the case for the wrapper would show nothing"
}

with_it_folders_are_right() {
    folder_moves "$1"
    all_looks_were_right
}

the_claim_names_the_host() {
    new_user "mdbox:~/mdbox:$HASHED"
    settle
    equal "who claimed" "$(head -n 1 "$(claim_of "$WHO")")" a.example.org
    look b
    equal "who claimed" "$(head -n 1 "$(claim_of "$WHO")")" b.example.org
}

the_list_index_is_used() {
    local dir before
    new_user "mdbox:~/mdbox:$HASHED"
    settle
    dir=$(local_dir a "$WHO")
    [ -s "$dir/dovecot.list.index.log" ] || die "no list index in $dir"
    before=$(stat -c '%i' "$dir/dovecot.list.index.log")
    look a
    equal "the list index's inode after a login that changed nothing" \
        "$(stat -c '%i' "$dir/dovecot.list.index.log")" "$before"
    move b Elsewhere
    look a
    all_looks_were_right
    [ "$(stat -c '%i' "$dir/dovecot.list.index.log")" != "$before" ] || die "the old list index is still there"
}

a_login_on_the_same_host_changes_nothing() {
    local claim before
    new_user "mdbox:~/mdbox:$HASHED"
    settle
    claim=$(claim_of "$WHO")
    before=$(stat -c '%i %y' "$claim" "${claim%/*}")
    mark_logs
    look a
    equal "claim and directory" "$(stat -c '%i %y' "$claim" "${claim%/*}")" "$before"
    equal "log lines" "$(wrapper_lines)" ""
}

the_log_names_the_host_the_user_came_from() {
    new_user "mdbox:~/mdbox:$HASHED"
    settle
    mark_logs
    look b
    wrapper_lines | grep -F "$WHO" | grep -F a.example.org || die "no such line: $(wrapper_lines)"
}

hosts_of_one_name() {
    local host
    for host in a b; do
        printf 'hostname = "same.example.org"\n[log]\ntarget = "stderr"\n' >"$SITE/$host/hostchange.toml"
    done
    with_it_looks_are_right "mdbox:~/mdbox:$HASHED"
    configure_wrapper a
    configure_wrapper b
}

a_careless_hook_is_seen() {
    expect_errors .
    new_user 'mdbox:~/mdbox:LISTINDEX=@LOCAL@/made/%u/dovecot.list.index'
    imap a "$WHO" look create:One append:One look || true
    new_log_lines | grep 'Permission denied' >/dev/null || die "Dovecot has nothing to complain of"
    new_log_lines | grep 'Panic' >/dev/null || die "Dovecot did not panic"
}

# --- POP3 -------------------------------------------------------------------

pop3_is_right_and_claims() {
    new_user "mdbox:~/mdbox:$HASHED"
    move a First
    move a Second
    equal "mails by POP3" "$(pop3 b "$WHO" dele)" 2
    equal "who claimed" "$(head -n 1 "$(claim_of "$WHO")")" b.example.org
    BOOK[INBOX]=1
    look a
    equal "mails by POP3" "$(pop3 a "$WHO")" 1
    all_looks_were_right
}

# login COMMAND: by that service, on b. It claims the user.
login_claims() {
    new_user "mdbox:~/mdbox:$HASHED"
    settle
    mark_logs
    # There is no server to send mails to.
    [ "$1" != submission ] || expect_errors 'smtp-client'
    "$1" b "$WHO"
    equal "who claimed" "$(head -n 1 "$(claim_of "$WHO")")" b.example.org
    wrapper_lines | grep -F "$WHO" | grep -F a.example.org || die "no such line: $(wrapper_lines)"
    look b
    look a
    all_looks_were_right
    equal "what Dovecot says without list indexes" "$(truth "$WHO")" "$(book)"
}

# sleeps SESSION HOST: it waits, and has no process of its own any more.
sleeps() {
    tell "$1" idle
    wait_until 20 "the session is hibernated" no_imap_of_its_own
}
no_imap_of_its_own() { ! pgrep -u "$(uid_of "$WHO")" -x imap >/dev/null; }

hibernated_sessions() {
    configure_wrapper a 'lock_timeout = "1s"'
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    hold one a "$WHO"
    equal "greeting" "$(answer_of one)" ""
    tell one select:INBOX
    sleeps one
    # Another login finds the same record.
    look a
    tell one 'done'
    tell one create:Woken
    BOOK[Woken]=0
    equal "what the woken session sees" "$(tell one look)" "$(book)"
    let_go one
    look a
    all_looks_were_right

    # One that must not use its list index.
    unvouched lock
    hold two a "$WHO"
    equal "greeting" "$(answer_of two)" ""
    vouched lock
    tell two select:INBOX
    sleeps two
    look a
    tell two 'done'
    tell two create:WokenWithout
    BOOK[WokenWithout]=0
    equal "what the woken session without list index sees" "$(tell two look)" "$(book)"
    look a
    let_go two
    look a
    move b Other
    look a
    all_looks_were_right
    configure_wrapper a
}

# --- where the location comes from ------------------------------------------

field_mail() {
    USERDB_FIELD=mail with_it_looks_are_right "$@"
}

default_field() {
    with_it_looks_are_right -
    [ -n "$(local_dir a "$WHO")" ] || die "no list index where it should be"
    [ -n "$(claim_of "$WHO")" ] || die "no claim"
}

# --- new users --------------------------------------------------------------

# hold NAME HOST USER opens a session that stays; tell NAME COMMAND uses it.
declare -A HELD_IN HELD_OUT
hold() {
    local name=$1 port to from
    port=$(port_of "$2" IMAP)
    rm -f "$WORK/$name".{in,out}
    mkfifo "$WORK/$name".{in,out}
    client hold "$port" "$3" <"$WORK/$name.in" >"$WORK/$name.out" 2>&1 &
    exec {to}>"$WORK/$name.in" {from}<"$WORK/$name.out"
    HELD_IN[$name]=$to
    HELD_OUT[$name]=$from
}
answer_of() {
    local line
    while IFS= read -r -t 60 -u "${HELD_OUT[$1]}" line && [ "$line" != . ]; do
        printf '%s\n' "$line"
    done
    [ "${line:-}" = . ] || die "session $1 ended: ${line:-}"
}
tell() {
    printf '%s\n' "$2" >&"${HELD_IN[$1]}"
    answer_of "$1"
}
let_go() {
    local to=${HELD_IN[$1]} from=${HELD_OUT[$1]}
    printf 'quit\n' >&"$to"
    cat <&"$from"
    exec {to}>&- {from}<&-
}

first_two_connections() {
    local round folder
    for round in 1 2 3; do
        new_user "$1"
        hold one a "$WHO"
        hold two a "$WHO"
        equal "greeting" "$(answer_of one)$(answer_of two)" ""
        tell one look
        tell two look
        for folder in Sent Drafts; do
            tell one "create:$folder"
            BOOK[$folder]=0
        done
        tell two create:Trash
        BOOK[Trash]=0
        equal "round $round: what the first sees" "$(tell one look)" "$(book)"
        equal "round $round: what the second sees" "$(tell two look)" "$(book)"
        let_go one
        let_go two
        look a
        move b Later
        look a
        all_looks_were_right
    done
}

# --- deliveries -------------------------------------------------------------

deliveries_between_logins() {
    local host
    new_user "$1"
    for host in a b a; do
        lmtp "$host" "$WHO"
        lda "$host" "$WHO"
        BOOK[INBOX]=$((BOOK[INBOX] + 2))
        move "$host" "Between$LOOKS"
        lmtp "$host" "$WHO"
        lda "$host" "$WHO"
        BOOK[INBOX]=$((BOOK[INBOX] + 2))
        look "$host"
    done
    all_looks_were_right
    equal "what Dovecot says without list indexes" "$(truth "$WHO")" "$(book)"
}

# Directories shared by users of several uids, made by the wrapper as nobody has
# made them at boot. A delivery to somebody else must find them usable.
deliveries_below_parents_made_by_the_wrapper() {
    local first location="mdbox:~/mdbox:LISTINDEX=@LOCAL@/made$CASE/deep/%u/dovecot.list.index"
    new_user "$location"
    first=$WHO
    # The first login finds no INDEX yet.
    move a First
    move a Second
    equal "the parents' modes" \
        "$(stat -c '%a %u' "$SITE_SHM/a/made$CASE" "$SITE_SHM/a/made$CASE/deep" | tr '\n' ' ')" \
        "711 0 1733 0 "
    equal "the directory's mode and owner" "$(stat -c '%a %u' "$(local_dir a "$first")")" "700 $(uid_of "$first")"
    new_user "$location"
    lmtp a "$WHO"
    lda a "$WHO"
    BOOK[INBOX]=2
    look a
    move b Other
    look a
    all_looks_were_right
}

# --- what cannot be vouched for ----------------------------------------------

# store_away MODE: an empty directory of that mode in the store's place, as where
# NFS is not mounted. WHO logs in, whatever it sees; then the store is back.
store_away() {
    mv "$SITE/store" "$SITE/store.away"
    mkdir -m "$1" "$SITE/store"
    imap a "$WHO" look || true
    # What stays behind for the session may just be claiming there.
    mv "$SITE/store" "$(mktemp -d "$SITE/place.XXXXXXXX")/"
    mv "$SITE/store.away" "$SITE/store"
}

without_it_an_unmounted_store_is_remembered() {
    expect_errors .
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    store_away 0755
    look a
    [ "$WRONG" -gt 0 ] || die "no wrong look: the case for the wrapper would show nothing"
}

an_unmounted_store_is_not_remembered() {
    expect_errors .
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    store_away "$1"
    look a
    look a
    move b After
    look a
    all_looks_were_right
}

a_held_lock() {
    local lock file identity
    configure_wrapper a 'lock_timeout = "1s"'
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    move b Meanwhile
    file=$(local_dir a "$WHO")/.lasthost
    exec {lock}<>"$file"
    flock "$lock"
    look a
    all_looks_were_right
    [ ! "$file" -ef "/proc/self/fd/$lock" ] || die "the held lock file is still in place"
    # The holder comes to its end and records what is claimed now.
    identity=$(date -d "$(stat -c %y "$(claim_of "$WHO")")" +%s.%N)
    printf '1 %s %s a.example.org\n' "$(stat -c %i "$(claim_of "$WHO")")" "$identity" >&"$lock"
    exec {lock}>&-
    look a
    move b Again
    look a
    look a
    all_looks_were_right
    configure_wrapper a
}

# A lock that is held on the fast path, where nothing has changed.
a_held_lock_and_no_change() {
    local lock
    configure_wrapper a 'lock_timeout = "1s"'
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    exec {lock}<>"$(local_dir a "$WHO")/.lasthost"
    flock "$lock"
    move a Meanwhile
    exec {lock}>&-
    look a
    move b Again
    look a
    all_looks_were_right
    configure_wrapper a
}

# What stands in the way of a user's directory on a.
spoiled_list_index_directory() {
    local how=$1 bad=$SITE_SHM/a/bad$CASE elsewhere=$SITE_SHM/elsewhere$CASE
    # Where Dovecot itself, without any list index, has something to say about it.
    expect_errors "$bad"
    mkdir -m 1777 "$elsewhere"
    new_user "mdbox:~/mdbox:LISTINDEX=@LOCAL@/bad$CASE/%u/dovecot.list.index"
    case $how in
        parent-closed) mkdir -m 0700 "$bad" ;;
        parent-file) : >"$bad" ;;
        parent-link) ln -s "$elsewhere" "$bad" ;;
        file) mkdir -m 1777 "$bad" && : >"$bad/$WHO" ;;
        link) mkdir -m 1777 "$bad" && ln -s "$elsewhere" "$bad/$WHO" ;;
        owner) mkdir -m 1777 "$bad" && mkdir -m 0777 "$bad/$WHO" ;;
    esac
    moves
    all_looks_were_right
    equal "what Dovecot says without list indexes" "$(truth "$WHO")" "$(book)"
    [ "$how" != link ] || equal "files behind the link" "$(ls -A "$elsewhere")" ""
}

# small_tmpfs DIRECTORY: as backend a sees it; a Dovecot in a root sees nothing that is mounted outside.
small_tmpfs() {
    mkdir "$1"
    on a mount -t tmpfs -o size=64k,mode=1733 tmpfs "$1" || skip "mounting is not allowed here"
    # A process that stays behind for a session without list index may still be in there.
    on_exit on a umount --lazy "$1"
}
fill() { on a dd if=/dev/zero of="$1/filler" bs=4k 2>/dev/null || true; }
make_room() { on a rm "$1/filler"; }
it_was_full() { wrapper_lines | grep -E 'only [0-9]+ of 64 KiB' >/dev/null || die "it was not full: $(wrapper_lines)"; }

a_full_tmpfs() {
    local full=$SITE_SHM/a/full$CASE
    expect_errors 'No space left'
    small_tmpfs "$full"
    new_user "mdbox:~/mdbox:LISTINDEX=@LOCAL@/full$CASE/%u/dovecot.list.index"
    fill "$full"
    moves
    all_looks_were_right
    it_was_full
    make_room "$full"
    look a
    move b Later
    look a
    fill "$full"
    move b Full
    look a
    look a
    all_looks_were_right
}

an_index_directory_that_cannot_be_written() {
    local n
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    for n in 1 2 3; do
        move b "B$n"
        chmod 0555 "$(home_of "$WHO")/mdbox"
        look a
        look a
        chmod 0700 "$(home_of "$WHO")/mdbox"
        move a "A$n"
    done
    look a
    all_looks_were_right
}

garbled_records() {
    local record file
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    file=$(local_dir a "$WHO")/.lasthost
    for record in '' x '2' '2 ' '1 1 1.000000000 a.example.org' '2 0042 -1 99999999999999999999.9 x' \
        "1 $(stat -c %i "$(claim_of "$WHO")")" "$(printf '\377\376\n1 2 3.4')" "$(head -c 10000 /dev/zero | tr '\0' 1)"; do
        move b "Garbled$LOOKS"
        printf '%s' "$record" >"$file"
        look a
        look a
    done
    all_looks_were_right
}

# What a login leaves that died after it had emptied the record and deleted the log.
half_a_list_index() {
    local dir
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    create_folders a 60
    dir=$(local_dir a "$WHO")
    [ -e "$dir/dovecot.list.index" ] || die "Dovecot has written no dovecot.list.index: the case shows nothing"
    : >"$dir/.lasthost"
    rm "$dir/dovecot.list.index.log"
    look a
    look a
    all_looks_were_right
}

# Something else in the place of the lock file or of the claim.
wrong_file_types() {
    local what=$1 kind file
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    printf untouched >"$WORK/target$CASE"
    chmod 0666 "$WORK/target$CASE"
    for kind in directory fifo link dangling; do
        case $what in
            record) file=$(local_dir a "$WHO")/.lasthost ;;
            claim) file=$(home_of "$WHO")/mdbox/.lasthost ;;
        esac
        move b "Before$kind"
        rm -rf "$file"
        case $kind in
            directory) mkdir -m 0777 "$file" ;;
            fifo) mkfifo -m 0666 "$file" ;;
            link) ln -s "$WORK/target$CASE" "$file" ;;
            dangling) ln -s "$WORK/nothing$CASE" "$file" ;;
        esac
        move a "During$kind"
        move b "Other$kind"
        look a
        rm -rf "$file"
        look a
        look a
    done
    all_looks_were_right
    equal "the link's target" "$(<"$WORK/target$CASE")" untouched
    [ ! -e "$WORK/nothing$CASE" ] || die "a dangling link was followed"
}

a_claim_that_was_deleted() {
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    rm "$(claim_of "$WHO")"
    look a
    [ -n "$(claim_of "$WHO")" ] || die "not claimed again"
    move b Other
    look a
    all_looks_were_right
}

broken_configuration() {
    printf 'hostname = "a"\nno such key\n' >"$SITE/a/hostchange.toml"
    new_user "mdbox:~/mdbox:$FLAT"
    moves
    all_looks_were_right
    wrapper_lines | grep -E 'line 2|:2:' || die "no line number in: $(wrapper_lines)"
    configure_wrapper a
}

configuration_of_others() {
    configure_wrapper a
    chmod 0666 "$SITE/a/hostchange.toml"
    new_user "mdbox:~/mdbox:$FLAT"
    moves
    all_looks_were_right
    wrapper_lines | grep -F hostchange.toml || die "not a word about it: $(wrapper_lines)"
    configure_wrapper a
}

no_configuration() {
    rm "$SITE/a/hostchange.toml"
    new_user "mdbox:~/mdbox:$FLAT"
    moves
    all_looks_were_right
    configure_wrapper a
}

group_of_the_service() {
    local index
    index=$SITE/store/index$CASE
    mkdir -m 2770 "$index"
    chgrp games "$index"
    with_it_looks_are_right "mdbox:~/mdbox:INDEX=$index:$HASHED"
    [ -e "$index/.lasthost" ] || die "no claim in $index"
}

# --- list indexes that are no cache, or not local ----------------------------

layout_index_loses_no_folder() {
    local before dir
    new_user "mdbox:~/mdbox:LAYOUT=index:$FLAT"
    imap a "$WHO" create:One create:Two append:Two >/dev/null
    dir=$(local_dir a "$WHO")
    before=$(stat -c %i "$dir/dovecot.list.index.log")
    mark_logs
    equal "folders" "$(imap a "$WHO" look | grep -v INBOX | tr '\n' ' ')" "One 0 Two 1 "
    wrapper_lines | grep -F "layout index" || die "not a word about it"
    imap b "$WHO" look >/dev/null
    equal "folders after a login elsewhere" "$(imap a "$WHO" look | grep -v INBOX | tr '\n' ' ')" "One 0 Two 1 "
    equal "the list index's inode" "$(stat -c %i "$dir/dovecot.list.index.log")" "$before"
}

shared_list_index_is_left_alone() {
    if [ "$1" = :LISTINDEX=sub/relative ] && is_2_4 "$DOVECOT"; then
        skip "Dovecot 2.4 refuses it without INDEX"
    fi
    new_user "mdbox:~/mdbox$1"
    moves
    all_looks_were_right
    equal "claims" "$(claim_of "$WHO")" ""
    [ -n "$(find "$(home_of "$WHO")" -name 'dovecot.list.index*' -o -name 'relative.log')" ] || die "no list index in the store"
}

# A session that must not use its list index, since somebody holds the lock.
names_without_list_index() {
    local lock status=0
    exec {lock}<>"$(local_dir a "$WHO")/.lasthost"
    flock "$lock"
    imap a "$WHO" names || status=$?
    exec {lock}>&-
    return "$status"
}

archive_keeps_working() {
    configure_wrapper a 'lock_timeout = "1s"'
    new_user "mdbox:~/mdbox:$FLAT"
    # A new user has no INDEX yet, so nobody vouches for the first login.
    imap a "$WHO" create:One create:archive/Two >/dev/null
    equal "folders" "$(imap a "$WHO" names | grep -E '^(One|archive/Two)$' | tr '\n' ' ')" "One archive/Two "
    mark_logs
    equal "folders without list index" \
        "$(names_without_list_index | grep -E '^(One|archive/Two)$' | tr '\n' ' ')" "One archive/Two "
    wrapper_lines | grep -F 'without list index' || die "the session had its list index"
    equal "folders again" "$(imap a "$WHO" names | grep -E '^(One|archive/Two)$' | tr '\n' ' ')" "One archive/Two "
    configure_wrapper a
}

# --- names --------------------------------------------------------------------

only_the_own_prefix_is_deleted() {
    local location='mdbox:~/mdbox:LISTINDEX=@LOCAL@/flat/%u' bob before
    new_user "$location"
    bob=$WHO
    add_user "${bob}by" "$location"
    open_book "${bob}by"
    settle
    before=$(cd "$SITE_SHM/a/flat" && stat -c '%n %i' "${bob}by"*)
    [ -n "$before" ] || die "no list index of ${bob}by"
    open_book "$bob"
    settle
    move b Other
    look a
    equal "files of ${bob}by" "$(cd "$SITE_SHM/a/flat" && stat -c '%n %i' "${bob}by"*)" "$before"
    all_looks_were_right
}

a_folder_called_lasthost() {
    local host
    new_user "$1"
    settle
    for host in b a; do
        move "$host" "lasthost$host"
    done
    move a lasthost
    move b Other
    imap a "$WHO" delete:lasthost
    unset 'BOOK[lasthost]'
    moves
    all_looks_were_right
    equal "what Dovecot says without list indexes" "$(truth "$WHO")" "$(book)"
}

# --- deliveries that came first ------------------------------------------------

# Nobody has made the parents, and the first mail was somebody else's: Dovecot made
# the parent for that one alone.
a_parent_made_by_a_delivery_to_another() {
    local location="mdbox:~/mdbox:LISTINDEX=@LOCAL@/delivered$CASE/%u/dovecot.list.index"
    new_user "$location"
    lmtp a "$WHO"
    new_user "$location"
    moves
    all_looks_were_right
}

# --- a live session -------------------------------------------------------------

new_sessions_are_right_while_an_old_one_lives() {
    # What Dovecot may say of a session whose list index was deleted under it.
    expect_errors 'dovecot.list.index'
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    hold old a "$WHO"
    equal "greeting" "$(answer_of old)" ""
    tell old look
    move b Meanwhile
    look a
    look a
    all_looks_were_right
    tell old look
    let_go old
    look a
    all_looks_were_right
}

# unvouched HOW: makes the next login on a one that nobody can vouch for; vouched HOW
# takes the obstacle away.
unvouched() {
    local mdbox dir
    mdbox=$(home_of "$WHO")/mdbox
    dir=$(local_dir a "$WHO")
    case $1 in
        lock)
            exec {OBSTACLE}<>"$dir/.lasthost"
            flock "$OBSTACLE"
            ;;
        index) chmod 0555 "$mdbox" && rm "$(claim_of "$WHO")" ;;
        record) rm -r "$dir" && : >"$dir" ;;
    esac
}
vouched() {
    case $1 in
        lock) exec {OBSTACLE}>&- ;;
        index) chmod 0700 "$(home_of "$WHO")/mdbox" ;;
        record) rm "$(find "$SITE_SHM/a" -name "$WHO")" ;;
    esac
}

# A session without list index changes the store, and no list index learns of it:
# those that come after it must not trust one as long as it lives.
a_session_without_list_index_is_not_overlooked() {
    configure_wrapper a 'lock_timeout = "1s"'
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    unvouched "$1"
    hold without a "$WHO"
    equal "greeting" "$(answer_of without)" ""
    vouched "$1"
    look a
    look a
    tell without create:ByTheOther
    BOOK[ByTheOther]=0
    look a
    look a
    let_go without
    look a
    move b Other
    look a
    all_looks_were_right
    configure_wrapper a
}

# The other way round: what a session writes whose list index is thrown away under
# it, because a later login on the same host met an obstacle.
a_session_whose_list_index_is_thrown_away_is_not_overlooked() {
    # What Dovecot may say of such a session.
    expect_errors 'dovecot.list.index'
    configure_wrapper a 'lock_timeout = "1s"'
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    hold with a "$WHO"
    equal "greeting" "$(answer_of with)" ""
    tell with look
    unvouched "$1"
    look a
    vouched "$1"
    look a
    look a
    tell with create:ByTheOther
    BOOK[ByTheOther]=0
    look a
    look a
    let_go with
    look a
    move b Other
    look a
    all_looks_were_right
    configure_wrapper a
}

# --- crashes ---------------------------------------------------------------------

# What the two functions below run their program with.
TRACER=()

# directly: the wrapper on a as script-login would run it for WHO with LOCATION, with
# /bin/true in place of the rest.
directly() (
    local uid
    uid=$(uid_of "$WHO")
    cd "$SITE/a/run"
    umask 0077
    "${TRACER[@]}" env -i "USER=$WHO" "HOME=$(home_of "$WHO")" "UID=$uid" "GID=$uid" \
        "MAIL_LOCATION=${LOCATION//@LOCAL@/$SITE_SHM/a}" 'USERDB_KEYS=HOME UID GID MAIL_LOCATION ' \
        "$SITE/bin/nfs-hostchange-login" "--config=$SITE/a/hostchange.toml" /bin/true </dev/null
)

# clean MIN_AGE [HOST]: the administrator's command for WHO's directory.
clean() {
    "${TRACER[@]}" "$COMMAND" usercache clean "$1" "$(local_dir "${2:-a}" "$WHO")"
}

# killed_anywhere BEFORE COMMAND...: kills COMMAND before each of its system calls in
# turn, from the first on that names the lock file or the claim: what comes earlier
# leaves no trace. BEFORE brings about what COMMAND then has to do.
killed_anywhere() {
    local before=$1 trace=$WORK/trace$CASE name which points=0
    shift
    strace -o "$trace" true 2>/dev/null || skip "strace does not work here"
    "$before"
    TRACER=(strace -o "$trace")
    "$@"
    # strace counts the calls of each name from the start.
    awk -F'(' '
        $1 ~ /^[a-z0-9_]+$/ { which[$1]++ }
        /\.lasthost/ { begun = 1 }
        begun && $1 ~ /^[a-z0-9_]+$/ { print $1, which[$1] }
        begun && $1 == "execve" { exit }
    ' "$trace" >"$trace.calls"
    look a
    while read -r name which; do
        "$before"
        TRACER=(strace -o /dev/null -e trace="$name" -e inject="$name:signal=KILL:when=$which")
        "$@" || true
        look a
        points=$((points + 1))
        [ "$WRONG" = 0 ] || die "wrong after a kill before $name number $which"
    done <"$trace.calls"
    look a
    all_looks_were_right
    [ "$points" -gt 10 ] || die "only $points system calls seen: $(<"$trace")"
}

killed_on_a_host_change() {
    LOCATION="mdbox:~/mdbox:LISTINDEX=@LOCAL@/$CASE-user/dovecot.list.index"
    new_user "$LOCATION"
    settle
    killed_anywhere come_from_b directly
}
come_from_b() { move b "B$LOOKS"; }

killed_on_a_migration() {
    LOCATION="mdbox:~/mdbox:LISTINDEX=@LOCAL@/$CASE-migrant/dovecot.list.index"
    migration_is true
    new_user "$LOCATION"
    add_user_on b "$WHO" mdbox:~/mdbox
    move b First
    killed_anywhere come_from_b directly
    migration_is false
}

killed_on_cleaning() {
    [ -n "$COMMAND" ] || skip "no nfs-hostchange given"
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    create_folders a 60
    killed_anywhere create_one_more clean 0
}
create_one_more() {
    imap a "$WHO" "create:More$LOOKS"
    BOOK[More$LOOKS]=0
    wait_until 10 "the end of the last session" nobody_has_it_open
}

# --- cleaning ---------------------------------------------------------------------

age_everything() {
    wait_until 10 "the end of the last session" nobody_has_it_open
    find "$(local_dir a "$WHO")" -type f -exec touch -d '10 days ago' {} +
}

# A mail process lives a moment longer than the user's connection.
nobody_has_it_open() {
    [ -z "$(find /proc/[0-9]*/fd -lname "$(local_dir a "$WHO")/*" 2>/dev/null)" ]
}

# is_cleaned DIRECTORY: nothing is left in it. It stays itself where others might make it first.
is_cleaned() {
    [ -z "$(ls -A "$1" 2>/dev/null)" ]
}

cleaning_is_not_noticed() {
    local dir
    [ -n "$COMMAND" ] || skip "no nfs-hostchange given"
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    dir=$(local_dir a "$WHO")
    clean 7days || true
    [ -e "$dir/dovecot.list.index.log" ] || die "a list index in use today was deleted"
    age_everything
    clean 7days
    is_cleaned "$dir" || die "still there: $(ls -A "$dir")"
    look a
    look a
    move b Other
    look a
    all_looks_were_right
}

cleaning_spares_a_live_session() {
    local dir
    [ -n "$COMMAND" ] || skip "no nfs-hostchange given"
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    dir=$(local_dir a "$WHO")
    hold live a "$WHO"
    equal "greeting" "$(answer_of live)" ""
    tell live look
    find "$dir" -type f -exec touch -d '10 days ago' {} +
    clean 7days || true
    [ -e "$dir/dovecot.list.index.log" ] || die "a list index that a session has open was deleted"
    tell live create:Live
    BOOK[Live]=0
    look a
    let_go live
    age_everything
    clean 7days
    is_cleaned "$dir" || die "still there: $(ls -A "$dir")"
    look a
    all_looks_were_right
}

# --- what the command knows ---------------------------------------------------------

# ask_command HOST SUBCOMMAND [ARG...]: about WHO, of the Dovecot that runs there.
ask_command() {
    [ -n "$COMMAND" ] || skip "no nfs-hostchange given"
    install -m 0755 "$COMMAND" "$SITE/bin/nfs-hostchange"
    on "$1" "$SITE/bin/nfs-hostchange" "$2" --user "$WHO" --config "$SITE/$1/hostchange.toml" \
        --dovecot-config "$SITE/$1/dovecot.conf" "${@:3}"
}

the_command_asks_dovecot() {
    new_user "mdbox:~/mdbox:INDEX=~/index:$HASHED"
    settle
    equal "INDEX" "$(ask_command a locate | sed -n 's/^INDEX *//p')" "$(home_of "$WHO")/index"
    equal "LISTINDEX" "$(ask_command a locate | sed -n 's/^LISTINDEX *//p')" "$(local_dir a "$WHO")"
    equal "tracked" "$(ask_command a locate | sed -n 's/^tracked *//p')" yes
    ask_command a status | grep -E '^in step +yes: ' || die "a says: $(ask_command a status)"
    ask_command b status | grep -E '^in step +no: .*another backend' || die "b says: $(ask_command b status)"
    ask_command b status --json | grep -F '"claimed_by":"a.example.org"' || die "$(ask_command b status --json)"
}

# through_doveadm HOST SUBCOMMAND [ARG...]: the command as doveadm executes it.
through_doveadm() {
    [ -n "$COMMAND" ] || skip "no nfs-hostchange given"
    install -m 0755 "$COMMAND" "$SITE/bin/nfs-hostchange"
    { cat "$SITE/$1/dovecot.conf" && printf 'libexec_dir = %s\n' "$SITE/bin"; } >"$SITE/$1/exec.conf"
    on "$1" doveadm -c "$SITE/$1/exec.conf" exec nfs-hostchange "${@:2}"
}

doveadm_executes_the_command() {
    local dir root status=0 log about
    new_user "mdbox:~/mdbox:LISTINDEX=@LOCAL@/exec$CASE/%2.256Nu/%u/dovecot.list.index"
    about=(--user "$WHO" --config "$SITE/a/hostchange.toml" --dovecot-config "$SITE/a/dovecot.conf")
    settle
    root=$SITE_SHM/a/exec$CASE
    dir=$(local_dir a "$WHO")
    log=$dir/dovecot.list.index.log
    [[ $dir == "$root"/[0-9a-f][0-9a-f]/"$WHO" ]] || die "not in a hash directory: $dir"
    equal "LISTINDEX" "$(through_doveadm a locate "${about[@]}" | sed -n 's/^LISTINDEX *//p')" "$dir"
    through_doveadm a status "${about[@]}" | grep -E '^in step +yes: ' || die "not in step"
    wait_until 10 "the end of the last session" nobody_has_it_open
    through_doveadm a usercache clean 7days "$dir" 2>&1 | grep -F 'left: last used' || die "not a word"
    through_doveadm a usercache sweep 7days "$root" | grep -F ' 0 cleaned,' || die "cleaned"
    [ -e "$log" ] || die "a list index in use today was deleted"
    # Nothing is vouched for any more, and nothing is lost.
    through_doveadm a usercache forget "$root"
    through_doveadm a status "${about[@]}" | grep -E '^in step +no: ' || die "still in step"
    look a
    look a
    wait_until 10 "the end of the last session" nobody_has_it_open
    through_doveadm a usercache clean 0 "$dir"
    is_cleaned "$dir" || die "still there: $(ls -A "$dir")"
    through_doveadm a usercache clean 0 "$dir/none" || status=$?
    equal "exit status without a directory" "$status" 66
    look a
    look a
    wait_until 10 "the end of the last session" nobody_has_it_open
    through_doveadm a usercache sweep 0 "$root" | grep -F ' 1 cleaned,' || die "not cleaned"
    is_cleaned "$dir" || die "still there: $(ls -A "$dir")"
    look a
    move b Other
    look a
    all_looks_were_right
}

# Each with an own uid, so everybody may make his directory in them.
hash_directories_are_those_of_the_setting() {
    local location="mdbox:~/mdbox:${HASHED//@LOCAL@/$SITE_SHM/a}" configuration=$SITE/a/hashed.conf
    # Users cannot be listed here.
    expect_errors 'passwd-file'
    {
        cat "$SITE/a/dovecot.conf"
        if is_2_4 "$(dovecot_of a)"; then
            fields_of_2_4 "$location" | sed 's/=/ = /'
        else
            printf 'mail_location = %s\n' "$location"
        fi
    } >"$configuration"
    equal "lines for the hash directories" "$(through_doveadm a check --tmpfiles --dovecot-config "$configuration" |
        grep -F "d $SITE_SHM/a/" | cut -d ' ' -f 1-4 | md5sum)" \
        "$(printf "d $SITE_SHM/a/%02x 1733 root\\n" {0..255} | md5sum)"
}

# --- many at once -----------------------------------------------------------------

many_parallel_logins() {
    local n host users=()
    for n in {1..20}; do
        new_user "${LAYOUTS[n % ${#LAYOUTS[@]}]#*|}:$HASHED"
        settle
        move b "Other$n"
        [ "$WRONG" = 0 ] || die "wrong before the storm"
        book >"$WORK/book.$WHO"
        users+=("$WHO=$WORK/book.$WHO")
    done
    for host in a b a; do
        LOGINS=10 client storm "$(port_of $host IMAP)" "${users[@]}"
    done
}

# --- migration ----------------------------------------------------------------------

migration_is() {
    local host
    for host in a b; do
        configure_wrapper "$host" "migration = $1"
    done
}

sums_in() {
    (cd "$1" && find . -type f -name "$2*" ! -name .lasthost -exec cksum {} + | sed "s/$2/PREFIX/" | sort -k 3)
}

# migrates LOCATION DIRECTORY [PREFIX]: a user's shared list index, in DIRECTORY
# below home, becomes the local one.
migrates() {
    local location=$1 directory prefix=${3:-dovecot.list.index} shared dir
    migration_is true
    new_user "$location"
    move a OldA
    move b OldB
    create_folders b 40
    directory=$(home_of "$WHO")/$2
    # Dovecot may still have something to tidy up at the next look.
    shared=
    until [ "$(sums_in "$directory" dovecot.list.index)" = "$shared" ]; do
        shared=$(sums_in "$directory" dovecot.list.index)
        look b
    done
    [ -n "$shared" ] || die "no shared list index: the case shows nothing"
    add_user "$WHO" "$location:LISTINDEX=@LOCAL@/%u/$prefix"
    look a
    dir=$(local_dir a "$WHO")
    equal "the local list index" "$(sums_in "$dir" "$prefix")" "$shared"
    no_list_index_in_the_store
    look a
    equal "the local list index after the next login" "$(sums_in "$dir" "$prefix")" "$shared"
    moves
    all_looks_were_right
    no_list_index_in_the_store
    migration_is false
}

# b has not been given this program yet, and keeps its list index in the store. What b shows is not
# this program's; a must be right.
a_backend_without_it_is_noticed() {
    local n
    migration_is true
    new_user "mdbox:~/mdbox:$FLAT"
    add_user_on b "$WHO" mdbox:~/mdbox
    for n in 1 2 3; do
        imap b "$WHO" look "create:Shared$n" "append:Shared$n" >/dev/null
        BOOK[Shared$n]=1
        move a "Local$n"
        look a
    done
    all_looks_were_right
    [ -e "$(home_of "$WHO")/mdbox/dovecot.list.index.log" ] || die "the list index of the other backend is gone"
    wrapper_lines | grep -F 'is left alone' || die "not a word about it: $(wrapper_lines)"
    migration_is false
}

litter_of_a_migration() {
    local left
    migration_is true
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    left=$(home_of "$WHO")/mdbox/dovecot.list.index
    printf litter >"$left"
    # The claim says that it was made for a migration.
    printf 'migrating 17/1700000000.000000123/4711\n' >>"$(claim_of "$WHO")"
    move b Other
    [ ! -e "$left" ] || die "the litter is still there"
    look a
    all_looks_were_right
    migration_is false
}

a_full_tmpfs_stops_a_migration() {
    local full=$SITE_SHM/a/migrate$CASE
    expect_errors 'No space left'
    small_tmpfs "$full"
    migration_is true
    new_user mdbox:~/mdbox
    move a Old
    move b Older
    look a
    add_user_on a "$WHO" "mdbox:~/mdbox:LISTINDEX=@LOCAL@/migrate$CASE/%u/dovecot.list.index"
    fill "$full"
    look a
    it_was_full
    equal "partial copies" "$(on a find "$full" -name 'dovecot.list.index*')" ""
    look b
    make_room "$full"
    look a
    look a
    all_looks_were_right
    migration_is false
}

# --- syslog ----------------------------------------------------------------------------

syslog_tells() {
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    : >"$SITE/b/syslog.messages"
    mark_logs
    look b
    look b
    all_looks_were_right
    equal "lines for Dovecot's log" "$(wrapper_lines)" ""
    wait_until 5 "the message" grep -qF '<22>' "$SITE/b/syslog.messages"
    # 22 is mail.info, 20 mail.warning: the user came back within a minute.
    equal "messages" "$(cut -c 1-4 "$SITE/b/syslog.messages" | sort | tr '\n' ' ')" "<20> <22> "
    grep -E "^<22>.*nfs-hostchange.*$WHO.*a\.example\.org" "$SITE/b/syslog.messages" ||
        die "the messages are: $(<"$SITE/b/syslog.messages")"
}

a_full_syslog_holds_up_nobody() {
    local pid
    new_user "mdbox:~/mdbox:$FLAT"
    settle
    pid=$(<"$SITE/b/syslogd.pid")
    kill -STOP "$pid"
    "$PYTHON" "$REPO/tests/lib/syslogd.py" "$SITE/b/syslog" full
    mark_logs
    look b
    kill -CONT "$pid"
    all_looks_were_right
    wrapper_lines | grep -F "$WHO" || die "what syslog did not take is nowhere"
}

# --- declaring ---------------------------------------------------------------

for layout in "${LAYOUTS[@]}"; do
    scenario none "without the wrapper, a user who moves is shown something wrong: ${layout%%|*}" \
        without_it_looks_are_wrong "${layout#*|}:$HASHED"
done
for layout in "${LAYOUTS[@]}"; do
    scenario many "a user who moves sees the truth, and no phantom folder: ${layout%%|*}" \
        with_it_looks_are_right "${layout#*|}:$HASHED"
done
scenario careless "a hook that makes directories as root makes IMAP fail: the harness sees it" \
    a_careless_hook_is_seen
for mode in vmail drop; do
    case $mode in
        vmail) words='all users of one uid' ;;
        drop) words='script-login -d' ;;
    esac
    for layout in 'mdbox|mdbox:~/mdbox' 'maildir++ with INDEX|maildir:~/Maildir:INDEX=~/index' 'mbox|mbox:~/mail'; do
        scenario $mode "a user who moves sees the truth, $words: ${layout%%|*}" \
            with_it_looks_are_right "${layout#*|}:$HASHED"
    done
done
scenario chain "a chain of two post-login scripts" with_it_looks_are_right "mdbox:~/mdbox:$HASHED"
scenario many "the location as the userdb field mail" field_mail "mdbox:~/mdbox:$HASHED"
scenario default "the location as a default of the userdb" default_field
scenario many "the claim names the host that serves the user" the_claim_names_the_host
scenario many "the list index is used until the user comes from elsewhere" the_list_index_is_used
scenario many "a login on the same host changes nothing and logs nothing" a_login_on_the_same_host_changes_nothing
scenario many "the log names the host the user came from" the_log_names_the_host_the_user_came_from
scenario many "two hosts that share a name" hosts_of_one_name
for mode in many vmail drop; do
    scenario $mode "POP3 is right and claims the user: $mode" pop3_is_right_and_claims
    scenario $mode "a new user's first two connections at once see what either creates: $mode" \
        first_two_connections "mdbox:~/mdbox:$FLAT"
    scenario $mode "LMTP and LDA deliveries before, between and after logins: $mode" \
        deliveries_between_logins "mdbox:~/mdbox:$FLAT"
done
scenario many "deliveries below parents that the wrapper made" deliveries_below_parents_made_by_the_wrapper

for prefix in '' ${OTHER:+other_}; do
    words=$(words_of "${prefix}many")
    for layout in maildir:~/Maildir mbox:~/mail; do
        scenario "${prefix}none" "without the wrapper, INDEX=MEMORY goes wrong as well$words: ${layout%%:*}" \
            without_it_folders_are_wrong "$layout:INDEX=MEMORY:$HASHED"
        scenario "${prefix}many" "INDEX=MEMORY$words: ${layout%%:*}" with_it_folders_are_right "$layout:INDEX=MEMORY:$HASHED"
    done
    scenario "${prefix}none" "without the wrapper, a login while the store is away is remembered$words" \
        without_it_an_unmounted_store_is_remembered
    scenario "${prefix}many" "a login while the store is away leaves nothing behind$words" \
        an_unmounted_store_is_not_remembered 0755
    scenario "${prefix}vmail" "a login while the store is away leaves nothing behind, all users of one uid$words" \
        an_unmounted_store_is_not_remembered 0755
    scenario "${prefix}many" "a login while the store is away and its place can be written leaves nothing behind$words" \
        an_unmounted_store_is_not_remembered 1777
    scenario "${prefix}many" "a full tmpfs$words" a_full_tmpfs
    scenario "${prefix}many" "garbled records$words" garbled_records
    scenario "${prefix}many" "a broken configuration file$words" broken_configuration
done
scenario many "a held lock, and a holder that records late" a_held_lock
scenario many "a held lock where nothing has changed" a_held_lock_and_no_change
for how in parent-closed parent-file parent-link file link owner; do
    scenario many "a directory for list indexes that cannot be used: $how" spoiled_list_index_directory $how
done
scenario vmail "a directory for list indexes that cannot be used, all users of one uid: parent-closed" \
    spoiled_list_index_directory parent-closed
scenario many "an INDEX directory that cannot be written" an_index_directory_that_cannot_be_written
scenario many "half a list index left by a crash" half_a_list_index
scenario many "something else in the lock file's place" wrong_file_types record
scenario many "something else in the claim's place" wrong_file_types claim
scenario many "a claim that was deleted" a_claim_that_was_deleted
scenario many "a configuration file that others may write" configuration_of_others
scenario many "no configuration file" no_configuration
scenario groups "INDEX directories that a group opens" group_of_the_service
scenario many "LAYOUT=index loses no folder" layout_index_loses_no_folder
scenario many "a shared list index is left alone: no LISTINDEX" shared_list_index_is_left_alone ''
scenario many "a shared list index is left alone: relative LISTINDEX" \
    shared_list_index_is_left_alone ':LISTINDEX=sub/relative'
scenario many "a shared list index is left alone: relative LISTINDEX, with INDEX" \
    shared_list_index_is_left_alone ':INDEX=~/index:LISTINDEX=sub/relative'
scenario vmail "of files side by side only the user's own are deleted" only_the_own_prefix_is_deleted
scenario archive "another namespace with LAYOUT=index keeps working in a session without list index" \
    archive_keeps_working
scenario many "a folder called lasthost" a_folder_called_lasthost "maildir:~/Maildir:$FLAT"
scenario many "a folder called lasthost, with INDEX" a_folder_called_lasthost "maildir:~/Maildir:INDEX=~/index:$FLAT"
scenario many "a parent directory made by a delivery to another" a_parent_made_by_a_delivery_to_another
scenario many "new sessions are right while an old one lives" new_sessions_are_right_while_an_old_one_lives
for how in lock index record; do
    # Without a record's place there is none for the note either: docs/protocol.md.
    [ "$how" = record ] || scenario many "a session without list index is not overlooked: $how" \
        a_session_without_list_index_is_not_overlooked $how
    scenario many "a session whose list index is thrown away is not overlooked: $how" \
        a_session_whose_list_index_is_thrown_away_is_not_overlooked $how
done
for site in services ${OTHER:+other_services}; do
    words=$(words_of "$site")
    for service in pop3 submission sieve; do
        scenario "$site" "a login claims the user: $service$words" login_claims $service
    done
done
for site in hibernate ${OTHER:+other_hibernate}; do
    scenario "$site" "hibernated sessions come back to what they had$(words_of "$site")" hibernated_sessions
done

# The other Dovecot alone, and both over one store: backend by backend, as in an upgrade.
for site in ${OTHER:+other_many mixed_many mixed2_many}; do
    words=$(words_of "$site")
    for layout in "${LAYOUTS[@]}"; do
        # Once is enough for each, where both are there.
        [[ $site != mixed2_* || $layout == *INDEX* ]] || continue
        scenario "$site" "a user who moves sees the truth, and no phantom folder$words: ${layout%%|*}" \
            with_it_looks_are_right "${layout#*|}:$HASHED"
    done
    scenario "$site" "LMTP and LDA deliveries before, between and after logins$words" \
        deliveries_between_logins "mdbox:~/mdbox:$FLAT"
    scenario "$site" "migration: mdbox$words" migrates mdbox:~/mdbox mdbox
    scenario "$site" "a backend without the wrapper, with its list index in the store, is noticed$words" a_backend_without_it_is_noticed
    scenario "$site" "a held lock, and a holder that records late$words" a_held_lock
done
if [ -n "$OTHER" ]; then
    for layout in "${LAYOUTS[@]:0:5}"; do
        scenario other_none "without the wrapper, a user who moves is shown something wrong on $OTHER: ${layout%%|*}" \
            without_it_looks_are_wrong "${layout#*|}:$HASHED"
    done
    for mode in vmail drop; do
        scenario other_$mode "a user who moves sees the truth on $OTHER, $mode" with_it_looks_are_right "mdbox:~/mdbox:$HASHED"
        scenario other_$mode "POP3 is right and claims the user on $OTHER: $mode" pop3_is_right_and_claims
    done
    for how in parent-file link owner; do
        scenario other_many "a directory for list indexes that cannot be used on $OTHER: $how" spoiled_list_index_directory $how
    done
    scenario other_default "the location as a default of the userdb on $OTHER" default_field
    scenario other_groups "INDEX directories that a group opens on $OTHER" group_of_the_service
    scenario other_chain "a chain of two post-login scripts on $OTHER" with_it_looks_are_right "mdbox:~/mdbox:$HASHED"
    scenario other_many "a new user's first two connections at once see what either creates on $OTHER" \
        first_two_connections "mdbox:~/mdbox:$FLAT"
    scenario other_many "LAYOUT=index loses no folder on $OTHER" layout_index_loses_no_folder
    scenario other_many "a shared list index is left alone on $OTHER" shared_list_index_is_left_alone ''
    scenario other_archive "another namespace with LAYOUT=index keeps working in a session without list index on $OTHER" \
        archive_keeps_working
    scenario other_many "usercache clean is not noticed by the user on $OTHER" cleaning_is_not_noticed
else
    scenario - "no Dovecot of another version: run tests/setup.sh roots" skip "it was not made"
fi
if ! $QUICK; then
    scenario many "killed before any system call of a host change" killed_on_a_host_change
    scenario many "killed before any system call of a migration" killed_on_a_migration
    scenario many "killed before any system call of usercache clean" killed_on_cleaning
fi
scenario many "usercache clean is not noticed by the user" cleaning_is_not_noticed
scenario many "usercache clean spares a list index that a session has open" cleaning_spares_a_live_session
scenario many "locate and status ask Dovecot" the_command_asks_dovecot
scenario many "doveadm executes the command" doveadm_executes_the_command
scenario many "check --tmpfiles knows the hash directories" hash_directories_are_those_of_the_setting
if [ -n "$OTHER" ]; then
    scenario other_many "locate and status ask Dovecot on $OTHER" the_command_asks_dovecot
    scenario other_many "doveadm executes the command on $OTHER" doveadm_executes_the_command
    scenario other_many "check --tmpfiles knows the hash directories on $OTHER" hash_directories_are_those_of_the_setting
fi
scenario many "200 parallel logins of 20 users" many_parallel_logins
scenario vmail "200 parallel logins of 20 users, all of one uid" many_parallel_logins
scenario many "migration: mdbox" migrates mdbox:~/mdbox mdbox
scenario many "migration: another prefix" migrates mdbox:~/mdbox mdbox list
scenario many "migration: mdbox with INDEX" migrates mdbox:~/mdbox:INDEX=~/index index
scenario many "migration: sdbox" migrates sdbox:~/sdbox sdbox
scenario many "migration: maildir++" migrates maildir:~/Maildir Maildir
scenario many "migration: maildir++ with INDEX" migrates maildir:~/Maildir:INDEX=~/index index
scenario vmail "migration: mdbox, all users of one uid" migrates mdbox:~/mdbox mdbox
scenario drop "migration: mdbox, script-login -d" migrates mdbox:~/mdbox mdbox
scenario many "a backend without the wrapper, with its list index in the store, is noticed" a_backend_without_it_is_noticed
scenario many "the litter of a migration is removed" litter_of_a_migration
for site in many ${OTHER:+other_many}; do
    scenario "$site" "a full tmpfs stops a migration, and nobody is shown anything wrong$(words_of "$site")" \
        a_full_tmpfs_stops_a_migration
done
scenario syslog "one message in syslog for a host change, none for the next login" syslog_tells
scenario syslog "a syslog that does not read holds up nobody" a_full_syslog_holds_up_nobody

# --- running ----------------------------------------------------------------

list_scenarios
need_root
if [ -z "$WRAPPER" ]; then
    step "building"
    build_release || die "it does not build"
fi
make_work_dirs
start_asking
step "real Dovecot"
run_scenarios
print_result
