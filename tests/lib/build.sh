# shellcheck shell=bash
# shellcheck disable=SC2034 # the variables are for the scripts that source this
# Finds a Rust that is new enough, chooses what the wrapper is built for, and
# builds both programs. Needs common.sh.

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

# Builds both programs and sets WRAPPER and COMMAND. What is set are copies: a program
# as the linker wrote it starts slower than a copy of it.
build_release() {
    build_wrapper && build_command
}

build_command() {
    prepare_build
    note "administrator's command"
    nice cargo build --manifest-path "$REPO/Cargo.toml" --release --locked --bin nfs-hostchange || return
    install -D -m 0755 "$CARGO_TARGET_DIR/release/nfs-hostchange" "$CARGO_TARGET_DIR/dist/nfs-hostchange"
    COMMAND=$CARGO_TARGET_DIR/dist/nfs-hostchange
}

# The one place where the wrapper's target is chosen. Static either way: the dynamic
# loader would cost more than the whole job. musl starts several times faster than
# glibc, whose start-up asks the processor dozens of questions, but it cannot be had
# everywhere.
build_wrapper() {
    local target status=0 args=(build --manifest-path "$REPO/Cargo.toml" --release --locked
        --no-default-features --bin nfs-hostchange-login)
    prepare_build
    target=$(uname -m)-unknown-linux-musl
    note "wrapper for $target"
    nice "$REPO/packaging/cargo-musl.sh" "${args[@]}" || status=$?
    # EX_UNAVAILABLE: this machine has no musl.
    if [ "$status" = 69 ]; then
        target=$(uname -m)-unknown-linux-gnu
        note "wrapper for $target"
        RUSTFLAGS="${RUSTFLAGS-} -C target-feature=+crt-static" nice cargo "${args[@]}" --target "$target" || return
    elif [ "$status" != 0 ]; then
        return "$status"
    fi
    install -D -m 0755 "$CARGO_TARGET_DIR/$target/release/nfs-hostchange-login" \
        "$CARGO_TARGET_DIR/dist/nfs-hostchange-login"
    WRAPPER=$CARGO_TARGET_DIR/dist/nfs-hostchange-login
}

prepare_build() {
    find_cargo || die "no cargo 1.$RUST_MINOR_NEEDED or newer; run tests/setup.sh"
    export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$REPO/target}
}
