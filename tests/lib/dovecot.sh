# shellcheck shell=bash
# Real Dovecots on loopback. A *site* is two backends, a and b, over one mail
# store, each with its own list indexes, and with one way of calling the wrapper.
# Needs make_work_dirs; WRAPPER is the program under test.
#
#   $WORK/NAME/store/USER       homes, shared
#   $WORK/NAME/{a,b}/           dovecot.conf, users/, log, hostchange.toml, ports
#   $SHM/NAME/{a,b}/            list indexes

# start_site NAME MODE HOOK: starts both backends and makes NAME the current site.
#   MODE  many   every user has an own uid, the hook starts as root; root has no
#                more rights than others in the users' directories, as on NFS
#                with root_squash
#         drop   the same, but script-login -d becomes the user before the hook
#         vmail  all users share one uid, which the hook runs as
#   HOOK  none     no post-login script
#         wrapper  the wrapper
#         chain    another script that sets an empty variable, then the wrapper
#         syslog   the wrapper, logging to a /dev/log of this site, whose messages are
#                  in $SITE/HOST/syslog.messages
#         plugin   none either, but the mail plugin in $SITE/modules, which SITE_SETTINGS loads;
#                  each backend has a host name of its own
#         command:COMMAND  that command line, which is to end in script-login
#         PATH     that script, with the backend's directory for list indexes as argument
# SITE_DOVECOTS names the Dovecots of a and b, or of both: "machine", or a root that
# tests/setup.sh made; else DOVECOT, else the machine's.
# BACKENDS are those that there are, if not both; SITE_PROTOCOLS what they have beside IMAP, POP3
# and LMTP.
# SITE_SETTINGS, SITE_USERDB (in userdb { }) and SITE_HOOK_SETTINGS (in the post-login
# services) from the environment go into dovecot.conf; for Dovecot 2.4 SITE_SETTINGS_2_4 and
# SITE_USERDB_2_4.
start_site() {
    local name=$1 host dovecots
    SITE=$WORK/$name
    mkdir -p "$SITE/store" "$SITE/bin" "$SHM/$name"
    read -r -a dovecots <<<"${SITE_DOVECOTS:-${DOVECOT:-machine}}"
    printf 'SITE_MODE=%s SITE_HOOK=%q SITE_HOSTS=%q DOVECOT_OF_a=%s DOVECOT_OF_b=%s\n' "$2" "$3" \
        "${BACKENDS:-a b}" "${dovecots[0]}" "${dovecots[-1]}" >"$SITE/settings"
    use_site "$name"
    chmod 0711 "$SITE" "$SITE/bin" "$SITE_SHM"
    chmod 1777 "$SITE/store"
    for host in $SITE_HOSTS; do
        mkdir -p "$SITE/$host/users" "$SITE_SHM/$host"
        chmod 0711 "$SITE/$host"
        case $SITE_MODE in
            # As tmpfiles.d would make it at boot.
            vmail) chown mail:mail "$SITE_SHM/$host" && chmod 0700 "$SITE_SHM/$host" ;;
            *) chmod 1733 "$SITE_SHM/$host" ;;
        esac
        configure_wrapper "$host"
        start_backend "$host"
    done
    for host in $SITE_HOSTS; do
        wait_until 20 "backend $host of site $name is ready" backend_is_ready "$host"
    done
}

# build_plugin_for_machine MODULES: the mail plugin for this machine's Dovecot, whose headers are in
# the root that has the same. Needs roots.sh.
build_plugin_for_machine() {
    local name
    for name in bookworm bookworm-backports trixie; do
        if has_root "$name" && [ "$(version_of "$name")" = "$(version_of machine)" ]; then
            DOVECOT_INCLUDE=$ROOTS/$name/usr/include/dovecot MODULES=$1 "$REPO/packaging/build-plugin.sh"
            return
        fi
    done
    die "no root has this machine's Dovecot; run tests/setup.sh roots"
}

use_site() {
    SITE=$WORK/$1
    SITE_SHM=$SHM/$1
    # shellcheck disable=SC1091
    source "$SITE/settings"
}

# configure_wrapper HOST [LINE...]: the wrapper's configuration there from now on.
# Each host has its own name; two of one machine would share the system's.
configure_wrapper() {
    local host=$1
    shift
    {
        printf 'hostname = "%s.example.org"\n' "$host"
        printf '%s\n' "$@"
        [ "$SITE_HOOK" = syslog ] || printf '[log]\ntarget = "stderr"\n'
    } >"$SITE/$host/hostchange.toml.new"
    chmod 0644 "$SITE/$host/hostchange.toml.new"
    mv "$SITE/$host/hostchange.toml.new" "$SITE/$host/hostchange.toml"
}

# has_dovecot NAME
has_dovecot() {
    case $1 in
        machine) [ -x /usr/sbin/dovecot ] ;;
        *) [ -d "${XDG_CACHE_HOME:-$HOME/.cache}/nfs-hostchange/roots/$1" ] ;;
    esac
}

# version_of NAME: the version of its Dovecot.
version_of() {
    case $1 in
        machine) dovecot --version ;;
        *) "$REPO/tests/lib/in-root.sh" "$1" dovecot --version ;;
    esac | cut -d ' ' -f 1
}

# is_2_4 NAME
declare -A VERSIONS
is_2_4() {
    VERSIONS[$1]=${VERSIONS[$1]:-$(version_of "$1")}
    [[ ${VERSIONS[$1]} == 2.4.* ]]
}

dovecot_of() {
    local name=DOVECOT_OF_$1
    printf '%s\n' "${!name}"
}

# on HOST COMMAND [ARG...]: runs COMMAND in the system of that backend's Dovecot.
on() {
    local name
    name=$(dovecot_of "$1")
    if [ "$name" = machine ]; then
        "${@:2}"
    else
        PATH=/usr/sbin:/usr/bin:/sbin:/bin nsenter --target "$(<"$SITE/$1/pid")" --mount --root --wd -- "${@:2}"
    fi
}

start_backend() {
    local host=$1 dir=$SITE/$1 hook_command hook_user='' post_login=true become=() dovecot=()
    local wrapper="$SITE/bin/nfs-hostchange-login --config=$dir/hostchange.toml"
    # A copy: the build tree may be in a home that mail users cannot enter.
    [ -z "${WRAPPER:-}" ] || install -m 0755 "$WRAPPER" "$SITE/bin/nfs-hostchange-login"
    case $SITE_HOOK in
        none)
            hook_command=/bin/false
            post_login=false
            ;;
        plugin)
            hook_command=/bin/false
            post_login=false
            # shellcheck disable=SC2016 # for the inner shell
            become=(unshare --uts sh -c 'hostname "$0" && exec "$@"' "$host.example.org")
            ;;
        wrapper) hook_command=$wrapper ;;
        syslog)
            hook_command=$wrapper
            start_syslogd "$dir"
            become=(unshare --mount --propagation private "$REPO/tests/lib/private-dev.sh" "$dir")
            ;;
        chain)
            printf '#!/bin/sh\nexport CHAINED=\nexec "$@"\n' >"$SITE/bin/chained.sh"
            chmod 0755 "$SITE/bin/chained.sh"
            hook_command="$SITE/bin/chained.sh $wrapper"
            ;;
        command:*) hook_command=${SITE_HOOK#command:} ;;
        *) hook_command="$SITE_HOOK $SITE_SHM/$host" ;;
    esac
    case $SITE_MODE in
        many) dovecot=(setpriv '--bounding-set=-dac_override,-dac_read_search') ;;
        drop) hook_command="-d $hook_command" ;;
        vmail) hook_user='user = mail' ;;
    esac
    hook_user+=$'\n'${SITE_HOOK_SETTINGS:-}
    [ "$(dovecot_of "$host")" = machine ] || become+=("$REPO/tests/lib/in-root.sh" "$(dovecot_of "$host")")

    read -r IMAP POP3 LMTP SUBMISSION SIEVE < <("$PYTHON" "$REPO/tests/lib/mailclient.py" ports 5)
    printf 'IMAP=%s POP3=%s LMTP=%s SUBMISSION=%s SIEVE=%s\n' \
        "$IMAP" "$POP3" "$LMTP" "$SUBMISSION" "$SIEVE" >"$dir/ports"
    {
        # Where a block has a setting too, the global one comes before it.
        if is_2_4 "$(dovecot_of "$host")"; then
            printf 'dovecot_config_version = 2.4.1\n'
            settings_of_both
            settings_of_2_4
        else
            settings_of_both
            settings_of_2_3
        fi
        services
    } >"$dir/dovecot.conf"
    : >"$dir/log"
    nice "${become[@]}" "${dovecot[@]}" /usr/sbin/dovecot -F -c "$dir/dovecot.conf" </dev/null >"$dir/out" 2>&1 &
    printf '%s\n' "$!" >"$dir/pid"
    on_exit end_process "$dir/pid"
}

# The functions that follow write parts of dovecot.conf, for start_backend.

settings_of_both() {
    cat <<END
base_dir = $dir/run
state_dir = $dir/run
instance_name = nfs-hostchange-test-$host-${dir//\//-}
log_path = $dir/log
listen = 127.0.0.1
ssl = no
auth_mechanisms = plain
first_valid_uid = 1
mail_max_userip_connections = 300
mmap_disable = yes
mail_nfs_storage = yes
mail_nfs_index = yes
mail_fsync = always
mailbox_list_index = yes
# Believes the list index instead of looking at every folder: what local list
# indexes are for, and what makes stale ones visible.
mailbox_list_index_very_dirty_syncs = yes
postmaster_address = postmaster@example.org
END
}

settings_of_2_3() {
    local userdb=${SITE_USERDB:-}
    cat <<END
protocols = imap pop3 lmtp ${SITE_PROTOCOLS:-}
disable_plaintext_auth = no
mail_location = mdbox:~/mdbox
mail_home = $SITE/store/%u
passdb {
  driver = passwd-file
  args = $dir/users/%u
}
userdb {
  driver = passwd-file
  args = $dir/users/%u
  ${userdb//@LOCAL@/$SITE_SHM/$host}
}
${SITE_SETTINGS:-}
END
}

settings_of_2_4() {
    local userdb=${SITE_USERDB_2_4:-} protocol storage=2.4.1
    # As docs/installation.md says.
    # shellcheck disable=SC2154 # from the site's settings
    is_2_4 "$DOVECOT_OF_a" && is_2_4 "$DOVECOT_OF_b" || storage=2.3.19
    cat <<END
dovecot_storage_version = $storage
protocols {
$(for protocol in imap pop3 lmtp ${SITE_PROTOCOLS:-}; do printf '  %s = yes\n' "$protocol"; done)
}
auth_allow_cleartext = yes
mail_driver = mdbox
mail_path = ~/mdbox
mail_home = $SITE/store/%{user}
passdb passwd-file {
  passwd_file_path = $dir/users/%{user}
}
userdb passwd-file {
  passwd_file_path = $dir/users/%{user}
}
${userdb//@LOCAL@/$SITE_SHM/$host}
${SITE_SETTINGS_2_4-namespace inbox {
  inbox = yes
\}}
END
}

# A service for each protocol that has a post-login script.
services() {
    local protocol
    cat <<END
service imap-login {
  process_min_avail = 0
  inet_listener imap {
    port = $IMAP
  }
  inet_listener imaps {
    port = 0
  }
}
service pop3-login {
  inet_listener pop3 {
    port = $POP3
  }
  inet_listener pop3s {
    port = 0
  }
}
service lmtp {
  inet_listener lmtp {
    port = $LMTP
  }
}
service submission-login {
  inet_listener submission {
    port = $SUBMISSION
  }
}
service managesieve-login {
  inet_listener sieve {
    port = $SIEVE
  }
}
END
    $post_login || return 0
    for protocol in imap pop3 ${SITE_PROTOCOLS:-}; do
        # The service's own name.
        [ "$protocol" != sieve ] || protocol=managesieve
        cat <<END
service $protocol {
  executable = $protocol $protocol-postlogin
  process_limit = 1024
}
service $protocol-postlogin {
  executable = script-login $hook_command
  process_limit = 1024
  $hook_user
  unix_listener $protocol-postlogin {
  }
}
END
    done
}

start_syslogd() {
    "$PYTHON" "$REPO/tests/lib/syslogd.py" "$1/syslog" "$1/syslog.messages" &
    printf '%s\n' "$!" >"$1/syslogd.pid"
    on_exit end_process "$1/syslogd.pid"
    wait_until 10 "the syslog socket" test -S "$1/syslog"
}

# The port answers, and it is ours that answers: a foreign one that took the
# port in between would have made ours end.
backend_is_ready() {
    local pid ports=$SITE/$1/ports
    pid=$(<"$SITE/$1/pid")
    if ! kill -0 "$pid" 2>/dev/null; then
        cat "$SITE/$1/out" "$SITE/$1/log" >&2
        die "Dovecot ended at once"
    fi
    # shellcheck disable=SC1090
    source "$ports"
    (exec 9<>"/dev/tcp/127.0.0.1/$IMAP" && read -r -t 5 _ <&9) 2>/dev/null
}

# end_process PIDFILE: a child of this shell, ended and waited for.
end_process() {
    local pid
    pid=$(<"$1") || return 0
    rm -f "$1"
    kill "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    return 0
}

# add_user USER LOCATION [UID]: known to both backends. @LOCAL@ in LOCATION is the
# backend's own directory for list indexes. LOCATION "-": the userdb is silent.
# Home is $SITE/store/USER, made by whoever comes first.
add_user() {
    local host
    for host in $SITE_HOSTS; do
        add_user_on "$host" "$@"
    done
}

add_user_on() {
    local host=$1 user=$2 location=$3 uid fields=
    local file=$SITE/$host/users/$user
    uid=${4:-$(uid_of "$user")}
    location=${location//@LOCAL@/$SITE_SHM/$host}
    if [ "$location" = - ]; then
        fields=
    elif is_2_4 "$(dovecot_of "$host")"; then
        fields=$(fields_of_2_4 "$location")
    else
        fields=${USERDB_FIELD:-mail_location}=$location
    fi
    local more=${USERDB_MORE:-}
    fields+=" ${more//@LOCAL@/$SITE_SHM/$host}"
    # A database that serves backends of both versions.
    if ${USERDB_HAS_BOTH:-false}; then
        # Each has variables of its own; there is no need for any.
        location=${location//%u/$user}
        fields=$(printf 'mail_location=%s\n' "$location" && fields_of_2_4 "$location")
    fi
    # shellcheck disable=SC2086 # there are no blanks in a field
    [ -z "${fields// }" ] || fields=$(printf 'userdb_%s ' $fields)
    printf '%s:{PLAIN}pw:%s:%s::%s::%s\n' "$user" "$uid" "$uid" "$SITE/store/$user" "$fields" >"$file.new"
    chmod 0644 "$file.new"
    mv "$file.new" "$file"
    # Dovecot looks at a password file at most once a second.
    [ "$location" = - ] || wait_until 10 "the userdb knows $user's new location" userdb_says "$host" "$user" "$location"
}

# fields_of_2_4 LOCATION: what Dovecot 2.4 calls it, one field a line. In a password file fields
# are separated by blanks, so there are none in a %{variable}.
fields_of_2_4() {
    local parts part list_index=dovecot.list.index
    IFS=: read -r -a parts <<<"$1"
    printf 'mail_driver=%s\n' "${parts[0]}"
    printf 'mail_path=%s\n' "${parts[1]}"
    for part in "${parts[@]:2}"; do
        case $part in
            INDEX=*) printf 'mail_index_path=%s\n' "${part#*=}" ;;
            LAYOUT=*) printf 'mailbox_list_layout=%s\n' "${part#*=}" ;;
            LISTINDEX=*) list_index=${part#*=} ;;
            *) die "$part has no setting in Dovecot 2.4" ;;
        esac
    done
    list_index=${list_index//%2.256Nu/'%{user|md5|substr(0,8)%256|hex(2)}'}
    printf '%s=%s\n' "${USERDB_FIELD_2_4:-mailbox_list_index_prefix}" "${list_index//%u/'%{user}'}"
}

userdb_says() {
    local host=$1 user=$2 expected=$3 value field=${USERDB_FIELD:-mail_location}
    if is_2_4 "$(dovecot_of "$host")"; then
        field=${USERDB_FIELD_2_4:-mailbox_list_index_prefix}
        expected=$(fields_of_2_4 "$expected" | sed -n "s,^$field=,,p")
    fi
    value=$(on "$host" doveadm -c "$SITE/$host/dovecot.conf" user -f "$field" "$user") || return
    [ "$value" = "$expected" ] || [[ $expected == *%* && $value == "${expected%%\%*}"* ]]
}

# A uid per user that no account of the machine has, or the one of all.
uid_of() {
    if [ "$SITE_MODE" = vmail ]; then
        id -u mail
    else
        printf '%d\n' "$((100000 + $(cksum <<<"$1" | cut -d ' ' -f 1) % 400000))"
    fi
}

# The user's programs: imap HOST USER COMMAND..., pop3 HOST USER [dele], lmtp HOST
# RCPT..., lda HOST USER (see mailclient.py for COMMAND).
client() { "$PYTHON" "$REPO/tests/lib/mailclient.py" "$@"; }

# start_asking: from now on ask goes to one process, which saves a start of python for
# every session. Without it, ask is client.
ASKED=
start_asking() {
    mkfifo "$WORK/asked" "$WORK/answered"
    "$PYTHON" "$REPO/tests/lib/mailclient.py" serve <"$WORK/asked" >"$WORK/answered" &
    printf '%s\n' "$!" >"$WORK/asked.pid"
    on_exit end_process "$WORK/asked.pid"
    exec {ASKED}>"$WORK/asked" {ANSWERED}<"$WORK/answered"
}
ask() {
    local line
    if [ -z "$ASKED" ]; then
        client "$@"
        return
    fi
    (
        IFS=$'\t'
        printf '%s\n' "$*" >&"$ASKED"
    )
    while IFS= read -r -t 120 -u "$ANSWERED" line; do
        case $line in
            o*) printf '%s\n' "${line#o}" ;;
            e*) printf '%s\n' "${line#e}" >&2 ;;
            x*) return "${line#x}" ;;
        esac
    done
    die "no answer to: $*"
}
port_of() {
    # shellcheck disable=SC1090
    source "$SITE/$1/ports"
    printf '%s\n' "${!2}"
}
imap() { ask imap "$(port_of "$1" IMAP)" "${@:2}"; }
pop3() { ask pop3 "$(port_of "$1" POP3)" "${@:2}"; }
submission() { ask submission "$(port_of "$1" SUBMISSION)" "${@:2}"; }
sieve() { ask sieve "$(port_of "$1" SIEVE)" "${@:2}"; }
lmtp() { ask lmtp "$(port_of "$1" LMTP)" "${@:2}"; }
lda() {
    printf 'From: <a@example.org>\nSubject: hello\n\nHello.\n' |
        on "$1" /usr/lib/dovecot/dovecot-lda -c "$SITE/$1/dovecot.conf" -d "$2" -f a@example.org
}

# truth USER: what really is in the store, as "FOLDER MESSAGES" lines, by a Dovecot
# that uses no list index. Not for LAYOUT=index, whose list index is the truth.
truth() {
    on a doveadm -c "$SITE/a/dovecot.conf" -o mailbox_list_index=no -f tab mailbox status -u "$1" messages '*' |
        sed 1d | tr '\t' ' ' | LC_ALL=C sort
}

# shellcheck source=tests/lib/moves.sh
source "$REPO/tests/lib/moves.sh"
