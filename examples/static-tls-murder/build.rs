//! Links the Go part that BUTLER names: an archive inside of the addon, or a library of its own beside it.

use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(butler)");
    println!("cargo::rerun-if-env-changed=BUTLER");
    let Ok(butler) = std::env::var("BUTLER") else { return };
    let butler = Path::new(&butler);
    let kind = if butler.extension().is_some_and(|one| one == "a") { "static" } else { "dylib" };
    println!("cargo::rustc-cfg=butler");
    println!("cargo::rustc-link-search=native={}", butler.parent().expect("a directory").display());
    println!("cargo::rustc-link-lib={kind}=butler");
    if kind == "dylib" {
        println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN");
    }
}
