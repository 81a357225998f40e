# shellcheck shell=bash
# What a start of the wrapper costs a login that finds nothing to do. Needs run.sh.

measure_start() {
    local home=$SHM/home list=$SHM/local/42/alice environment=$WORK/environment
    local candidates=$WORK/candidates end=$BIN/end.bare wrapper=$BIN/nfs-hostchange-login name words
    mkdir -p "$home/mdbox" "$list"
    chown -R mail:mail "$home" "$list"
    environment_of alice "$home" "$list" >"$environment"
    # The name that the start without a configuration file finds: a record is one host's.
    cat >"$WORK/nfs-hostchange.toml" <<END
# What an administrator may have written.
migration = false
hostname = "$(uname -n)"
lock_timeout = "5 secs"

[log]
target = "syslog"
facility = "mail"
level = "info"
END
    # The first login claims; the measured ones find nothing to do.
    with_environment "$environment" "$wrapper" "--config=$WORK/nfs-hostchange.toml" "$end"
    [ -s "$list/.lasthost" ] || die "the first login recorded nothing"
    {
        candidate end "$end"
        candidate exec.bare "$BIN/exec.bare" "$end"
        candidate exec.musl "$BIN/exec.musl" "$end"
        candidate exec.dynamic "$BIN/exec.dynamic" "$end"
        candidate job.musl "$BIN/job.musl" "$end"
        candidate job.static "$BIN/job.static" "$end"
        candidate wrapper "$wrapper" "--config=$WORK/nfs-hostchange.toml" "$end"
        candidate wrapper.settings MAIL_DRIVER=mdbox 'MAIL_PATH=~/mdbox' \
            "MAILBOX_LIST_INDEX_PREFIX=$list/dovecot.list.index" \
            'USERDB_KEYS=home uid gid auth_token auth_mech mail_driver mail_path mailbox_list_index_prefix ' \
            "$wrapper" "--config=$WORK/nfs-hostchange.toml" "$end"
        candidate wrapper.glibc "$wrapper.glibc" "--config=$WORK/nfs-hostchange.toml" "$end"
        candidate wrapper.defaults "$wrapper" "--config=$WORK/none.toml" "$end"
        # Nothing is local: it decides that, and executes.
        candidate wrapper.idle "MAIL_LOCATION=mdbox:~/mdbox" "$wrapper" "--config=$WORK/none.toml" "$end"
        candidate exec.sh "$BIN/exec.sh" "$end"
    } >"$candidates.root"
    cp "$candidates.root" "$candidates.user"
    # A shell cannot take on a user's ids for a while.
    candidate job.sh "$BIN/job.sh" "$end" >>"$candidates.user"

    note "as the mail user"
    with_environment "$environment" setpriv --reuid=mail --regid=mail --clear-groups \
        "$BIN/spawn" "$(rounds 3000 150)" "$candidates.user" >"$RESULTS/start.user" 2>"$WORK/said"
    note "as root"
    with_environment "$environment" "$BIN/spawn" "$(rounds 3000 150)" "$candidates.root" >"$RESULTS/start.root" 2>>"$WORK/said"
    # A login with nothing to do is silent; another one would take longer.
    [ ! -s "$WORK/said" ] || die "a measured login was no steady one: $(head -n 3 "$WORK/said")"

    note "system calls, instructions"
    local settings
    while IFS=$'\t' read -r name words; do
        IFS=$'\t' read -r -a words <<<"$words"
        case $name in
            end | wrapper.idle) continue ;;
        esac
        settings=()
        while [[ ${words[0]} == [A-Z]*=* ]]; do
            settings+=("${words[0]}")
            words=("${words[@]:1}")
        done
        printf '%s user ' "$name"
        with_environment "$environment" setpriv --reuid=mail --regid=mail --clear-groups env "${settings[@]}" "$BIN/inspect" "${words[@]}"
        [ "$name" != job.sh ] || continue
        printf '%s root ' "$name"
        with_environment "$environment" env "${settings[@]}" "$BIN/inspect" "${words[@]}"
    done <"$candidates.user" >"$RESULTS/start.inspect"
}
