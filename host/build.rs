//! Has the linker pack the program's relocations.
//!
//! A position-independent program is full of addresses that are corrected when it starts, and the
//! list of them, a number of megabytes, is then read into the memory of guard and daemon alike. In
//! packed form (DT_RELR, which the C library knows since glibc 2.36) it is a fraction of that.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let is = |variable: &str, value: &str| std::env::var(variable).is_ok_and(|it| it == value);
    if is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu") {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
