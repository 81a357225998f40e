#!/usr/bin/env bash
# What tests/package.sh does in a clean Debian, 12 or 13: the life of the package on one
# backend, each case where the one before left off.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/../lib/common.sh"

WORK=$(mktemp -d)
NAME=dovecot-nfs-hostchange
EXAMPLES=/usr/share/doc/$NAME/examples
LISTINDEX=/dev/shm/dovecot-listindex
RPM=$(compgen -G "/packages/$NAME-[0-9]*.rpm")
DEB=$(compgen -G "/packages/${NAME}_*.deb")
case $(dovecot --version) in
    2.3.*) DOVECOT=2.3 EXAMPLE=$EXAMPLES/dovecot-nfs-hostchange.conf ;;
    *) DOVECOT=2.4 EXAMPLE=$EXAMPLES/dovecot-2.4.conf ;;
esac

client() { python3 "$REPO/tests/lib/mailclient.py" "$@"; }
imap() { client imap 143 "$@"; }
# no_lines SENTENCE: stdin must be empty.
no_lines() {
    local lines
    lines=$(cat)
    [ -z "$lines" ] || die "$1: $lines"
}

install_deb() { apt-get -q install -y --no-install-recommends "$1"; }

# Everything on this system that packages may change, with owner, mode, size.
everything() {
    find / -xdev \( -path /proc -o -path /dev -o -path /run -o -path /tmp -o -path /var/tmp \
        -o -path /var/log -o -path /var/cache -o -path /var/lib/apt -o -path /var/lib/dpkg \
        -o -path /var/lib/dovecot -o -path /var/lib/rpm \
        -o -path /project -o -path /packages \) -prune -o ! -type d -printf '%p %u:%g %m %s\n' \
        -o -type d -printf '%p/ %u:%g %m\n' | LC_ALL=C sort
}

# --- installing ---------------------------------------------------------------

it_installs_and_changes_nothing() {
    everything >"$WORK/before"
    doveconf -n >"$WORK/doveconf"
    dovecot
    wait_until 10 "Dovecot is up" doveadm service status imap-login
    install_deb "$DEB"
    doveconf -n | diff "$WORK/doveconf" - || die "Dovecot's configuration changed"
    doveadm service status imap-login >/dev/null || die "Dovecot went down"
    # Nothing that Dovecot reads is newer than what it has read.
    /usr/share/$NAME/before-removal "$NAME" >/dev/null || die "it could not be removed again"
    doveadm stop
    everything >"$WORK/installed"
}

# The two files of no package: for the administrator's own AppArmor rules, and
# how the timer was when it was installed. Purging takes them away again.
nothing_is_outside_the_package() {
    local path pattern foreign=()
    while read -r path _; do
        # It takes patterns. dpkg knows the paths from before / and /usr were merged.
        pattern=${path//\\/\\\\}
        dpkg -S "${pattern%/}" >/dev/null 2>&1 || dpkg -S "${pattern#/usr}" >/dev/null 2>&1 || foreign+=("$path")
    done < <(LC_ALL=C comm -13 "$WORK/before" "$WORK/installed")
    equal "files of no package" "${foreign[*]}" "/etc/apparmor.d/local/usr.lib.dovecot.nfs-hostchange-login \
/var/lib/systemd/deb-systemd-helper-enabled/nfs-hostchange-sweep.timer.dsh-also"
    no_lines "changed" < <(LC_ALL=C comm -23 "$WORK/before" "$WORK/installed")
}

files_belong_to_root_and_only_root_may_write() {
    no_lines "wrong owner or mode" < <(
        dpkg -L "$NAME" | while read -r path; do
            find "$path" -maxdepth 0 ! -type l \( ! -user root -o ! -group root -o -perm /7022 \)
        done
    )
}

wrapper_needs_no_library() {
    # It fails for a program that has none.
    [[ $(ldd /usr/lib/dovecot/nfs-hostchange-login 2>&1 || true) =~ 'statically linked'|'not a dynamic executable' ]]
}

doveadm_finds_the_command() {
    equal "version" "$(doveadm exec nfs-hostchange --version)" "$(nfs-hostchange --version)"
}

# With the command line of the plugin's "doveadm nfs usercache clean", and its exit status.
doveadm_cleans_one_user() {
    local status=0 directory=$LISTINDEX/f5/alice
    doveadm exec nfs-hostchange usercache clean 7days "$directory" 2>&1 | grep 'left: last used'
    [ -e "$directory/dovecot.list.index.log" ] || die "too young, and cleaned"
    doveadm exec nfs-hostchange usercache clean 0 "$directory"
    [ -z "$(ls -A "$directory" 2>/dev/null)" ] || die "still there"
    doveadm exec nfs-hostchange usercache clean 0 "$directory/none" || status=$?
    equal "exit status without a directory" "$status" 66
    equal "folders afterwards" "$(imap alice names | paste -sd' ')" "Folder INBOX"
}

cron_job_sweeps() {
    local job
    job=$(sed -n 's/^17 3 .* root  *//p' "$EXAMPLES/cron.d")
    sh -c "$job" | grep ' 0 cleaned,'
}

pages_have_no_warnings() {
    local page
    for page in 8/nfs-hostchange 8/nfs-hostchange-login 5/nfs-hostchange.toml; do
        equal "warnings" "$(man --warnings -E UTF-8 "${page%/*}" "${page#*/}" 2>&1 >"$WORK/page")" ""
        [ -s "$WORK/page" ] || die "no page $page"
        no_lines "placeholders" < <(grep -E '@[a-z]+@' "$WORK/page")
    done
}

shells_complete_the_command() {
    # shellcheck disable=SC2016 # for the inner shells
    bash -c 'source /usr/share/bash-completion/bash_completion
        source /usr/share/bash-completion/completions/nfs-hostchange
        COMP_WORDS=(nfs-hostchange usercache sw) COMP_CWORD=2
        [[ $(complete -p nfs-hostchange) =~ -F\ ([^ ]+) ]]
        "${BASH_REMATCH[1]}" nfs-hostchange sw usercache
        [ "${COMPREPLY[*]}" = sweep ]'
    # Neither leaves anything at home.
    export HOME=$WORK
    zsh -c 'autoload -U compinit && compinit -u && [[ ${_comps[nfs-hostchange]} == _nfs-hostchange ]]'
    fish -c 'complete -C "nfs-hostchange usercache sw"' | grep -q '^sweep'
}

# --- services and directories --------------------------------------------------

sweep_is_hardened_and_not_enabled() {
    systemd-analyze verify nfs-hostchange-sweep.timer nfs-hostchange-sweep.service
    # Tenths: below 2.0.
    systemd-analyze security --offline=true --threshold=20 --no-pager nfs-hostchange-sweep.service |
        tail -n 1
    ! compgen -G '/etc/systemd/system/*/nfs-hostchange*' || die "enabled"
}

sweep_does_nothing_without_age_and_root() {
    local status=0
    (
        # shellcheck disable=SC1091
        . /etc/default/nfs-hostchange
        nfs-hostchange usercache sweep "${SWEEP_AGE:-}" "${SWEEP_ROOT:-}"
    ) || status=$?
    equal "exit status" "$status" 64
}

tmpfiles_make_all_hash_directories() {
    systemd-tmpfiles --create "$EXAMPLES/tmpfiles-many-uids.conf"
    equal "base" "$(stat -c '%a %U' "$LISTINDEX")" "711 root"
    equal "hash directories" "$(cd "$LISTINDEX" && stat -c '%n %a %U' -- * | md5sum)" \
        "$(printf '%02x 1733 root\n' {0..255} | md5sum)"
    rm -r "$LISTINDEX"
}

apparmor_rules_are_understood() {
    local profile=/etc/apparmor.d/usr.lib.dovecot.nfs-hostchange-login file
    apparmor_parser --skip-kernel-load --skip-cache "$profile"
    for file in "$EXAMPLES"/apparmor/local-*; do
        {
            printf 'abi <abi/3.0>,\ninclude <tunables/global>\nprofile test {\n'
            cat "$file"
            printf '}\n'
        } | apparmor_parser --skip-kernel-load --skip-cache -N | grep -qx test
    done
}

# --- logins -------------------------------------------------------------------

# As examples/README says, for mail users of one uid.
configure_dovecot() {
    groupadd --system vmail
    useradd --system --gid vmail --home-dir /srv/mail --no-create-home vmail
    install -d -o vmail -g vmail -m 0700 /srv/mail
    # 1.
    cp "$EXAMPLE" /etc/dovecot/conf.d/95-nfs-hostchange.conf
    # 2.
    cp "$EXAMPLES/tmpfiles-one-uid.conf" /etc/tmpfiles.d/nfs-hostchange.conf
    systemd-tmpfiles --create nfs-hostchange.conf
    # And what every Dovecot has of its own: here, users without a list of them.
    sed -i 's/^!include auth-system/#&/' /etc/dovecot/conf.d/10-auth.conf
    case $DOVECOT in
        2.3) cat >/etc/dovecot/local.conf <<'END' ;;
passdb {
  driver = static
  args = password=pw
}
disable_plaintext_auth = no
ssl = no
log_path = /var/log/dovecot.log
protocols = imap pop3 lmtp
END
        2.4) cat >/etc/dovecot/local.conf <<'END' ;;
passdb static {
  password = pw
}
userdb static {
  fields {
    uid = vmail
    gid = vmail
    home = /srv/mail/%{user}
  }
}
auth_allow_cleartext = yes
ssl = no
log_path = /var/log/dovecot.log
protocols = imap pop3 lmtp
END
    esac
    doveconf -n >/dev/null
    dovecot
    wait_until 10 "Dovecot answers" imap nobody names
}

readme_leads_to_a_list_index_that_is_kept() {
    configure_dovecot
    imap alice create:Folder >/dev/null
    imap alice names >/dev/null
    equal "folders" "$(imap alice names | paste -sd' ')" "Folder INBOX"
    [ -e "$LISTINDEX/f5/alice/dovecot.list.index.log" ] || die "no list index"
    equal "who claimed" "$(head -n 1 /srv/mail/alice/mdbox/.lasthost)" backend1.example.org
    equal "in step" "$(nfs-hostchange status --json --user alice | grep -o '"in_step":[a-z]*')" '"in_step":true'
}

# But hints that there is no NFS here, that /dev/shm is everybody's, and that nobody has enabled the sweep.
check_finds_nothing_after_the_readme() {
    nfs-hostchange check --json >"$WORK/check" || die "$(<"$WORK/check")"
    equal "findings" "$(grep -o '"id":"[a-z_]*"' "$WORK/check" | paste -sd' ')" \
        '"id":"index_not_shared" "id":"common_file_system" "id":"no_sweep"'
}

# As another backend would: its claim is a new file.
another_backends_claim_is_noticed() {
    local list_index=$LISTINDEX/f5/alice/dovecot.list.index.log before
    before=$(stat -c %i "$list_index")
    imap alice names >/dev/null
    equal "list index after a login without a claim" "$(stat -c %i "$list_index")" "$before"
    setpriv --reuid vmail --regid vmail --clear-groups sh -c \
        'echo backend2 >/srv/mail/alice/mdbox/new && mv /srv/mail/alice/mdbox/new /srv/mail/alice/mdbox/.lasthost'
    imap alice names >/dev/null
    equal "who claimed" "$(head -n 1 /srv/mail/alice/mdbox/.lasthost)" backend1.example.org
}

pop3_passes_the_wrapper() {
    client pop3 110 bob >/dev/null
    client pop3 110 bob >/dev/null
    [ -n "$(find "$LISTINDEX" -path '*/bob/.lasthost')" ] || die "no record"
}

smoke_tests_pass() {
    "$REPO/tests/smoke.sh" --wrapper /usr/lib/dovecot/nfs-hostchange-login --command /usr/bin/nfs-hostchange \
        --only '(phantom folder: maildir[+]{2}|one uid: mdbox)$|^POP3 is right and claims the user: many' >"$WORK/smoke" 2>&1 || {
        cat "$WORK/smoke"
        die "the smoke tests failed"
    }
    tail -n 1 "$WORK/smoke"
}

# What systemd leaves of root there: the capabilities, and no way to get others.
sweep_works_with_the_rights_of_its_service() {
    local rights
    rights=$(sed -n 's/^CapabilityBoundingSet=//p' /lib/systemd/system/nfs-hostchange-sweep.service |
        tr '[:upper:]' '[:lower:]' | sed 's/cap_/+/g; s/ /,/g')
    setpriv --no-new-privs --bounding-set="-all,$rights" \
        nfs-hostchange usercache sweep --json 0 "$LISTINDEX" >"$WORK/sweep"
    grep -q '"failed":0' "$WORK/sweep" || die "$(<"$WORK/sweep")"
    [ -z "$(ls -A "$LISTINDEX/f5/alice" 2>/dev/null)" ] || die "alice's list index is still there: $(<"$WORK/sweep")"
    equal "folders afterwards" "$(imap alice names | paste -sd' ')" "Folder INBOX"
}

# --- upgrade and removal ------------------------------------------------------

# log_in USER: 25 logins, and more until the upgrade is over; says how many.
log_in() {
    local n=0
    until [ "$n" -ge 25 ] && [ -e "$WORK/upgraded" ]; do
        imap "$1" names >/dev/null || return
        n=$((n + 1))
        printf '.' >>"$WORK/logins"
    done
}

upgrade_loses_no_login() {
    local newer=$WORK/newer before user pid pids=()
    dpkg-deb -R "$DEB" "$newer"
    sed -i 's/^Version: .*/&.1/' "$newer/DEBIAN/control"
    dpkg-deb -Znone -b "$newer" "$WORK/newer.deb"
    before=$(stat -c %i /usr/lib/dovecot/nfs-hostchange-login)
    : >"$WORK/logins"
    for user in u1 u2 u3 u4 u5 u6 u7 u8; do
        log_in "$user" &
        pids+=("$!")
    done
    wait_until 60 "logins before the upgrade" test -s "$WORK/logins"
    install_deb "$WORK/newer.deb"
    touch "$WORK/upgraded"
    for pid in "${pids[@]}"; do
        wait "$pid" || die "a login failed"
    done
    [ "$(stat -c %s "$WORK/logins")" -ge 200 ] || die "only $(stat -c %s "$WORK/logins") logins"
    [ "$(stat -c %i /usr/lib/dovecot/nfs-hostchange-login)" != "$before" ] || die "nothing was upgraded"
}

# says_how_to_come_back FILE: after a time without the package no record means anything.
says_how_to_come_back() {
    [[ $(<"$1") == *'on every backend'*'nfs-hostchange usercache forget'* ]] ||
        die "not a word about records: $(<"$1")"
}

removal_is_refused_while_dovecot_needs_it() {
    local what
    for what in "remove $NAME" "purge $NAME" "remove dovecot-core"; do
        # shellcheck disable=SC2086 # two words
        if apt-get -q -y $what >"$WORK/apt" 2>&1; then
            die "removed"
        fi
        grep -q 'Take nfs-hostchange-login out' "$WORK/apt" || die "it does not say what to do: $(<"$WORK/apt")"
        says_how_to_come_back "$WORK/apt"
        imap alice names >/dev/null
    done
    dpkg --audit
    equal "state" "$(dpkg-query -W -f '${db:Status-Abbrev}' "$NAME")" "ii "
}

# A comment does not count, and neither does a configuration that cannot be read now.
removal_is_refused_while_the_configuration_is_broken() {
    printf 'nonsense\n' >>/etc/dovecot/local.conf
    ! apt-get -q -y remove "$NAME" >/dev/null 2>&1 || die "removed"
    sed -i '$d' /etc/dovecot/local.conf
}

# What runs still executes the wrapper.
removal_is_refused_until_dovecot_has_read_its_configuration() {
    # Numbers 3 and 4 of the example, and the list index's place.
    sed -i '/^# 3\./,$d; s/:LISTINDEX=.*//; /mailbox_list_index_prefix/d' /etc/dovecot/conf.d/95-nfs-hostchange.conf
    ! apt-get -q -y remove "$NAME" >"$WORK/apt" 2>&1 || die "removed"
    grep -F 'Restart Dovecot, then remove this package' "$WORK/apt" || die "it does not say what to do: $(<"$WORK/apt")"
    imap alice names >/dev/null
}

it_goes_when_nothing_needs_it() {
    doveadm reload
    wait_until 20 "Dovecot has read its configuration" \
        test /run/dovecot/config -nt /etc/dovecot/conf.d/95-nfs-hostchange.conf
    # These are no files that could name it.
    touch /etc/dovecot /etc/dovecot/private
    imap alice names >/dev/null
    apt-get -q -y remove "$NAME" >"$WORK/apt"
    says_how_to_come_back "$WORK/apt"
    imap alice names >/dev/null
    [ -e /etc/dovecot/nfs-hostchange.toml ] || die "the configuration is gone"
    apt-get -q -y purge "$NAME"
}

# What making and removing a user, and running systemd's tools, leaves anyway.
without_traces_of_others() {
    grep -vE '^/etc/((passwd|group|shadow|gshadow|subuid|subgid)-? |\.pwd\.lock|apparmor\.d/disable/)' "$1"
}

no_process_of() { ! pgrep --uid "$1" >/dev/null; }

purge_leaves_nothing() {
    doveadm stop
    rm -rf /srv/mail /etc/dovecot/conf.d/95-nfs-hostchange.conf /etc/dovecot/local.conf \
        /etc/tmpfiles.d/nfs-hostchange.conf
    sed -i 's/^#!include auth-system/!include auth-system/' /etc/dovecot/conf.d/10-auth.conf
    # What stays behind for sessions without list index ends when it is told to.
    pkill --uid vmail || true
    wait_until 10 "nobody works as vmail any more" no_process_of vmail
    userdel vmail
    everything >"$WORK/after"
    diff <(without_traces_of_others "$WORK/before") <(without_traces_of_others "$WORK/after") ||
        die "not as before"
    ! grep -rqs "$NAME" /var/lib/dpkg/info /var/lib/dpkg/status || die "dpkg still knows it"
}

# --- the RPM, as far as Debian's rpm can ---------------------------------------

# Fedora's Dovecot, a C library and a shell are not in rpm's database here.
rpm_installs_what_it_lists() {
    rpm --install --nodeps "$RPM"
    rpm --verify --nodeps "$NAME"
    rpm --query --queryformat '[%{FILENAMES} %{FILEUSERNAME}:%{FILEGROUPNAME} %{FILEMODES:perms}\n]' "$NAME" |
        grep -v /.build-id >"$WORK/list"
    no_lines "wrong owner or mode" < <(
        grep -vE ' root:root (-rw-r--r--|-rwxr-xr-x|drwxr-xr-x|lrwxrwxrwx)$' "$WORK/list"
    )
    equal "configuration files" "$(rpm --query --configfiles "$NAME" | paste -sd' ')" \
        "/etc/dovecot/nfs-hostchange.toml /etc/sysconfig/nfs-hostchange"
    grep -q '^/usr/libexec/dovecot/nfs-hostchange-login .*-rwxr-xr-x' "$WORK/list"
    equal "link" "$(/usr/libexec/dovecot/nfs-hostchange --version)" "$(nfs-hostchange --version)"
    systemd-analyze verify nfs-hostchange-sweep.timer
    # No path of Debian's is left in them.
    no_lines "paths of Debian's" < <(
        rpm --query --list "$NAME" | grep -v '\.md$' | xargs grep --directories=skip -InE '/usr/lib/dovecot|/etc/default'
    )
}

rpm_goes_only_when_nothing_needs_it() {
    printf 'service imap-postlogin {\n  executable = script-login nfs-hostchange-login\n}\n' >/etc/dovecot/local.conf
    ! rpm --erase "$NAME" 2>"$WORK/rpm" || die "erased"
    grep -q 'Take nfs-hostchange-login out' "$WORK/rpm" || die "it does not say what to do: $(<"$WORK/rpm")"
    says_how_to_come_back "$WORK/rpm"
    [ -x /usr/libexec/dovecot/nfs-hostchange-login ] || die "half erased"
    rm /etc/dovecot/local.conf
    rpm --erase "$NAME" >"$WORK/rpm"
    says_how_to_come_back "$WORK/rpm"
    no_lines "left behind" < <(
        find / -xdev -name '*nfs-hostchange*' ! -path '/packages*' ! -path '/project*' ! -path '/tmp/*' \
            ! -path '/var/cache/*' ! -path '/proc/*'
    )
}

# For rpm's database, the one Dovecot that it fits is not here.
rpm_of_the_plugin_goes_only_when_nothing_names_it() {
    local rpm
    rpm=$(compgen -G "/packages/$NAME-plugin-*.rpm")
    rpm --query --package --requires "$rpm" | grep -x 'dovecot = 1:2.3.19.1'
    ! rpm --install "$rpm" || die "installed without that Dovecot"
    rpm --install --nodeps "$rpm"
    rpm --query --list "$NAME-plugin" | grep -x '/usr/lib[0-9]*/dovecot/doveadm/lib90_doveadm_nfs_hostchange_plugin.so'
    case $DOVECOT in
        2.3) printf 'protocol lmtp {\n  mail_plugins = nfs_hostchange\n}\n' ;;
        2.4) printf 'protocol lmtp {\n  mail_plugins {\n    nfs_hostchange = yes\n  }\n}\n' ;;
    esac >/etc/dovecot/local.conf
    ! rpm --erase "$NAME-plugin" 2>"$WORK/rpm" || die "erased"
    grep 'Take nfs_hostchange out of mail_plugins' "$WORK/rpm"
    rm /etc/dovecot/local.conf
    rpm --erase "$NAME-plugin"
}

scenario - "Installing changes nothing for Dovecot" it_installs_and_changes_nothing
scenario - "No file of ours is outside the package" nothing_is_outside_the_package
scenario - "Every file belongs to root, who alone may write" files_belong_to_root_and_only_root_may_write
scenario - "The wrapper needs no library" wrapper_needs_no_library
scenario - "doveadm exec finds the command" doveadm_finds_the_command
scenario - "man has no warnings about the pages" pages_have_no_warnings
scenario - "bash, zsh and fish complete the command" shells_complete_the_command
scenario - "The sweep's service is hardened and not enabled" sweep_is_hardened_and_not_enabled
scenario - "The sweep does nothing without an age and a root" sweep_does_nothing_without_age_and_root
scenario - "tmpfiles.d makes all 256 hash directories" tmpfiles_make_all_hash_directories
scenario - "The AppArmor rules are understood" apparmor_rules_are_understood
scenario - "The README leads to a list index that is kept" readme_leads_to_a_list_index_that_is_kept
scenario - "check finds nothing after the README" check_finds_nothing_after_the_readme
scenario - "Another backend's claim is noticed" another_backends_claim_is_noticed
scenario - "POP3 passes the wrapper too" pop3_passes_the_wrapper
scenario - "doveadm exec cleans as the plugin's command does" doveadm_cleans_one_user
scenario - "The cron job sweeps" cron_job_sweeps
scenario - "The sweep works with the rights of its service" sweep_works_with_the_rights_of_its_service
scenario - "The smoke tests pass with the installed programs" smoke_tests_pass
scenario - "An upgrade during 200 logins loses none" upgrade_loses_no_login
scenario - "Removal is refused while Dovecot's configuration names the wrapper" removal_is_refused_while_dovecot_needs_it
scenario - "Removal is refused while Dovecot's configuration is broken" removal_is_refused_while_the_configuration_is_broken
scenario - "Removal is refused until Dovecot has read its configuration" \
    removal_is_refused_until_dovecot_has_read_its_configuration
scenario - "It goes when nothing needs it, and logins go on" it_goes_when_nothing_needs_it
scenario - "Purging leaves nothing" purge_leaves_nothing
scenario - "The RPM installs what it lists" rpm_installs_what_it_lists
scenario - "The RPM of the plugin goes only when nothing names it" rpm_of_the_plugin_goes_only_when_nothing_names_it
scenario - "The RPM goes only when nothing needs it" rpm_goes_only_when_nothing_needs_it
run_scenarios
print_result
