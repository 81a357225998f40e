# shellcheck shell=bash
# What the mail plugin costs, inside the Dovecots of setup.sh roots: beside none, one that does
# nothing, the wrapper, and a post-login program that only executes. Needs run.sh.

measure_plugin() {
    local root modules targets=()
    for root in bookworm trixie; do
        has_root "$root" || die "there is no $ROOTS/$root; run tests/setup.sh roots"
        modules=$WORK/modules/$root
        DOVECOT_INCLUDE=$ROOTS/$root/usr/include/dovecot MODULES=$modules "$REPO/packaging/build-plugin.sh"
        build_plugin empty "$root" "$modules/empty.so"
        build_plugin calls "$root" "$modules/calls.so"
        build_plugin before "$root" "$modules/lib89_before_plugin.so"
        build_plugin after "$root" "$modules/lib91_after_plugin.so"
        targets+=("$ROOTS/$root=$modules")
    done
    "$PYTHON" "$BENCH/plugin.py" --results "$RESULTS" --rounds "$(rounds 20 1)" --sessions "$(rounds 40 5)" \
        --users "$(rounds 100 5)" --wrapper "$BIN/nfs-hostchange-login" --exec "$BIN/exec.musl" "${targets[@]}"
}

# build_plugin NAME ROOT FILE: as packaging/build-plugin.sh does, for the Dovecot of ROOT.
build_plugin() {
    gcc -std=gnu99 -O2 -fPIC -Wall -Wextra -Werror -Wno-unused-parameter -DHAVE_CONFIG_H \
        -I"$ROOTS/$2/usr/include/dovecot" -shared -Wl,-z,now -s -o "$3" "$BENCH/plugin/$1.c"
}
