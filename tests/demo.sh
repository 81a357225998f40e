#!/usr/bin/env bash
# What this project is for, on real Dovecots: one mail store, two backends a and b
# with list indexes of their own, and a user who moves between them, once without
# and once with the wrapper as post-login script. Installs and builds what it
# needs. Exit status 1 when the user saw something wrong in spite of the wrapper.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"
# shellcheck source=tests/lib/dovecot.sh
source "$REPO/tests/lib/dovecot.sh"

MOVES=(a b a b a b a b a)

# "3 folders, 5 mails" of "FOLDER MESSAGES" lines.
in_words() {
    awk '{ mails += $2 } END { printf "%d folders, %2d mails", NR, mails }' <<<"$1"
}

# journey HOOK: the same moves with each HOOK. What was seen at each arrival goes
# to the file $WORK/HOOK.saw, what was true to $WORK/HOOK.true.
journey() {
    local host n=0
    start_site "$1" many "$1"
    add_user alice "mdbox:~/mdbox:LISTINDEX=@LOCAL@/%2.256Nu/%u/dovecot.list.index"
    open_book alice
    for host in "${MOVES[@]}"; do
        # Dovecot's own word on what is there. It needs a store: not before the first login.
        [ "$n" = 0 ] || [ "$(truth alice)" = "$(book)" ] || die "the demo's book is wrong"
        n=$((n + 1))
        move "$host" "folder$n" >/dev/null || { tail -n 5 "$SITE/$host/log" >&2; die "a session failed on $host"; }
        in_words "$LAST_SAW" >>"$WORK/$1.saw"
        [ "$LAST_SAW" = "$LAST_TRUE" ] || printf ' WRONG' >>"$WORK/$1.saw"
        printf '\n' >>"$WORK/$1.saw"
        in_words "$LAST_TRUE" >>"$WORK/$1.true"
        printf '\n' >>"$WORK/$1.true"
    done
    note "$WRONG of $LOOKS looks wrong"
}

need_root
step "installing what is needed (tests/setup.sh)"
"$REPO/tests/setup.sh"
step "building"
build_release || die "it does not build"
make_work_dirs
step "moving without the wrapper, Dovecot $(version_of "${DOVECOT:-machine}")"
journey none
without=$WRONG
step "moving with the wrapper"
journey wrapper
with=$WRONG

step "what the user saw, and what was true"
row() { printf '   %-4s  %-21s  %-27s  %-27s\n' "$@"; }
row "on" "true" "seen without wrapper" "seen with wrapper"
for i in "${!MOVES[@]}"; do
    n=$((i + 1))
    row "${MOVES[i]}" "$(sed -n "${n}p" "$WORK/wrapper.true")" \
        "$(sed -n "${n}p" "$WORK/none.saw")" "$(sed -n "${n}p" "$WORK/wrapper.saw")"
done
row "" "wrong looks" "$without of ${#MOVES[@]}" "$with of ${#MOVES[@]}"
[ "$without" -gt 0 ] || die "without the wrapper nothing went wrong: this demonstration shows nothing"
[ "$with" = 0 ] || die "the wrapper let something wrong through"
