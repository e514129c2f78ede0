//! Lets the program of a package begin before its C library, where it is linked statically; see `crates/sys/src/bare`. For the
//! packages whose only program does.
//!
//! On x86-64 calls must not go through a table of addresses, which is right only later. The compiler makes direct ones when it
//! is told `-C relro-level=partial`; full protection is then asked of the linker (`-z now`), as `scripts/build-static` does.

#![expect(clippy::disallowed_methods, reason = "cargo tells what it builds for by the environment")]

use std::env::var;

fn main() {
    let [library, machine, flags] = ["CARGO_CFG_TARGET_ENV", "CARGO_CFG_TARGET_ARCH", "CARGO_ENCODED_RUSTFLAGS"]
        .map(|name| var(name).unwrap_or_default());
    let calls_are_direct = machine == "aarch64" || machine == "x86_64" && flags.contains("relro-level=partial");
    if library == "musl" && calls_are_direct {
        // A compiler that links has the argument handed on.
        let form = if flags.contains("linker-flavor=ld") { "" } else { "-Wl," };
        println!("cargo:rustc-link-arg-bins={form}--entry=attune_entry");
    }
    // Of no file but itself, for which cargo looks anyway.
    println!("cargo:rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    // What the linker reads and cargo does not know of, as a checksum: another one links anew.
    println!("cargo:rerun-if-env-changed=ATTUNE_LINKER_INPUTS");
}
