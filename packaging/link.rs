//! How the wrapper is linked. Most of what a start costs is mapping the program, page by page.

use std::env;

const WRAPPER: &str = "nfs-hostchange-login";

fn main() {
    println!("cargo::rerun-if-changed=packaging/link.rs");
    println!("cargo::rerun-if-changed=packaging/cold.ld");
    let target = |part| env::var(format!("CARGO_CFG_TARGET_{part}")).unwrap_or_default();
    // GNU ld and lld understand the script; both are ELF linkers.
    if target("OS") == "linux" {
        let directory = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        link_with(&format!("-T,{directory}/packaging/cold.ld"));
    }
    if target("ENV") == "musl" {
        // Code and constants in one mapping instead of three; and no page boundary for data that a
        // dynamic loader would write-protect, since there is none.
        link_with("-z,noseparate-code,-z,norelro");
    }
}

fn link_with(argument: &str) {
    println!("cargo::rustc-link-arg-bin={WRAPPER}=-Wl,{argument}");
}
