//! Orders the code of the wrapper: see packaging/cold.ld.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=packaging/cold.ld");
    // GNU ld and lld understand the script; both are ELF linkers.
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") {
        let directory = env::var("CARGO_MANIFEST_DIR").unwrap_or_default();
        println!(
            "cargo::rustc-link-arg-bin=nfs-hostchange-login=-Wl,-T,{directory}/packaging/cold.ld"
        );
    }
}
