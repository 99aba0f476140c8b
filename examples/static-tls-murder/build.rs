//! Links the Go part that BUTLER names: an archive inside of the addon, or a library of its own beside it.

use std::path::Path;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(butler)"); // read by newer ones only, which want it
    println!("cargo:rerun-if-env-changed=BUTLER");
    let butler = match std::env::var("BUTLER") {
        Ok(butler) => butler,
        Err(_) => return,
    };
    let butler = Path::new(&butler);
    let archive = butler.extension().map_or(false, |one| one == "a");
    println!("cargo:rustc-cfg=butler");
    println!("cargo:rustc-link-search=native={}", butler.parent().expect("a directory").display());
    println!("cargo:rustc-link-lib={}=butler", if archive { "static" } else { "dylib" });
    if !archive {
        println!("cargo:rustc-link-arg=-Wl,-rpath,$ORIGIN");
    }
}
