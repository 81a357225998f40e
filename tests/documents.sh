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

# The one block for Dovecot $2 in the page $1.
block() {
    awk -v "begin=\`\`\`dovecot-$2" '$0 == begin { inside = 1; found++; next }
        /^```$/ { inside = 0 }
        inside
        END { exit found != 1 }' "$REPO/$1" || die "$1 has not one block for Dovecot $2"
}

# The first line of a userdb that the page $1 tells to add.
field() { grep -m 1 '^ *default_fields = mail_location=' "$REPO/$1"; }

# The userdb for one mail uid in docs/installation.md.
userdb_of_one_uid() {
    awk '/^One mail uid/ { inside = 1; next } inside && /^    / { print; seen = 1; next } seen { exit }' \
        "$REPO/docs/installation.md"
}

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
    # The documents have one place for list indexes, which each backend covers with its own.
    "$REPO/tests/lib/in-root.sh" "$root" "$REPO/tests/documents/inside.sh" "$1" "$2" "$DIST" "$WORK"
}

of_page() {
    block "$1" "$2" >"$WORK/block"
    : >"$WORK/userdb"
    [ "$2-$3" != 2.3-system ] || field "$1" >"$WORK/userdb"
    [ "$2-$3" != 2.3-vmail ] || userdb_of_one_uid >"$WORK/userdb"
    moves "$2" "$3"
}

of_example() {
    # Its userdb is for one uid, and replaces the system's.
    cp "$REPO/packaging/examples/$1" "$WORK/block"
    : >"$WORK/userdb"
    moves "$2" example
}

scenario - "README.md, Dovecot 2.3, system users: every folder is seen after a move" of_page README.md 2.3 system
scenario - "README.md, Dovecot 2.4, system users: every folder is seen after a move" of_page README.md 2.4 system
scenario - "docs/installation.md, Dovecot 2.3, one mail uid: every folder is seen after a move" \
    of_page docs/installation.md 2.3 vmail
scenario - "docs/installation.md, Dovecot 2.4, one mail uid: every folder is seen after a move" \
    of_page docs/installation.md 2.4 vmail
scenario - "docs/plugin.md, Dovecot 2.3: every folder is seen after a move" of_page docs/plugin.md 2.3 plugin
scenario - "docs/plugin.md, Dovecot 2.4: every folder is seen after a move" of_page docs/plugin.md 2.4 plugin
scenario - "docs/from-the-plugin.md, the manual's configuration: every folder is seen after a move" \
    of_page docs/from-the-plugin.md 2.3 plugin
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
