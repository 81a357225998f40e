#!/bin/bash
# cargo, for static programs: "packaging/cargo-musl.sh build --release ..." is
# "cargo build --release ... --target <this machine>-unknown-linux-musl" with a
# toolchain that can do that. The results are in target/<triple>/.
#
# A wrapper on musl starts several times faster than one on glibc, and it starts
# at every login. rustup has the target ready made and is used where
# it does. Debian's Rust has none, but it has std's sources with everything
# they need, and musl: from those the target is built here, once, without
# network, in about a minute (into target/musl-sysroot-<version>).
#
# Needs, without rustup's target: rustc-web cargo-web rust-web-src musl-tools gcc
# (or rustc cargo rust-src musl-tools gcc on distributions whose rustc is new enough).
# Exit status 69 when this machine has neither.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
arch=$(uname -m)
triple=$arch-unknown-linux-musl
target_dir=${CARGO_TARGET_DIR:-$PWD/target}
musl=/usr/lib/$arch-linux-musl

# $1 = a rustc: does its own sysroot hold std for musl?
has_target() {
    compgen -G "$("$1" --print sysroot)/lib/rustlib/$triple/lib/libstd-*.rlib" >/dev/null
}

# $1 = a rustc: where its std's sources are.
library_of() {
    echo "$("$1" --print sysroot)/lib/rustlib/src/rust/library"
}

# $1 = the finished sysroot; uses $CARGO and $RUSTC.
build_sysroot() {
    local library work lib file
    library=$(library_of "$RUSTC")
    work=$1.new
    lib=$work/lib/rustlib/$triple/lib
    rm -rf "$work"
    mkdir -p "$lib/self-contained"

    # std is built the way the compiler's own build does it: its crates count
    # as the compiler's (unstable features allowed, invisible to programs), and
    # its bitcode is kept for link-time optimisation.
    local vendored=()
    if [[ -d $library/vendor ]]; then
        vendored=(--offline --config 'source.crates-io.replace-with="std-vendor"'
            --config "source.std-vendor.directory=\"$library/vendor\"")
    fi
    RUSTC_BOOTSTRAP=1 __CARGO_DEFAULT_LIB_METADATA=musl-sysroot \
        RUSTFLAGS="-Cembed-bitcode=yes -Ccodegen-units=1 -Zforce-unstable-if-unmarked --remap-path-prefix=$library=/rustc/library" \
        "$CARGO" build -Zavoid-dev-deps --release --locked "${vendored[@]}" \
        --manifest-path "$library/sysroot/Cargo.toml" --package sysroot --features panic-unwind \
        --target "$triple" --target-dir "$work/build" >&2
    cp "$work/build/$triple"/release/deps/*.rlib "$lib/"

    for file in crt1.o rcrt1.o Scrt1.o crti.o crtn.o libc.a; do
        cp "$musl/$file" "$lib/self-contained/"
    done
    for file in crtbegin.o crtbeginS.o crtend.o crtendS.o; do
        cp "$(gcc -print-file-name="$file")" "$lib/self-contained/"
    done
    cp "$(gcc -print-file-name=libgcc_eh.a)" "$lib/self-contained/libunwind.a"
    musl-gcc -O2 -fPIC -Wall -Wextra -c "$here/musl/dl_find_object.c" -o "$work/dl_find_object.o"
    ar rD "$lib/self-contained/libunwind.a" "$work/dl_find_object.o"

    rm -rf "$work/build" "$work/dl_find_object.o"
    mv -T "$work" "$1"
}

CARGO=${CARGO:-cargo} RUSTC=${RUSTC:-rustc}
if command -v "$CARGO" >/dev/null && command -v "$RUSTC" >/dev/null && has_target "$RUSTC"; then
    export RUSTC
    exec "$CARGO" "$@" --target "$triple"
fi

# rustup's commands come first in PATH, the distribution's have the sources.
if [[ ! -d $(library_of "$RUSTC" 2>/dev/null || true) ]]; then
    CARGO=/usr/bin/cargo RUSTC=/usr/bin/rustc
fi
for needed in "$CARGO" "$RUSTC" musl-gcc ar; do
    if ! command -v "$needed" >/dev/null; then
        echo "cargo-musl: $needed is missing, and no rustc here has the target $triple" >&2
        exit 69
    fi
done
if [[ ! -d $(library_of "$RUSTC") ]]; then
    echo "cargo-musl: $RUSTC has neither the target $triple nor the sources of std (rust-web-src)" >&2
    exit 69
fi

export RUSTC
sysroot=$target_dir/musl-sysroot-$("$RUSTC" --version | cut -d' ' -f2)
mkdir -p "$target_dir"
(
    flock 9
    if [[ ! -d $sysroot ]]; then
        echo "cargo-musl: building std for $triple, once" >&2
        build_sysroot "$sysroot"
    fi
) 9>"$target_dir/.musl-sysroot.lock"
export RUSTFLAGS="${RUSTFLAGS:-} --sysroot=$sysroot -Clink-self-contained=yes"
exec "$CARGO" "$@" --target "$triple"
