#!/bin/dash
# The wrapper's work at a login where nothing has changed, as a POSIX shell script
# with the usual tools; for a script that runs as the mail user. At the first
# surprise it ends the login: a measure, not a program to use.
set -eu

index=$HOME/mdbox
list_index=${MAIL_LOCATION#*:LISTINDEX=}
lock=${list_index%/*}/.lasthost

# The directory first, past the cache: only then the claim in it is sure to be fresh.
claim=$(stat --cached=never --format='%i %.9Y' "$index" "$index/.lasthost")
claim=${claim#*
}
exec 9<"$lock"
flock --shared --timeout 5 9
{
    read -r version _
    # Of the one list index that is there.
    read -r inode modified _
} <&9
[ "$version $inode $modified" = "2 $claim" ]
touch -a "$lock"
exec 9<&-
exec "$@"
