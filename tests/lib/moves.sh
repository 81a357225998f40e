# shellcheck shell=bash
# A user who moves between the backends of a site, with a book kept of what the
# store must hold.

# open_book USER: a user whose store is empty. A mail user starts with an INBOX.
open_book() {
    WHO=$1
    declare -gA BOOK=([INBOX]=0)
    LOOKS=0
    WRONG=0
    LAST_SAW=
    LAST_TRUE=
}

book() {
    local folder
    for folder in "${!BOOK[@]}"; do
        printf '%s %s\n' "$folder" "${BOOK[$folder]}"
    done | LC_ALL=C sort
}

# move HOST FOLDER: WHO logs in there, looks at the folders, and then makes a new
# folder with one mail in it and gets one in INBOX. A wrong look is counted and shown.
move() {
    LAST_TRUE=$(book)
    LAST_SAW=$(imap "$1" "$WHO" look "create:$2" "append:$2" append:INBOX) || return
    compare "$1"
    BOOK[$2]=1
    BOOK[INBOX]=$((BOOK[INBOX] + 1))
}

# look HOST: only looks.
look() {
    LAST_TRUE=$(book)
    LAST_SAW=$(imap "$1" "$WHO" look) || return
    compare "$1"
}

compare() {
    LOOKS=$((LOOKS + 1))
    [ "$LAST_SAW" = "$LAST_TRUE" ] && return
    WRONG=$((WRONG + 1))
    printf 'wrong look of %s on %s (left: saw, right: true)\n' "$WHO" "$1"
    diff --side-by-side --width=60 <(printf '%s\n' "$LAST_SAW") <(printf '%s\n' "$LAST_TRUE") || true
}
