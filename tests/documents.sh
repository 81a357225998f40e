#!/usr/bin/env bash
# What the documents tell an administrator to write, taken out of them and written: each block of
# configuration on a stock Debian with the Dovecot that it is for, two backends, and a user who
# moves between them. The last line counts the cases.
#
#   tests/documents.sh [--list] [--only REGEX]
#
# Needs the roots that tests/setup.sh roots makes; a case whose root is missing is skipped.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"

read_options --list '--only REGEX' -- "$@"

# moves VERSION HOW FILE...: FILE is what goes to conf.d/95-nfs-hostchange.conf.
moves() {
    local root
    case $1 in
        2.3) root=bookworm ;;
        2.4) root=trixie ;;
    esac
    [ -d "$CACHE/roots/$root" ] || skip "there is no $CACHE/roots/$root; run tests/setup.sh roots"
    if [ "$2" = plugin ]; then
        DOVECOT_INCLUDE=$CACHE/roots/$root/usr/include/dovecot MODULES=$WORK/modules-$1 \
            "$REPO/packaging/build-plugin.sh"
    fi
    rm -rf "$WORK"/inside-*
    indented docs/troubleshooting.md 'is wrong. To let everybody in at once' >"$WORK/without"
    # The documents have one place for list indexes, which each backend covers with its own.
    "$REPO/tests/lib/in-root.sh" "$root" "$REPO/tests/documents/inside.sh" "$1" "$2" "$DIST" "$WORK"
}

of_page() {
    block "$1" "$2" >"$WORK/block"
    case $2-$3 in
        2.3-system) field "$1" ;;
        *-vmail) userdb_of_one_uid "$2" ;;
    esac >"$WORK/userdb"
    moves "$2" "$3"
}

of_example() {
    cp "$REPO/packaging/examples/$1" "$WORK/block"
    # The one for 2.3 has a userdb, for one uid.
    case $2 in
        2.3) ;;
        2.4) userdb_of_one_uid 2.4 ;;
    esac >"$WORK/userdb"
    moves "$2" example
}

PAGE=docs/installation.md

# The databases of sites, all with one user: a passwd-file, SQLite and an LDAP server, which inside.sh
# makes. WORK/sql and WORK/ldap are the files of Dovecot 2.3 that say how they are asked.
databases() {
    printf '%s\n' "${1:-$USER_OF_FILE}" >"$WORK/users"
    cat >"$WORK/sql" <<'END'
driver = sqlite
connect = /etc/dovecot/users.db
password_query = SELECT userid AS user, password FROM users WHERE userid = '%u'
user_query = SELECT home, uid, gid FROM users WHERE userid = '%u'
END
    cat >"$WORK/ldap" <<'END'
uris = ldap://127.0.0.1:@LDAP@
base = dc=example,dc=org
auth_bind = yes
pass_filter = (uid=%u)
pass_attrs = uid=user
user_filter = (uid=%u)
user_attrs = homeDirectory=home, uidNumber=uid, gidNumber=gid
END
}
USER_OF_FILE='alice:{PLAIN}pw:5000:5000::/srv/mail/alice::'
COLUMNS_OF_USERDB=', home AS userdb_home, uid AS userdb_uid, gid AS userdb_gid'

# instead FILE: the lines on stdin take the place of what sets the same in FILE.
instead() {
    local lines
    lines=$(cat)
    sed -i "/^${lines%% *} =/d" "$1"
    printf '%s\n' "$lines" >>"$1"
}

# for_database KIND: the blocks of Dovecot 2.3 for SQL, on stdin, for that database.
for_database() {
    case $1 in
        file) sed 's,driver = sql,driver = passwd-file,; s,args = .*,args = /etc/dovecot/users,' ;;
        sql) cat ;;
        ldap) sed 's,driver = sql,driver = ldap,; s,dovecot-sql,dovecot-ldap,' ;;
    esac
}

of_sql() { printf '%s {\n  driver = sql\n  args = /etc/dovecot/dovecot-sql.conf.ext\n}\n' "$1"; }

# passdb VERSION KIND [COLUMNS]
passdb() {
    case $1-$2 in
        2.3-*) of_sql passdb | for_database "$2" ;;
        2.4-file) printf 'passdb passwd-file {\n  passwd_file_path = /etc/dovecot/users\n}\n' ;;
        2.4-sql)
            printf 'sql_driver = sqlite\nsqlite_path = /etc/dovecot/users.db\n'
            printf 'passdb sql {\n'
            printf "  query = SELECT userid AS user, password%s FROM users WHERE userid = '%%{user}'\n}\n" "${3:-}"
            ;;
        2.4-ldap)
            printf 'ldap_uris = ldap://127.0.0.1:@LDAP@\nldap_base = dc=example,dc=org\n'
            printf 'passdb ldap {\n  bind = yes\n  filter = (uid=%%{user})\n}\n'
            ;;
    esac
}

# userdb VERSION KIND: one that tells no more than who the user is.
userdb() {
    case $1-$2 in
        2.3-*) of_sql userdb | for_database "$2" ;;
        2.4-file) printf 'userdb passwd-file {\n  passwd_file_path = /etc/dovecot/users\n}\n' ;;
        2.4-sql) printf "userdb sql {\n  query = SELECT home, uid, gid FROM users WHERE userid = '%%{user}'\n}\n" ;;
        2.4-ldap) block $PAGE 2.4-ldap | sed '/^    mail/d' ;;
    esac
}

# of_database VERSION KIND: the location is the same for everybody.
of_database() {
    block $PAGE "$1" >"$WORK/block"
    databases
    passdb "$1" "$2" >"$WORK/userdb"
    case $1 in
        2.3) indented $PAGE 'SQL (the same' | for_database "$2" ;;
        2.4) userdb "$1" "$2" ;;
    esac >>"$WORK/userdb"
    moves "$1" users
}

# of_prefetch VERSION KIND: the same, and the passdb tells who the user is.
of_prefetch() {
    block $PAGE "$1" >"$WORK/block"
    databases "${USER_OF_FILE}userdb_uid=5000 userdb_gid=5000 userdb_home=/srv/mail/alice"
    sed -i "s/AS user, password/&$COLUMNS_OF_USERDB/" "$WORK/sql"
    passdb "$1" "$2" "$COLUMNS_OF_USERDB" >"$WORK/userdb"
    case $1 in
        2.3) indented $PAGE 'With a prefetch both blocks' | for_database "$2" ;;
        2.4)
            indented $PAGE 'With a prefetch and 2.4' >>"$WORK/block"
            printf 'userdb prefetch {\n}\n'
            userdb "$1" "$2"
            ;;
    esac >>"$WORK/userdb"
    moves "$1" users
}

# of_rows VERSION KIND: the database has the location of each user. KIND may be prefetch, of SQL.
of_rows() {
    local kind=$2
    [ "$2" != prefetch ] || kind=sql
    block $PAGE "$1" >"$WORK/block"
    # What stands there would win over the database.
    [ "$1" = 2.3 ] || sed -i '/^userdb_fields {/,/^}/d' "$WORK/block"
    databases "$(block $PAGE "$1-passwd-file" | sed 's/{PLAIN}secret/{PLAIN}pw/')"
    passdb "$1" "$kind" >"$WORK/userdb"
    case $1-$2 in
        *-file) userdb "$1" file ;;
        2.3-prefetch)
            block $PAGE 2.3-prefetch | instead "$WORK/sql"
            block $PAGE 2.3-sql | instead "$WORK/sql"
            printf 'userdb {\n  driver = prefetch\n}\n'
            userdb 2.3 sql
            ;;
        2.3-*)
            block $PAGE "$1-$2" | instead "$WORK/$2"
            userdb 2.3 "$2"
            ;;
        2.4-prefetch)
            block $PAGE 2.4-prefetch
            printf 'userdb prefetch {\n}\n'
            block $PAGE 2.4-sql
            sed -i '/^passdb /,/^}/d' "$WORK/userdb"
            ;;
        2.4-*) block $PAGE "$1-$2" ;;
    esac >"$WORK/rows"
    cat "$WORK/rows" >>"$WORK/userdb"
    moves "$1" users
}

scenario - "README.md, Dovecot 2.3, system users: every folder is seen after a move" of_page README.md 2.3 system
scenario - "README.md, Dovecot 2.4, system users: every folder is seen after a move" of_page README.md 2.4 system
scenario - "docs/installation.md, Dovecot 2.3, one mail uid: every folder is seen after a move" \
    of_page docs/installation.md 2.3 vmail
scenario - "docs/installation.md, Dovecot 2.4, one mail uid: every folder is seen after a move" \
    of_page docs/installation.md 2.4 vmail
for version in 2.3 2.4; do
    for kind in file sql ldap; do
        scenario - "$PAGE, Dovecot $version, a database, $kind: every folder is seen after a move" \
            of_database $version $kind
        scenario - "$PAGE, Dovecot $version, a database with locations, $kind: every folder is seen after a move" \
            of_rows $version $kind
    done
    for kind in file sql; do
        scenario - "$PAGE, Dovecot $version, a prefetch, $kind: every folder is seen after a move" \
            of_prefetch $version $kind
    done
    scenario - "$PAGE, Dovecot $version, a prefetch with locations: every folder is seen after a move" \
        of_rows $version prefetch
done
scenario - "docs/plugin.md, Dovecot 2.3: every folder is seen after a move" of_page docs/plugin.md 2.3 plugin
scenario - "docs/plugin.md, Dovecot 2.4: every folder is seen after a move" of_page docs/plugin.md 2.4 plugin
scenario - "docs/from-the-plugin.md, the manual's configuration: every folder is seen after a move" \
    of_page docs/from-the-plugin.md 2.3 plugin
scenario - "docs/from-the-plugin.md, the same for Dovecot 2.4: every folder is seen after a move" \
    of_page docs/from-the-plugin.md 2.4 plugin
scenario - "packaging/examples, Dovecot 2.3: every folder is seen after a move" \
    of_example dovecot-nfs-hostchange.conf 2.3
scenario - "packaging/examples, Dovecot 2.4: every folder is seen after a move" of_example dovecot-2.4.conf 2.4

list_scenarios
need_root
make_work_dirs
build_release || die "it does not build"
run_scenarios
print_result
