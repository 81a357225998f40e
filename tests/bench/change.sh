# shellcheck shell=bash
# What a login costs that has work to do, by the size of the list index: one after
# another backend's, and one that migrates. Needs run.sh.

measure_change() {
    local sizes=(10 100 1000 10000 100000) folders bytes kind command dir candidates=$WORK/candidates.change
    local wrapper=$BIN/nfs-hostchange-login end=$BIN/end.bare
    local common='hostname = "backend1.example.org"\n[log]\ntarget = "stderr"\nlevel = "error"\n'
    ! $QUICK || sizes=(10 1000)
    # shellcheck disable=SC2059
    printf "$common" >"$WORK/change.toml"
    # shellcheck disable=SC2059
    printf "migration = true\n$common" >"$WORK/migrate.toml"
    find_bytes_for_each_folder
    note "$bytes bytes in Dovecot's list index and its log for each folder"
    printf '%s\n' "$bytes" >"$RESULTS/change.bytes"
    for folders in "${sizes[@]}"; do
        for kind in none change migrate cp; do
            dir=$SHM/change/$kind.$folders
            mkdir -p "$dir/home/mdbox" "$dir/list" "$dir/copy" "$dir/original"
            head -c $((folders * bytes / 3)) /dev/urandom >"$dir/original/dovecot.list.index"
            head -c $((folders * bytes * 2 / 3)) /dev/urandom >"$dir/original/dovecot.list.index.log"
            chown -R mail:mail "$dir"
            case $kind in
                none | change) command=("$wrapper" "--config=$WORK/change.toml" "$end") ;;
                migrate) command=("$wrapper" "--config=$WORK/migrate.toml" "$end") ;;
                cp) command=(/bin/cp "$dir/original/dovecot.list.index" "$dir/original/dovecot.list.index.log" "$dir/copy") ;;
            esac
            candidate "$kind.$folders" "$BIN/prepare.sh" "$kind" "$dir" '=>' "HOME=$dir/home" \
                "MAIL_LOCATION=mdbox:~/mdbox:LISTINDEX=$dir/list/dovecot.list.index" "${command[@]}"
        done
    done >"$candidates"
    environment_of alice / / >"$WORK/environment.change"
    with_environment "$WORK/environment.change" setpriv --reuid=mail --regid=mail --clear-groups \
        "$BIN/spawn" "$(rounds 150 5)" "$candidates" >"$RESULTS/change.spawn"
    check_change "${sizes[0]}"
}

# The last round must have left what such a login leaves.
check_change() {
    local dir=$SHM/change
    [ ! -e "$dir/change.$1/list/dovecot.list.index" ] || die "the host change deleted nothing"
    cmp "$dir/migrate.$1/original/dovecot.list.index.log" "$dir/migrate.$1/list/dovecot.list.index.log" ||
        die "nothing was migrated"
    [ ! -e "$dir/migrate.$1/home/mdbox/dovecot.list.index.log" ] || die "the original was not deleted"
}

# Sets bytes. By a real Dovecot: a thousand folders more. Not in a subshell, which
# would stop no Dovecot at its end.
find_bytes_for_each_folder() {
    local few many list
    start_site folders vmail none
    add_user bob "mdbox:~/mdbox:LISTINDEX=@LOCAL@/%u/dovecot.list.index"
    list=$SITE_SHM/a/bob
    create_folders 100 200
    few=$(cat "$list"/dovecot.list.index* | wc -c)
    create_folders 200 "$(rounds 1200 400)"
    many=$(cat "$list"/dovecot.list.index* | wc -c)
    bytes=$(((many - few) / ($(rounds 1200 400) - 200)))
}

create_folders() {
    local names
    mapfile -t names < <(seq --format='folder%.0f' "$1" $(($2 - 1)))
    doveadm -c "$SITE/a/dovecot.conf" mailbox create -u bob "${names[@]}"
}
