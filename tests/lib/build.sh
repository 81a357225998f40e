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

has_target() { [ -d "$(rustc --print sysroot)/lib/rustlib/$1/lib" ]; }

# The one place where the wrapper's target is chosen. Static either way: the
# dynamic loader would cost more than the whole job. musl starts several times
# faster than glibc, whose start-up asks the processor dozens of questions.
# Sets WRAPPER_TARGET and WRAPPER_RUSTFLAGS.
choose_wrapper_target() {
    local machine
    machine=$(uname -m)
    if has_target "$machine-unknown-linux-musl"; then
        WRAPPER_TARGET=$machine-unknown-linux-musl
        WRAPPER_RUSTFLAGS=
    else
        WRAPPER_TARGET=$machine-unknown-linux-gnu
        WRAPPER_RUSTFLAGS='-C target-feature=+crt-static'
    fi
}

# Builds and sets WRAPPER and COMMAND to the two programs. They are copies: a
# program as the linker wrote it starts slower than a copy of it.
build_release() {
    local out=${CARGO_TARGET_DIR:-$REPO/target}
    find_cargo || die "no cargo 1.$RUST_MINOR_NEEDED or newer; run tests/setup.sh"
    choose_wrapper_target
    note "wrapper for $WRAPPER_TARGET"
    RUSTFLAGS="${RUSTFLAGS-}${RUSTFLAGS:+ }$WRAPPER_RUSTFLAGS" nice cargo build \
        --manifest-path "$REPO/Cargo.toml" --target-dir "$out" --release --locked \
        --no-default-features --bin nfs-hostchange-login --target "$WRAPPER_TARGET" || return
    note "administrator's command"
    nice cargo build --manifest-path "$REPO/Cargo.toml" --target-dir "$out" --release --locked \
        --bin nfs-hostchange || return
    mkdir -p "$out/dist"
    install -m 0755 "$out/$WRAPPER_TARGET/release/nfs-hostchange-login" "$out/release/nfs-hostchange" "$out/dist/"
    WRAPPER=$out/dist/nfs-hostchange-login
    COMMAND=$out/dist/nfs-hostchange
}
