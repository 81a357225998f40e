#!/usr/bin/env bash
# A session that must not use its list index: whatever dovecot.conf says, Dovecot leaves it alone,
# the login works, and so does another namespace whose list index is no cache. If the inbox's own is
# none, the wrapper leaves it alone. On the machine's Dovecot and on those in the roots that
# tests/setup.sh made. The last line counts the cases.
#
#   tests/failsafe.sh [--wrapper PATH] [--only REGEX] [--list]
#
# The directory for the user's list index is a file: Dovecot crashes as soon as it uses it.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"
# shellcheck source=tests/lib/dovecot.sh
source "$REPO/tests/lib/dovecot.sh"

read_options '--wrapper PATH' '--only REGEX' --list -- "$@"

LIST_INDEX=@LOCAL@/%u/dovecot.list.index
LIST_INDEX_2_4='@LOCAL@/%{user}/dovecot.list.index'

# start_case DOVECOT HOOK SETTINGS: one backend with these lines in dovecot.conf, which has them alone
# but for what every test has.
start_case() {
    local settings
    SITE_SHM=$SHM/case$CASE
    settings=${3//@LOCAL@/$SITE_SHM/a}
    BACKENDS=a SITE_DOVECOTS=$1 SITE_SETTINGS=$settings SITE_SETTINGS_2_4=$settings start_site "case$CASE" many "$2"
}

# The user's session in all services: it must be able to do everything.
session_works() {
    local archive=$1
    imap a alice create:One append:One append:INBOX look >"$WORK/saw"
    equal "folders" "$(grep -E '^(INBOX|One) ' "$WORK/saw" | tr '\n' ' ')" "INBOX 1 One 1 "
    equal "mails by POP3" "$(pop3 a alice)" 1
    if $archive; then
        imap a alice create:archive/Two append:archive/Two >"$WORK/saw"
        imap a alice look >"$WORK/saw"
        equal "the other namespace" "$(grep -F archive/Two "$WORK/saw")" "archive/Two 1"
        equal "the other namespace, later" "$(imap a alice look | grep -F archive/Two)" "archive/Two 1"
    fi
}

# refused DOVECOT LOCATION SETTINGS [LINE...]: LINEs are for the wrapper's configuration.
refused() {
    local archive=false
    start_case "$1" wrapper "$3"
    configure_wrapper a "${@:4}"
    mark_logs
    : >"$SITE_SHM/a/alice"
    add_user_on a alice "$2"
    [[ $3 != *archive* ]] || archive=true
    session_works $archive
    wrapper_lines | grep -F 'session without list index' >/dev/null || die "the session had its list index: $(new_log_lines)"
    check_logs
    [ -f "$SITE_SHM/a/alice" ] || die "the file is gone"
}

# keeps_its_store STORE FOLDER DOVECOT LOCATION SETTINGS: what the session puts into FOLDER is in STORE, and
# nothing anywhere else but in the inbox's, which is ~/real or ~/mdbox.
keeps_its_store() {
    local store=$1 folder=$2 home
    start_case "$3" wrapper "$5"
    configure_wrapper a
    mark_logs
    : >"$SITE_SHM/a/alice"
    add_user_on a alice "$4"
    imap a alice "create:$folder" "append:$folder" append:INBOX look >"$WORK/saw" || die "$(new_log_lines)"
    equal "folders" "$(grep -E "^(INBOX|$folder) " "$WORK/saw" | tr '\n' ' ')" "INBOX 1 $folder 1 "
    wrapper_lines | grep -F 'session without list index' >/dev/null || die "the session had its list index: $(new_log_lines)"
    check_logs
    home=$SITE/store/alice
    find "$home/$store" -path "*/${folder##*/}/*" | grep . >/dev/null || die "the folder is not in $store: $(find "$home")"
    [ "$store" != real ] || [ ! -e "$home/mdbox" ] || die "the session used another store: $(find "$home")"
}

# The list index is the map to the folders, so nobody may switch it off: what a post-login script
# before the wrapper gets and one after it are compared.
left_alone() {
    local site=$WORK/case$CASE wrapper login
    wrapper="$site/bin/nfs-hostchange-login --config=$site/a/hostchange.toml"
    make_recorder
    start_case "$1" "command:$WORK/recorder $site/before $wrapper $WORK/recorder $site/after" "$3"
    mark_logs
    add_user_on a alice "$2"
    # A new user's first login, which would be one without list index, and a later one.
    for login in create:One look; do
        imap a alice "$login" append:One append:INBOX look >"$WORK/saw"
        grep -F 'MAIL' "$SITE/before" >/dev/null || die "there is no mail setting: $(<"$SITE/before")"
        equal "what the wrapper hands on" "$(<"$SITE/after")" "$(<"$SITE/before")"
    done
    equal "folders" "$(imap a alice look | tr '\n' ' ')" "INBOX 2 One 2 "
    equal "mails by POP3" "$(pop3 a alice)" 2
    wrapper_lines | grep -F 'layout index' >/dev/null || die "not a word about it: $(wrapper_lines)"
    [ -s "$SITE_SHM/a/alice/dovecot.list.index.log" ] || die "the session had no list index"
    check_logs
}

# A post-login script: recorder FILE NEXT... writes down what Dovecot will know of the user's mails. dash
# would drop names with a slash; bash hands them on.
make_recorder() {
    cat >"$WORK/recorder" <<'END'
#!/bin/bash
tr '\0' '\n' </proc/$$/environ | grep -E '^(MAIL|NAMESPACE|SET/|USERDB_KEYS=)' | LC_ALL=C sort >"$1"
shift
exec "$@"
END
    chmod 0755 "$WORK/recorder"
}

crashes_without() {
    start_case "$1" none "$3"
    mark_logs
    : >"$SITE_SHM/a/alice"
    add_user_on a alice "$2"
    imap a alice create:One look || true
    new_log_lines | grep -E 'Panic|Error: .*Not a directory' >/dev/null || die "Dovecot does not mind: the cases would show nothing"
}

# --- Dovecot 2.3 --------------------------------------------------------------

ARCHIVE='namespace archive {
  prefix = archive/
  separator = /
  location = mdbox:~/archive:LAYOUT=index
}'
INBOX="namespace inbox {
  inbox = yes
  separator = /
}
$ARCHIVE"

# declare_2_3 DOVECOT: its cases.
declare_2_3() {
    local on="Dovecot in $1"
    [ "$1" != machine ] || on="this machine's Dovecot"
    local location="mdbox:~/mdbox:LISTINDEX=$LIST_INDEX"
    scenario - "$on: a list index that cannot be used makes IMAP crash: the harness sees it" \
        crashes_without "$1" "$location" "$INBOX"
    scenario - "$on: the location is mail_location" refused "$1" "$location" "$INBOX"
    scenario - "$on: the location is mail" field mail refused "$1" "$location" "$INBOX"
    scenario - "$on: the location is namespace/inbox/location" \
        field namespace/inbox/location refused "$1" "$location" "$INBOX"
    scenario - "$on: the block of the namespace has a location too, and the userdb's is the namespace's" \
        field namespace/inbox/location refused "$1" "$location" "namespace inbox {
  inbox = yes
  separator = /
  location = $location
}
$ARCHIVE"
    scenario - "$on: the block of the namespace has another store than the userdb's location" \
        keeps_its_store real One "$1" "$location" "namespace inbox {
  inbox = yes
  separator = /
  location = mdbox:~/real
}"
    scenario - "$on: the userdb's mail_location is another namespace's store" \
        field namespace/inbox/location more 'mail_location=mdbox:~/other' keeps_its_store other other/One "$1" "$location" "$INBOX
namespace other {
  prefix = other/
  separator = /
}"
    scenario - "$on: there is no namespace" refused "$1" "$location" ""
    scenario - "$on: the namespace is called main" refused "$1" "$location" "${INBOX/ inbox/ main}"
    scenario - "$on: the namespace is called main, and the configuration file says so" \
        field namespace/main/location refused "$1" "$location" "namespace main {
  inbox = yes
  separator = /
  location = $location
}
$ARCHIVE" 'inbox_namespace = "main"'
    scenario - "$on: the namespace is called Inbox" refused "$1" "$location" "${INBOX/ inbox/ Inbox}"
    scenario - "$on: the userdb has the fields of both Dovecots" both refused "$1" "$location" "$INBOX"
    scenario - "$on: the location ends in a colon" refused "$1" "$location:" "$INBOX"
    scenario - "$on: mailbox_list_index is set in protocol imap" refused "$1" "$location" "$INBOX
protocol imap {
  mailbox_list_index = yes
}"
    scenario - "$on: mailbox_list_index is set in a local block" refused "$1" "$location" "$INBOX
local 127.0.0.0/8 {
  mailbox_list_index = yes
}"
    scenario - "$on: the inbox's own namespace has layout index" left_alone "$1" "$location:LAYOUT=index" "$INBOX"
}

# field NAME COMMAND...: the userdb returns the location by that name.
field() { USERDB_FIELD=$1 "${@:2}"; }

# more FIELD COMMAND...: the userdb returns this as well.
more() { USERDB_MORE=$1 "${@:2}"; }

# own_prefix COMMAND...: it returns the list index for the inbox's namespace alone.
own_prefix() { USERDB_FIELD_2_4=namespace/inbox/mailbox_list_index_prefix "$@"; }

# newer_prefix COMMAND...: the same in a field that Dovecot uses since 2.4.2.
newer_prefix() { USERDB_FIELD_2_4=set/mailbox_list_index_prefix "$@"; }

# both COMMAND...: the userdb returns what Dovecot 2.3 calls it, and what 2.4 does.
both() { USERDB_HAS_BOTH=true "$@"; }

# --- Dovecot 2.4 --------------------------------------------------------------

ARCHIVE_2_4='namespace archive {
  prefix = archive/
  separator = /
  mail_driver = mdbox
  mail_path = ~/archive
  mailbox_list_layout = index
  mailbox_list_index_prefix = dovecot.list.index
}'

# inbox_2_4 [LINES [NAME]]: the namespaces, with LINES in the inbox's block.
inbox_2_4() {
    printf 'namespace %s {\n  inbox = yes\n  separator = /\n%s\n}\n%s\n' "${2:-inbox}" "${1:-}" "$ARCHIVE_2_4"
}

declare_2_4() {
    local on="Dovecot in $1"
    [ "$1" != machine ] || on="this machine's Dovecot"
    local location="mdbox:~/mdbox:LISTINDEX=$LIST_INDEX" prefix="mailbox_list_index_prefix = $LIST_INDEX_2_4"
    case_2_4() {
        scenario - "$on: $1" refused "$2" "$location" "${@:3}"
    }
    scenario - "$on: a list index that cannot be used makes IMAP crash: the harness sees it" \
        crashes_without "$1" "$location" "$(inbox_2_4)"
    case_2_4 "everything is set globally" "$1" "$(inbox_2_4)
$prefix"
    scenario - "$on: the userdb has the fields of both Dovecots" both refused "$1" "$location" "$(inbox_2_4)"
    case_2_4 "the namespace's block switches it on" "$1" "$(inbox_2_4 'mailbox_list_index = yes')"
    case_2_4 "the namespace's block has the prefix" "$1" "$(inbox_2_4 "$prefix")"
    case_2_4 "the driver in the namespace's block switches it on" "$1" \
        "$(inbox_2_4 $'mdbox {\n mailbox_list_index = yes\n}')"
    case_2_4 "the driver in the namespace's block has the prefix" "$1" "$(inbox_2_4 "mdbox {
 $prefix
}")"
    case_2_4 "the driver's block switches it on" "$1" "$(inbox_2_4)
mdbox {
  mailbox_list_index = yes
}"
    case_2_4 "the layout's block switches it on" "$1" "$(inbox_2_4)
layout_fs {
  mailbox_list_index = yes
}"
    case_2_4 "the userdb switches it on for the namespace" "$1" "$(inbox_2_4)
userdb_fields {
  namespace/inbox/mailbox_list_index = yes
}"
    # Before 2.4.2 these are ignored. Since then they win over the same without set/.
    scenario - "$on: the userdb returns another list index in a field of newer versions" \
        more "set/mailbox_list_index_prefix=$LIST_INDEX_2_4.other" refused "$1" "$location" "$(inbox_2_4)"
    scenario - "$on: the list index is in a field of newer versions alone" \
        newer_prefix refused "$1" "$location" "$(inbox_2_4 "$prefix")"
    # These win over plain ones of the namespace, the first of them since 2.4.2.
    local special
    for special in set/namespace/inbox/mdbox/ namespace/inbox/mdbox/ namespace/inbox/layout_fs/; do
        scenario - "$on: the userdb returns the list index and its switch as $special..." \
            more "${special}mailbox_list_index=yes ${special}mailbox_list_index_prefix=$LIST_INDEX_2_4" \
            refused "$1" "$location" "$(inbox_2_4)"
    done
    scenario - "$on: the userdb returns the list index and its switch with a plus sign" \
        more "namespace/inbox/mailbox_list_index+=yes namespace/inbox/mailbox_list_index_prefix+=$LIST_INDEX_2_4" \
        refused "$1" "$location" "$(inbox_2_4)"
    case_2_4 "protocol imap switches it on" "$1" "$(inbox_2_4)
protocol imap {
  mailbox_list_index = yes
}"
    case_2_4 "protocol imap switches it on for the namespace" "$1" "$(inbox_2_4)
protocol imap {
  namespace inbox {
    mailbox_list_index = yes
  }
}"
    case_2_4 "protocol imap has the prefix" "$1" "$(inbox_2_4)
protocol imap {
  $prefix
}"
    local block
    for block in remote local; do
        case_2_4 "a $block block switches it on" "$1" "$(inbox_2_4)
$block 127.0.0.0/8 {
  mailbox_list_index = yes
}"
        case_2_4 "a $block block has the prefix" "$1" "$(inbox_2_4)
$block 127.0.0.0/8 {
  $prefix
}"
    done
    scenario - "$on: the block of the namespace has another store than the userdb's" \
        keeps_its_store real One "$1" "$location" "$(inbox_2_4 'mail_path = ~/real')"
    scenario - "$on: the list index is the namespace's own, and another namespace has the global name" \
        own_prefix refused "$1" "$location" "$(inbox_2_4 | grep -v mailbox_list_index_prefix)"
    case_2_4 "there is no namespace" "$1" ""
    case_2_4 "the namespace is called main" "$1" "$(inbox_2_4 '' main)"
    case_2_4 "the namespace is called main, has the prefix, and the configuration file says so" "$1" \
        "$(inbox_2_4 "$prefix" main)" 'inbox_namespace = "main"'
    scenario - "$on: the inbox's own namespace has layout index" left_alone "$1" "$location:LAYOUT=index" "$(inbox_2_4)"
    scenario - "$on: the inbox's own namespace has layout index in a field of its own" \
        more namespace/inbox/mailbox_list_layout=index left_alone "$1" "$location" "$(inbox_2_4)"
}

# Of the roots, those that are there; tests/setup.sh makes them.
for name in machine bookworm bookworm-backports trixie forky; do
    # The machine's own is one of them.
    if [ "$name" != machine ] && has_dovecot machine && has_dovecot "$name" &&
        [ "$(version_of "$name")" = "$(version_of machine)" ]; then
        continue
    fi
    if ! has_dovecot "$name"; then
        scenario - "there is no Dovecot in $name: run tests/setup.sh roots" skip "it was not made"
    elif is_2_4 "$name"; then
        declare_2_4 "$name"
    else
        declare_2_3 "$name"
    fi
done

list_scenarios
need_root
if [ -z "$WRAPPER" ]; then
    step "building"
    build_release || die "it does not build"
fi
make_work_dirs
start_asking
step "sessions without list index"
run_scenarios
print_result
