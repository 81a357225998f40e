#!/usr/bin/env bash
# doveadm.sh COMMAND MODULES: what tests/doveadm.sh does in a Debian: "doveadm nfs usercache" beside
# "nfs-hostchange usercache", and in a doveadm server; what "nfs-hostchange status" learns of namespaces.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/../lib/common.sh"

COMMAND=$1 MODULES=$2 ONLY=${3:-}
VERSION=$(dovecot --version)
VERSION=${VERSION%% *}
INSTALLED=/usr/lib/dovecot/modules/doveadm/lib90_doveadm_nfs_hostchange_plugin.so
make_work_dirs

mkdir -p "${INSTALLED%/*}"
cp "$MODULES/doveadm/${INSTALLED##*/}" "$INSTALLED"
install -m 0755 "$COMMAND" /usr/bin/nfs-hostchange
ln -s ../../bin/nfs-hostchange /usr/lib/dovecot/nfs-hostchange

# users: two users' directories that have just been used, one with a name that is hard to quote, and
# one user who is there no more.
users() {
    local user
    rm -rf "${SHM:?}/root"
    for user in alice 'b "o b' -carl; do
        mkdir -p "$SHM/root/00/$user"
        printf '%s\n' "1 17 1700000000.000000001 backend1.example.org" >"$SHM/root/00/$user/.lasthost"
        : >"$SHM/root/00/$user/dovecot.list.index.log"
        chown -R 5000:5000 "$SHM/root/00/$user"
    done
}

# both ARG...: one command line, the same result: output, errors, exit status, and what is left.
both() {
    local way
    for way in "doveadm nfs" nfs-hostchange; do
        users
        (
            status=0
            cd "$SHM/root/00"
            # shellcheck disable=SC2086 # two words
            $way usercache "$@" 2>&1 || status=$?
            printf 'status %s\n' "$status"
            cd "$SHM" && find . -mindepth 1 | LC_ALL=C sort
        ) | sed -E 's/[0-9.]+ (ms|s|seconds)\b|("duration_seconds":)[0-9.]+/\2TIME/g' >"$WORK/${way%% *}"
    done
    diff -u "$WORK/nfs-hostchange" "$WORK/doveadm" || die "usercache $*"
}

# said REGEX: both of them.
said() { grep -E "$1" "$WORK/doveadm" || die "'$1' is not in it: $(<"$WORK/doveadm")"; }

gives_the_same() {
    local none="$SHM/root/00/none"
    both clean 7days "$SHM/root/00/alice"
    said 'left: last used'
    both clean 0 "$SHM/root/00/alice"
    said '^status 0$'
    [ -z "$(ls -A "$SHM/root/00/alice" 2>/dev/null)" ] || die "it cleans nothing"
    both clean -v 0 "$SHM/root/00/b \"o b" "$SHM/root/00/-carl"
    said '^status 0$'
    both clean --prefix=-x --dry-run '1 week' "$SHM/root/00/alice"
    said '^status 0$'
    both clean -- 0 "$SHM/root/00/alice"
    said '^status 0$'
    both clean 0 "$none"
    said '^status 66$'
    both clean 0 -carl
    said '^status 64$'
    both clean 0 ''
    said '^status 64$'
    both clean -0 "$SHM/root/00/alice"
    said '^status 64$'
    both clean
    said '^status 64$'
    both clean 7days
    said 'required arguments were not provided'
    both nonsense
    said '^status 64$'
    both
    said '^status 64$'
    both sweep 7days "$SHM/root"
    said ' 0 cleaned'
    both sweep --json 0 "$SHM/root"
    said '^status 0$'
    both sweep 0 "$none"
    said '^status 66$'
    both forget "$SHM/root"
    said '^status 0$'
}

doveadm_shows_it() {
    # Of 2.3 it is a mistake to ask.
    doveadm help >"$WORK/help" 2>&1 || true
    grep -E '^ *nfs +namespaces\|usercache$' "$WORK/help"
    ! doveadm nfs 2>"$WORK/usage" || die "no arguments are enough"
    grep -F 'clean|sweep <min age> <path>' "$WORK/usage"
}

says_which_package_is_missing() {
    local status=0
    rm /usr/lib/dovecot/nfs-hostchange
    doveadm nfs usercache clean 0 /none 2>"$WORK/error" || status=$?
    ln -s ../../bin/nfs-hostchange /usr/lib/dovecot/nfs-hostchange
    equal "exit status" "$status" 75
    grep 'No such file or directory; install the package dovecot-nfs-hostchange' "$WORK/error"
}

configuration() {
    case $VERSION in
        2.3.*) printf 'protocols = none\nlog_path = %s/log\n' "$WORK" ;;
        *)
            printf 'dovecot_config_version = %s\ndovecot_storage_version = %s\n' "${VERSION%%-*}" "${VERSION%%-*}"
            printf 'protocols =\nlog_path = %s/log\n' "$WORK"
            ;;
    esac
    printf 'base_dir = %s/base\nlisten = 127.0.0.1\nssl = no\ndoveadm_api_key = key\n' "$WORK"
    printf 'service doveadm {\n  process_limit = 1\n  inet_listener http {\n    port = %s\n  }\n}\n' "$1"
}

a_server_refuses() {
    local port
    users
    port=$("$PYTHON" "$REPO/tests/lib/mailclient.py" ports 1)
    configuration "$port" >"$WORK/dovecot.conf"
    : >"$WORK/log"
    dovecot -c "$WORK/dovecot.conf"
    on_exit doveadm -c "$WORK/dovecot.conf" stop
    "$PYTHON" - "$WORK/base/doveadm-server" "$port" "$SHM/root/00/alice" <<'END'
import base64, json, socket, sys, urllib.request

path, port, directory = sys.argv[1:]

# One connection, one process: what is asked afterwards is answered, too.
server = socket.socket(socket.AF_UNIX)
server.settimeout(20)
server.connect(path)
answers = server.makefile("rb")
server.sendall(b"VERSION\tdoveadm-server\t1\t0\n")
assert answers.readline() == b"+\n"
for command, last in (("nfs usercache\tclean\t0\t" + directory, b"-DATAERR\n"), ("service status", b"+\n")):
    server.sendall(b"\t\t" + command.encode() + b"\n")
    answers.readline()
    answer = answers.readline()
    assert answer == last, (command, answer)
answers.close()
server.close()

request = urllib.request.Request(
    f"http://127.0.0.1:{port}/doveadm/v1",
    json.dumps([["nfsUsercache", {"args": ["clean", "0", directory]}, "t"]]).encode(),
    {"Authorization": "X-Dovecot-API " + base64.b64encode(b"key").decode(), "Content-Type": "application/json"},
)
answer = json.load(urllib.request.urlopen(request, timeout=20))
assert answer[0][0] == "error" and answer[0][1]["exitCode"] == 65, answer
END
    [ -e "$SHM/root/00/alice/dovecot.list.index.log" ] || die "it cleaned"
    equal "lines in the log" \
        "$(grep -c "Error: .*'doveadm nfs usercache' cannot be run by a doveadm server" "$WORK/log")" 2
    ! grep -E 'Fatal|Panic|killed' "$WORK/log" || die "the server ended"
}

# What is said of it in docs/from-the-plugin.md.
another_abi_breaks_nothing_else() {
    local status=0
    on_exit cp "$MODULES/doveadm/${INSTALLED##*/}" "$INSTALLED"
    sed -b 's/\.ABIv[0-9]/.ABIv0/' "$MODULES/doveadm/${INSTALLED##*/}" >"$WORK/other.so"
    cp "$WORK/other.so" "$INSTALLED"
    equal "output of another command" "$(doveadm mailbox mutf7 ö 2>"$WORK/error")" '&APY-'
    equal "lines" "$(grep -c 'Module is for different ABI version' "$WORK/error") of $(wc -l <"$WORK/error")" "3 of 3"
    doveadm nfs usercache clean 0 /none 2>/dev/null || status=$?
    equal "exit status of the command" "$status" 64
}

# namespaces_configuration: alice's mail in four namespaces: the inbox's, one in Maildir, one without a list index of its
# own, a public one, and the inbox's by another name.
namespaces_configuration() {
    local local=$SHM/local
    case $VERSION in
        2.3.*) ;;
        *) printf 'dovecot_config_version = %s\ndovecot_storage_version = %s\n' "${VERSION%%-*}" "${VERSION%%-*}" ;;
    esac
    printf 'base_dir = %s/base\nlisten = 127.0.0.1\nssl = no\nlog_path = %s/log\nfirst_valid_uid = 1\n' "$WORK" "$WORK"
    printf 'mailbox_list_index = yes\nmail_plugin_dir = %s/modules\n' "$WORK"
    case $VERSION in
        2.3.*)
            printf 'protocols = none\nmail_plugins = nfs_hostchange\nmail_home = %s/mail/%%u\n' "$WORK"
            printf 'mail_location = mdbox:~/mdbox:LISTINDEX=%s/%%u/dovecot.list.index\n' "$local"
            printf 'passdb {\n  driver = passwd-file\n  args = %s/users\n}\n' "$WORK"
            printf 'userdb {\n  driver = passwd-file\n  args = %s/users\n}\n' "$WORK"
            namespace inbox "" 'inbox = yes'
            namespace archive 'archive folder/' \
                "location = maildir:~/archive:LISTINDEX=$local/%u/archive.list.index"
            namespace old old/ 'location = mdbox:~/old'
            namespace public public/ 'type = public' \
                "location = mdbox:$WORK/public:LISTINDEX=$local/public/dovecot.list.index"
            namespace alias alias/ 'alias_for ='
            ;;
        *)
            printf 'protocols =\nmail_plugins {\n  nfs_hostchange = yes\n}\nmail_home = %s/mail/%%{user}\n' "$WORK"
            printf 'mail_driver = mdbox\nmail_path = ~/mdbox\nmail_inbox_path =\n'
            printf 'mailbox_list_index_prefix = %s/%%{user}/dovecot.list.index\n' "$local"
            printf 'passdb passwd-file {\n  passwd_file_path = %s/users\n}\n' "$WORK"
            printf 'userdb passwd-file {\n  passwd_file_path = %s/users\n}\n' "$WORK"
            namespace inbox "" 'inbox = yes'
            namespace archive 'archive folder/' 'mail_driver = maildir' 'mail_path = ~/archive' \
                "mailbox_list_index_prefix = $local/%{user}/archive.list.index"
            namespace old old/ 'mail_path = ~/old' 'mailbox_list_index_prefix = dovecot.list.index'
            namespace public public/ 'type = public' "mail_path = $WORK/public" \
                "mailbox_list_index_prefix = $local/public/dovecot.list.index"
            namespace alias alias/ 'alias_for = inbox'
            ;;
    esac
}

# namespace NAME PREFIX LINE...
namespace() {
    printf 'namespace %s {\n  prefix = "%s"\n  separator = /\n' "$1" "$2"
    shift 2
    printf '  %s\n' "$@"
    printf '}\n'
}

# begin_namespaces: a Dovecot with the plugin, and alice, who has been here.
begin_namespaces() {
    rm -rf "$WORK/mail" "$WORK/public" "$SHM/local" "$WORK/modules"
    mkdir -p "$WORK/mail" "$WORK/public" "$SHM/local" "$WORK/modules"
    chmod 01777 "$WORK/mail" "$WORK/public" "$SHM/local"
    ln -s /usr/lib/dovecot/modules/* "$WORK/modules/"
    cp "$MODULES/lib90_nfs_hostchange_plugin.so" "$WORK/modules"
    chmod 0711 "$WORK/modules"
    printf '%s:{PLAIN}pw:5000:5000::::\n' alice bob >"$WORK/users"
    namespaces_configuration >"$WORK/dovecot.conf"
    install -m 0666 /dev/null "$WORK/log"
    dovecot -c "$WORK/dovecot.conf"
    on_exit doveadm -c "$WORK/dovecot.conf" stop
    imap 'CREATE work' 'CREATE "archive folder/done"' 'LIST "" * RETURN (STATUS (MESSAGES))'
    imap 'LIST "" * RETURN (STATUS (MESSAGES))'
}

# imap COMMAND...: a session of alice's.
imap() {
    printf 'a %s\r\n' "$@" LOGOUT | /usr/lib/dovecot/imap -c "$WORK/dovecot.conf" -u alice
}

status() { nfs-hostchange status --dovecot-config "$WORK/dovecot.conf" --user "$@"; }

# files: all that somebody may have changed. A file that is read may get another time of access.
files() {
    find "$WORK/mail" "$WORK/public" "$SHM/local" -printf '%p %i %s %m %U %T@ %C@\n' | LC_ALL=C sort
}

# shows NAMESPACE IN_STEP...: what "status --json" says of each.
shows() {
    status alice --json >"$WORK/status"
    "$PYTHON" - "$WORK/status" "$@" <<'END'
import json, sys

status = json.load(open(sys.argv[1]))
inbox, *others = status["namespaces"]
others.sort(key=lambda each: each["prefix"])
seen = [word for each in (inbox, *others) for word in (each["prefix"], str(each["in_step"]))]
assert seen == sys.argv[2:], (seen, status)
assert inbox["inbox"] and {**status, **inbox} | {"namespaces": 0} == {**inbox, **status} | {"namespaces": 0}, status
END
}

status_shows_each_namespace() {
    local before name
    begin_namespaces
    shows "" True "archive folder/" True public/ None
    "$PYTHON" - "$WORK/status" "$WORK" "$SHM" <<'END'
import json, sys

work, shm = sys.argv[2:]
namespaces = {each["prefix"]: each for each in json.load(open(sys.argv[1]))["namespaces"]}
archive, public = namespaces["archive folder/"], namespaces["public/"]
assert (archive["type"], archive["owner"], archive["inbox"]) == ("private", "alice", False), archive
assert archive["index_dir"] == f"{work}/mail/alice/archive", archive
assert archive["list_index_dir"] == f"{shm}/local/alice", archive
assert archive["files"] > 0 and archive["record"], archive
assert (public["type"], public["owner"]) == ("public", None), public
assert "runs without list index" in public["reason"], public
END
    status alice >"$WORK/text"
    grep -Fx "namespace   '', private" "$WORK/text"
    grep -Fx "namespace   'archive folder/', private" "$WORK/text"
    equal "namespaces in step" "$(grep -c '^in step     yes: ' "$WORK/text")" 2
    equal "public ones" "$(grep -c '^nothing to keep in step: .*public' "$WORK/text")" 1
    # Another backend has served one of them since.
    name=$WORK/mail/alice/archive/dovecot.lasthost
    printf 'b.example.org\n' >"$name.new"
    chown 5000:5000 "$name.new"
    mv "$name.new" "$name"
    before=$(files)
    shows "" True "archive folder/" False public/ None
    diff -u <(echo "$before") <(files) || die "looking changes something"
    ! grep -E 'Error|Panic' "$WORK/log" || die "errors in the log"
}

# bob has never had a session: what any command of doveadm's makes for him is all there is.
the_module_changes_nothing() {
    local before user
    begin_namespaces
    rm -rf "$SHM/local/alice"
    doveadm -c "$WORK/dovecot.conf" mailbox list -u bob >/dev/null
    before=$(files)
    for user in alice bob; do
        doveadm -c "$WORK/dovecot.conf" -f tab nfs namespaces -u "$user" >"$WORK/output"
        equal "lines about $user" "$(wc -l <"$WORK/output")" 4
        diff -u <(echo "$before") <(files) || die "it changes something of $user's"
    done
    doveadm -c "$WORK/dovecot.conf" nfs namespaces -u carl 2>/dev/null || equal "exit status" "$?" 67
}

# As it was before there was one: the userdb says nothing of the location.
status_works_without_the_module() {
    begin_namespaces
    on_exit cp "$MODULES/doveadm/${INSTALLED##*/}" "$INSTALLED"
    rm "$INSTALLED"
    ! status alice 2>"$WORK/error" || die "it knows where the list index is"
    equal "errors" "$(<"$WORK/error")" "$(grep -F 'the userdb does not return the location of the mail' "$WORK/error")"
    cat "$WORK/error"
}

scenario - "Dovecot $VERSION: doveadm nfs usercache does, says and returns what nfs-hostchange usercache does" gives_the_same
scenario - "Dovecot $VERSION: doveadm lists nfs usercache, and shows its arguments" doveadm_shows_it
scenario - "Dovecot $VERSION: doveadm nfs usercache says which package is missing" says_which_package_is_missing
scenario - "Dovecot $VERSION: a doveadm server refuses nfs usercache, and goes on" a_server_refuses
scenario - "Dovecot $VERSION: a module for another ABI breaks no other command of doveadm" another_abi_breaks_nothing_else
scenario - "Dovecot $VERSION: status shows each namespace as Dovecot resolved it" status_shows_each_namespace
scenario - "Dovecot $VERSION: asking for a user's namespaces changes nothing" the_module_changes_nothing
scenario - "Dovecot $VERSION: without the doveadm module status asks the userdb" status_works_without_the_module
run_scenarios
print_result
