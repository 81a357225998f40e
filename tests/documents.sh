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
# shellcheck source=tests/lib/build.sh
source "$REPO/tests/lib/build.sh"
# shellcheck source=tests/lib/cases.sh
source "$REPO/tests/lib/cases.sh"
# shellcheck source=tests/lib/pages.sh
source "$REPO/tests/lib/pages.sh"

LIST=false
ONLY=
while [ "$#" -gt 0 ]; do
    case $1 in
        --list) LIST=true ;;
        --only)
            ONLY=$2
            shift
            ;;
        *) die "usage: ${0##*/} [--list] [--only REGEX]" ;;
    esac
    shift
done

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
USER_OF_FILE='alice:{PLAIN}pw:5000:5000::/srv/mail/alice::'

# in_file: the blocks for SQL on stdin, with a file in the database's place.
in_file() {
    sed 's/driver = sql/driver = passwd-file/; s,args = .*,args = /etc/dovecot/users,'
}

passdb_of_file() {
    case $1 in
        2.3) printf 'passdb {\n  driver = passwd-file\n  args = /etc/dovecot/users\n}\n' ;;
        2.4) printf 'passdb passwd-file {\n  passwd_file_path = /etc/dovecot/users\n}\n' ;;
    esac
}

# A database that tells no more than who the users are.
of_database() {
    block $PAGE "$1" >"$WORK/block"
    passdb_of_file "$1" >"$WORK/userdb"
    case $1 in
        2.3) indented $PAGE 'SQL (the same' | in_file ;;
        2.4) printf 'userdb passwd-file {\n  passwd_file_path = /etc/dovecot/users\n}\n' ;;
    esac >>"$WORK/userdb"
    printf '%s\n' "$USER_OF_FILE" >"$WORK/users"
    moves "$1" users
}

of_prefetch() {
    block $PAGE "$1" >"$WORK/block"
    passdb_of_file "$1" >"$WORK/userdb"
    case $1 in
        2.3) indented $PAGE 'With a prefetch both blocks' | in_file ;;
        2.4)
            indented $PAGE 'With a prefetch and 2.4' >>"$WORK/block"
            printf 'userdb prefetch {\n}\nuserdb passwd-file {\n  passwd_file_path = /etc/dovecot/users\n}\n'
            ;;
    esac >>"$WORK/userdb"
    printf '%suserdb_uid=5000 userdb_gid=5000 userdb_home=/srv/mail/alice\n' "$USER_OF_FILE" >"$WORK/users"
    moves "$1" users
}

# A database that has the location of each user.
of_rows() {
    local row
    # shellcheck disable=SC2016 # the marks around code
    row=$(sed -n "/^| userdb of $1 |/,/^\$/s/^| passwd-file | \`\(.*\)\` |\$/\1/p" "$REPO/$PAGE")
    [[ $row == alice:...:* ]] || die "$PAGE has no row of a passwd-file for Dovecot $1"
    printf '%s\n' "${row/.../'{PLAIN}pw'}" >"$WORK/users"
    passdb_of_file "$1" >"$WORK/userdb"
    case $1 in
        2.3)
            block $PAGE 2.3 >"$WORK/block"
            printf 'userdb {\n  driver = passwd-file\n  args = /etc/dovecot/users\n}\n'
            ;;
        2.4)
            # The fields that the database returns would lose against these.
            block $PAGE 2.4 | sed '/^userdb_fields {/,/^}/d' >"$WORK/block"
            printf 'userdb passwd-file {\n  passwd_file_path = /etc/dovecot/users\n}\n'
            ;;
    esac >>"$WORK/userdb"
    moves "$1" users
}

scenario - "README.md, Dovecot 2.3, system users: every folder is seen after a move" of_page README.md 2.3 system
scenario - "README.md, Dovecot 2.4, system users: every folder is seen after a move" of_page README.md 2.4 system
scenario - "docs/installation.md, Dovecot 2.3, one mail uid: every folder is seen after a move" \
    of_page docs/installation.md 2.3 vmail
scenario - "docs/installation.md, Dovecot 2.4, one mail uid: every folder is seen after a move" \
    of_page docs/installation.md 2.4 vmail
for version in 2.3 2.4; do
    scenario - "$PAGE, Dovecot $version, a database: every folder is seen after a move" of_database $version
    scenario - "$PAGE, Dovecot $version, a prefetch: every folder is seen after a move" of_prefetch $version
    scenario - "$PAGE, Dovecot $version, a database with locations: every folder is seen after a move" of_rows $version
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

if $LIST; then
    run_scenarios
    exit
fi
need_root
make_work_dirs
build_release || die "it does not build"
run_scenarios
print_result
[ "$FAILED" = 0 ]
