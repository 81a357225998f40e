# shellcheck shell=bash
# What a login through real Dovecot costs, from the client's side. Needs run.sh.

# With the machine's Dovecot, and with one of the other generation.
measure_dovecot() {
    local other=trixie
    ! is_2_4 machine || other=bookworm
    logins_through machine none plugin exec wrapper script
    # The plugin is built for one of them, and the script knows one.
    logins_through "$other" none exec wrapper
}

# logins_through DOVECOT SITE...
logins_through() {
    local dovecot=$1 name targets=() prefix
    shift
    prefix=$RESULTS/dovecot.$(version_of "$dovecot")
    local -A settings hooks=(
        [none]=none
        [plugin]=plugin
        [exec]="command:$BIN/exec.musl"
        [wrapper]=wrapper
        [script]="command:$BIN/job.sh"
    )
    if [ "$dovecot" = machine ]; then
        build_plugin_for_machine "$WORK/plugin-modules"
        settings[plugin]="mail_plugins = nfs_hostchange
mail_plugin_dir = $WORK/plugin-modules"
    fi
    for name in "$@"; do
        note "site $name, Dovecot in $dovecot"
        SITE_SETTINGS=${settings[$name]-} SITE_DOVECOTS=$dovecot start_site "$name-$dovecot" vmail "${hooks[$name]}"
        add_user alice "mdbox:~/mdbox:LISTINDEX=@LOCAL@/%2.256Nu/%u/dovecot.list.index"
        settle_user
        targets+=("$name=$(port_of a IMAP)")
    done
    note "one login at a time"
    "$PYTHON" "$BENCH/login.py" "$(rounds 1000 25)" 1 "${targets[@]}" >"$prefix.single"
    note "eight at a time"
    "$PYTHON" "$BENCH/login.py" "$(rounds 25 2)" 8 "${targets[@]}" >"$prefix.parallel"
}

# The shell script cannot claim: the wrapper does it once for every site, but where the plugin does.
# Before that the user needs a mail store.
settle_user() {
    local list
    if [ "$SITE_HOOK" = plugin ]; then
        imap a alice create:folder look >/dev/null
        [ -s "$(find "$SITE_SHM/a" -name .lasthost)" ] || die "the plugin recorded nothing"
        return
    fi
    # shellcheck disable=SC2153 # start_site sets it
    on a doveadm -c "$SITE/a/dovecot.conf" mailbox create -u alice folder
    list=$(find "$SITE_SHM/a" -type d -name alice)
    environment_of alice "$SITE/store/alice" "$list" >"$WORK/environment"
    with_environment "$WORK/environment" setpriv --reuid=mail --regid=mail --clear-groups \
        "$BIN/nfs-hostchange-login" "--config=$SITE/a/hostchange.toml" "$BIN/end.bare" 2>/dev/null
    [ -s "$list/.lasthost" ] || die "the first login recorded nothing"
}
