#!/bin/sh
# prepare.sh WHAT DIR: before one measured login. DIR has a user's home, list (his
# local list index), original (the files to be deleted or copied) and copy.
#   none     nothing has changed, but for the first time
#   change   another backend has claimed since; a list index is there
#   migrate  a list index in INDEX, none here
#   cp       no copy yet
set -eu

index=$2/home/mdbox

# As another backend would: a new file under the name.
claim() {
    echo backend2.example.org >"$index/.lasthost.backend2"
    mv "$index/.lasthost.backend2" "$index/.lasthost"
}

case $1 in
    none) ;;
    change)
        claim
        cp "$2/original/"* "$2/list/"
        ;;
    migrate)
        rm -f "$index/.lasthost" "$2/list/.lasthost" "$2/list/"dovecot.list.index*
        cp "$2/original/"* "$index/"
        ;;
    cp)
        rm -f "$2/copy/"*
        ;;
esac
