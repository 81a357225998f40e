#!/usr/bin/env bash
# "doveadm nfs usercache" in real Dovecots: those in the roots that tests/setup.sh makes. Part of
# tests/package.sh. The last line counts the cases of tests/package/doveadm.sh.
#
#   tests/doveadm.sh [--command PATH] [--only REGEX] [ROOT...]
#
# Without --command that is built, too.
set -euo pipefail

# shellcheck source=tests/lib/common.sh
source "$(dirname "$0")/lib/common.sh"

read_options '--command PATH' '--only REGEX' 'ROOT...' -- "$@"
need_root
[ "${#WORDS[@]}" -gt 0 ] || WORDS=("${ALL_ROOTS[@]}")
find_cargo || die "no cargo"
[ -n "$COMMAND" ] || build_release || die "it does not build"
make_work_dirs
for name in "${WORDS[@]}"; do
    has_root "$name" || die "there is no root $name; run tests/setup.sh roots"
    DOVECOT_INCLUDE=$ROOTS/$name/usr/include/dovecot MODULES=$WORK/$name "$REPO/packaging/build-plugin.sh"
    in_root "$name" "$REPO/tests/package/doveadm.sh" "$COMMAND" "$WORK/$name" "$ONLY" | tee "$WORK/result" || true
    count_result "$(tail -n 1 "$WORK/result")" || FAILED=$((FAILED + 1))
done
print_result
