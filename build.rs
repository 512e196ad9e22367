//! Checks that the pages which go into the binary have been built.

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=web/dist");
    if !Path::new("web/dist/index.html").is_file() {
        println!("cargo::error=web/dist is missing: run `make web`");
    }
}
