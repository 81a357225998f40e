#!/bin/sh
# A control, not part of the product: what a script can do with a plain stat of the claim. The NFS attribute
# cache answers such a stat, so it must be seen to trust lists that another backend has outdated.
set -eu
umask 077
index=$HOME/mdbox
local=${MAIL_LOCATION#*LISTINDEX=}
local=${local%/*}
mkdir -p "$local"
claim=$(stat -c '%i %y' "$index/.lasthost" 2>/dev/null) || claim=none
record=$(cat "$local/.lasthost" 2>/dev/null) || record=
if [ "$claim" != "$record" ] && [ -d "$index" ]; then
    rm -f "$local"/dovecot.list.index*
    hostname > "$index/.lasthost.$$"
    stat -c '%i %y' "$index/.lasthost.$$" > "$local/.lasthost"
    mv "$index/.lasthost.$$" "$index/.lasthost"
fi
exec "$@"
