# shellcheck shell=bash
# What the documents tell an administrator to write.

# block PAGE VERSION: the one block for that Dovecot in the page.
block() {
    awk -v "begin=\`\`\`dovecot-$2" '$0 == begin { inside = 1; found++; next }
        /^```$/ { inside = 0 }
        inside
        END { exit found != 1 }' "$REPO/$1" || die "$1 has not one block for Dovecot $2"
}

# The first line of a userdb that the page $1 tells to add.
field() { grep -m 1 '^ *default_fields = mail_location=' "$REPO/$1"; }

# indented PAGE LINE: the lines of configuration after the first line of PAGE that begins with LINE.
indented() {
    awk -v "line=$2" 'index($0, line) == 1 { inside = 1; found = 1; next }
        inside && /^    / { print; seen = 1; next }
        seen { exit }
        END { exit !found }' "$REPO/$1" || die "$1 has no line '$2'"
}

# userdb_of_one_uid VERSION: the userdb that docs/installation.md has for one mail uid.
userdb_of_one_uid() {
    case $1 in
        2.3) indented docs/installation.md 'One mail uid and no database:' ;;
        2.4) indented docs/installation.md 'So the userdb blocks stay as they are. One mail uid' ;;
    esac
}
