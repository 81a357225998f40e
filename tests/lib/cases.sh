# shellcheck shell=bash
# Named cases, run one after the other, each in a subshell of its own.
#
#   scenario SITE SENTENCE FUNCTION [ARG...]   declares one; "start SITE" starts SITE
#                                              when it is first needed
#   run_scenarios                              runs those that match ONLY
#   skip REASON                                from inside: cannot be shown here

LIST=false
ONLY=
SCENARIOS=()
PASSED=0
FAILED=0
SKIPPED=0
CASE=0

scenario() { SCENARIOS+=("$(printf '%q ' "$@")"); }

skip() {
    printf '%s\n' "$*" >"$WORK/skipped"
    exit 0
}

# count_result LINE: adds what a test script says in its last line; false if that is another line.
count_result() {
    [[ $1 =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed(,\ ([0-9]+)\ skipped)?$ ]] || return
    PASSED=$((PASSED + BASH_REMATCH[1]))
    FAILED=$((FAILED + BASH_REMATCH[2]))
    SKIPPED=$((SKIPPED + ${BASH_REMATCH[4]:-0}))
}

# try_beside NAME COMMAND...: a test script in the background. result_of NAME: waits for it, shows what it said, and
# counts what its last line says.
try_beside() {
    local name=$1
    shift
    "$@" >"$WORK/$name.result" 2>&1 &
    BESIDE[$name]=$!
}
declare -A BESIDE
result_of() {
    wait "${BESIDE[$1]}" || true
    cat "$WORK/$1.result"
    $LIST || count_result "$(tail -n 1 "$WORK/$1.result")" || FAILED=$((FAILED + 1))
}

# list_scenarios: ends here with --list.
list_scenarios() {
    ! $LIST || {
        run_scenarios
        exit
    }
}

run_scenarios() {
    local words
    for words in "${SCENARIOS[@]}"; do
        eval "run_scenario $words"
    done
}

# A case that fails is run once more, and says so: on a busy machine a Dovecot may be too slow for it.
run_scenario() {
    local site=$1 sentence=$2 status started took verdict
    shift 2
    [[ $sentence =~ $ONLY ]] || return 0
    if $LIST; then
        say "$sentence"
        return
    fi
    if [ "$site" != - ]; then
        [ -d "$WORK/$site" ] || start "$site"
        use_site "$site"
    fi
    for verdict in again FAIL; do
        CASE=$((CASE + 1))
        started=${EPOCHREALTIME/./}
        rm -f "$WORK/skipped"
        [ "$site" = - ] || mark_logs
        # Not behind `if` or `||`: there the shell would go on after a failed command.
        set +e
        (
            set -euo pipefail
            # shellcheck disable=SC2034 # what on_exit collects is this case's own
            ON_EXIT=()
            "$@"
            [ "$site" = - ] || check_logs
        ) >"$WORK/output" 2>&1
        status=$?
        set -e
        took=$(((${EPOCHREALTIME/./} - started) / 1000))
        [ "$status" != 0 ] || break
        printf '%s %s (%d ms)\n' "$verdict" "$sentence" "$took"
        sed 's/^/      | /' "$WORK/output"
        [ "$site" = - ] || new_log_lines | sed -n '/ Info: /d; s/^/      log| /p' | tail -n 20
    done
    if [ "$status" != 0 ]; then
        FAILED=$((FAILED + 1))
    elif [ -e "$WORK/skipped" ]; then
        SKIPPED=$((SKIPPED + 1))
        printf 'skip  %s: %s\n' "$sentence" "$(<"$WORK/skipped")"
    else
        PASSED=$((PASSED + 1))
        printf 'ok    %s (%d ms)\n' "$sentence" "$took"
    fi
}

# The end of every test script: its last line, and its exit status.
print_result() {
    $LIST || say "$PASSED passed, $FAILED failed, $SKIPPED skipped"
    [ "$FAILED" = 0 ]
}

# What Dovecot logged since the case began.
mark_logs() {
    local host
    for host in $SITE_HOSTS; do
        # shellcheck disable=SC2153 # dovecot.sh sets it
        wc -l <"$SITE/$host/log" >"$SITE/$host/log.mark"
    done
}

new_log_lines() {
    local host
    for host in $SITE_HOSTS; do
        tail -n +"$(($(<"$SITE/$host/log.mark") + 1))" "$SITE/$host/log"
    done
}

# The wrapper's own lines, in the sites that let it log to Dovecot's log.
wrapper_lines() { new_log_lines | grep -F nfs-hostchange || true; }

# No error of Dovecot's own since the case began, unless it matches what the case
# has said it expects with expect_errors REGEX.
EXPECTED_ERRORS='^$'
expect_errors() { EXPECTED_ERRORS=$1; }
check_logs() {
    if new_log_lines | grep -E ' (Error|Fatal|Panic): |duplicate transaction log' |
        grep -vF nfs-hostchange | grep -vE "$EXPECTED_ERRORS"; then
        die "Dovecot logged the errors above"
    fi
}

# Assertions.
equal() { [ "$2" = "$3" ] || die "$1: '$2', not '$3'"; }
