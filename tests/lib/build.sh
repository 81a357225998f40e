# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this
# Finds a Rust that is new enough and builds what is shipped.

# rust-version of Cargo.toml.
RUST_MINOR_NEEDED=85

# Puts a cargo that is new enough first on PATH; false when there is none.
find_cargo() {
    local cargo
    for cargo in "$(command -v cargo || true)" "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" /usr/bin/cargo; do
        if [ -n "$cargo" ] && cargo_is_new_enough "$cargo"; then
            PATH=${cargo%/*}:$PATH
            export PATH
            return 0
        fi
    done
    return 1
}

cargo_is_new_enough() {
    local version
    version=$("$1" --version 2>/dev/null) || return 1
    [[ $version =~ ^cargo\ 1\.([0-9]+)\. ]] && [ "${BASH_REMATCH[1]}" -ge "$RUST_MINOR_NEEDED" ]
}

# Builds what is shipped, if it is not built yet, and sets DIST, WRAPPER and COMMAND.
build_release() {
    find_cargo || die "no cargo 1.$RUST_MINOR_NEEDED or newer; run tests/setup.sh"
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPO/target}
    note "packaging/build.sh"
    nice "$REPO/packaging/build.sh" || return
    DIST=$CARGO_TARGET_DIR/dist
    WRAPPER=$DIST/nfs-hostchange-login
    COMMAND=$DIST/nfs-hostchange
}
