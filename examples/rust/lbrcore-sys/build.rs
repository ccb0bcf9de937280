//! Finds liblbrcore: `LBRCORE_LIB_DIR`, else pkg-config.
use std::{env, process::Command};

fn main() {
    println!("cargo:rerun-if-env-changed=LBRCORE_LIB_DIR");
    if let Ok(dir) = env::var("LBRCORE_LIB_DIR") {
        println!("cargo:rustc-link-search=native={dir}");
        println!("cargo:rustc-link-lib=static=lbrcore");
        return;
    }
    let found = Command::new("pkg-config").args(["--libs", "lbrcore"]).output();
    let words = match found {
        Ok(out) if out.status.success() => String::from_utf8(out.stdout).expect("pkg-config: UTF-8"),
        _ => panic!("liblbrcore is not found: set LBRCORE_LIB_DIR or PKG_CONFIG_PATH"),
    };
    for word in words.split_whitespace() {
        if let Some(dir) = word.strip_prefix("-L") {
            println!("cargo:rustc-link-search=native={dir}");
        } else if let Some(name) = word.strip_prefix("-l") {
            println!("cargo:rustc-link-lib={name}");
        }
    }
}
