# shellcheck shell=bash
# What cleaning all users' list indexes costs, on a tmpfs with a tenth of them unused
# for a month. Needs run.sh.

measure_sweep() {
    local users sizes=(10000 50000 200000 1000000) root=$WORK/tmpfs
    ! $QUICK || sizes=(2000 10000)
    mkdir "$root"
    # A million users are four million files.
    mount -t tmpfs -o size=90%,nr_inodes=0,mode=0711 tmpfs "$root"
    on_exit umount --lazy "$root"
    printf 'e %s - - - 7d\n' "$root/users" >"$WORK/tmpfiles.conf"
    for users in "${sizes[@]}"; do
        note "$users users"
        install -d -o mail -g mail -m 0700 "$root/users"
        as_mail_user "$BIN/populate" "$root/users" "$users" 10
        candidates_of_scan "$root/users" >"$WORK/candidates.scan"
        as_mail_user "$BIN/spawn" "$(rounds $((users < 1000000 ? 9 : 5)) 3)" "$WORK/candidates.scan" >"$RESULTS/scan.$users"
        candidates_of_pass "$users" "$root/users" >"$WORK/candidates.pass"
        as_mail_user "$BIN/spawn" "$(rounds $((users < 1000000 ? 9 : 3)) 3)" "$WORK/candidates.pass" >"$RESULTS/pass.$users"
        rm -rf "$root/users"
    done
    note "where every user is old"
    users=$(rounds 20000 1000)
    install -d -o mail -g mail -m 0700 "$root/users"
    candidates_of_deletion "$users" "$root/users" >"$WORK/candidates.deletion"
    as_mail_user "$BIN/spawn" "$(rounds 11 3)" "$WORK/candidates.deletion" >"$RESULTS/deletion.$users"
    rm -rf "$root/users"
    note "a command for each user"
    users=$(rounds 500 100)
    install -d -o mail -g mail -m 0700 "$root/users"
    printf 'libexec_dir = %s\nbase_dir = %s/run\nlog_path = /dev/stderr\n' "$BIN" "$WORK" >"$WORK/doveadm.conf"
    candidates_of_commands "$users" "$root/users" >"$WORK/candidates.commands"
    as_mail_user "$BIN/spawn" "$(rounds 5 3)" "$WORK/candidates.commands" >"$RESULTS/commands.$users"
}

# One thread is what taskset leaves: the command uses as many as it has processors.
candidates_of_scan() {
    local sweep=("$BIN/nfs-hostchange" usercache sweep --dry-run 3650days "$1")
    candidate scan.c "$BIN/sweep" "$1" 3650
    candidate scan.same "$BIN/sweep" "$1" 3650 look
    candidate scan.1 "$(command -v taskset)" 1 "${sweep[@]}"
    candidate scan.2 "${sweep[@]}"
    candidate scan.find /usr/bin/find "$1" -name .lasthost -atime +3650
}

candidates_of_pass() {
    local populate=("$BIN/populate" "$2" "$1" 10 '=>') sweep=("$BIN/nfs-hostchange" usercache sweep 7days "$2")
    candidate pass.c "${populate[@]}" "$BIN/sweep" "$2" 7 delete
    candidate pass.1 "${populate[@]}" "$(command -v taskset)" 1 "${sweep[@]}"
    candidate pass.2 "${populate[@]}" "${sweep[@]}"
    candidate pass.tmpfiles "${populate[@]}" /usr/bin/systemd-tmpfiles --clean "$WORK/tmpfiles.conf"
}

candidates_of_deletion() {
    local populate=("$BIN/populate" "$2" "$1" 100 '=>')
    candidate delete.c "${populate[@]}" "$BIN/sweep" "$2" 7 delete
    candidate delete.same "${populate[@]}" "$BIN/sweep" "$2" 7 safe
    candidate delete.1 "${populate[@]}" "$(command -v taskset)" 1 "$BIN/nfs-hostchange" usercache sweep 7days "$2"
    candidate delete.2 "${populate[@]}" "$BIN/nfs-hostchange" usercache sweep 7days "$2"
}

# The manual of Dovecot Pro's plugin has find start a doveadm for each user. That one
# is closed; but what it takes to start doveadm, this doveadm shows.
candidates_of_commands() {
    local populate=("$BIN/populate" "$2" "$1" 100 '=>') find=(/usr/bin/find "$2" -mindepth 2 -prune -type d -exec)
    candidate commands.1 "${populate[@]}" "$(command -v taskset)" 1 "$BIN/nfs-hostchange" usercache sweep 7days "$2"
    # shellcheck disable=SC2016 # the shell that find starts is to expand it
    candidate commands.rm "${populate[@]}" "${find[@]}" \
        /bin/sh -c 'rm -f "$1"/dovecot.list.index* "$1"/.lasthost*; rmdir "$1"' sh '{}' ';'
    candidate commands.clean "${populate[@]}" "${find[@]}" "$BIN/nfs-hostchange" usercache clean 7days '{}' ';'
    candidate commands.doveadm "${populate[@]}" "${find[@]}" \
        "$(command -v doveadm)" -c "$WORK/doveadm.conf" exec nfs-hostchange usercache clean 7days '{}' ';'
}
