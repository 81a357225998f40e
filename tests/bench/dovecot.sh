# shellcheck shell=bash
# What a login through real Dovecot costs, from the client's side. Needs run.sh.

measure_dovecot() {
    local name names=(none plugin exec wrapper script) targets=()
    local -A settings hooks=(
        [none]=none
        [plugin]=plugin
        [exec]="command:$BIN/exec.musl"
        [wrapper]=wrapper
        [script]="command:$BIN/job.sh"
    )
    build_plugin_for_machine "$WORK/plugin-modules"
    settings[plugin]="mail_plugins = nfs_hostchange
mail_plugin_dir = $WORK/plugin-modules"
    for name in "${names[@]}"; do
        note "site $name"
        SITE_SETTINGS=${settings[$name]-} start_site "$name" vmail "${hooks[$name]}"
        add_user alice "mdbox:~/mdbox:LISTINDEX=@LOCAL@/%2.256Nu/%u/dovecot.list.index"
        settle_user
        targets+=("$name=$(port_of a IMAP)")
    done
    note "one login at a time"
    "$PYTHON" "$BENCH/login.py" "$(rounds 1000 25)" 1 "${targets[@]}" >"$RESULTS/dovecot.single"
    note "eight at a time"
    "$PYTHON" "$BENCH/login.py" "$(rounds 25 2)" 8 "${targets[@]}" >"$RESULTS/dovecot.parallel"
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
    doveadm -c "$SITE/a/dovecot.conf" mailbox create -u alice folder
    list=$(find "$SITE_SHM/a" -type d -name alice)
    environment_of alice "$SITE/store/alice" "$list" >"$WORK/environment"
    with_environment "$WORK/environment" setpriv --reuid=mail --regid=mail --clear-groups \
        "$BIN/nfs-hostchange-login" "--config=$SITE/a/hostchange.toml" "$BIN/end.bare" 2>/dev/null
    [ -s "$list/.lasthost" ] || die "the first login recorded nothing"
}
