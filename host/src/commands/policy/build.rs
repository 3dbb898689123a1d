//! `conclave policy build`: makes a component of a core module that carries its interface.
//!
//! Compilers for WebAssembly make core modules. `wit-bindgen` leaves the interface in a section of
//! its own, and the encoder wraps the module accordingly.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use conclave_policy::{Limits, PolicyHost};

use crate::cli::{BuildPolicy, exit};
use crate::commands::{Usage, say};

pub(in crate::commands) fn build(wanted: &BuildPolicy) -> Result<u8> {
    let module = fs::read(&wanted.module)
        .with_context(|| format!("cannot read {}", wanted.module.display()))?;
    let out = wanted.out.clone().unwrap_or_else(|| beside(&wanted.module));
    let component = encode(&module)
        .with_context(|| format!("{} makes no policy", wanted.module.display()))
        .map_err(Usage)?;
    let name = out.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let host = PolicyHost::new(Limits::default(), None)?;
    let policy = host
        .load(&name, &component)
        .with_context(|| format!("{} makes no policy", wanted.module.display()))
        .map_err(Usage)?;
    put(&out, &component)?;
    let interfaces: Vec<String> = policy.interfaces().iter().map(ToString::to_string).collect();
    say(&format!(
        "{}: {} bytes, exports {}",
        out.display(),
        component.len(),
        interfaces.join(", ")
    ));
    Ok(exit::SUCCESS)
}

/// What Cargo calls `rack_first.wasm` somewhere under `target` is to be `rack-first.wasm` here.
fn beside(module: &Path) -> PathBuf {
    let stem = module.file_stem().unwrap_or_default().to_string_lossy().replace('_', "-");
    PathBuf::from(format!("{stem}.wasm"))
}

fn encode(module: &[u8]) -> Result<Vec<u8>> {
    /// How core modules begin, and how components do.
    const MODULE: &[u8] = b"\0asm\x01\0\0\0";
    const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    if module.starts_with(COMPONENT) {
        return Err(anyhow!("it is a component already: use it as it is"));
    }
    if !module.starts_with(MODULE) {
        return Err(anyhow!("it is not WebAssembly in its binary form"));
    }
    conclave_encode::encode(module)
}

/// Whoever reads the directory meanwhile sees the old file or the new one, whole.
fn put(out: &Path, bytes: &[u8]) -> Result<()> {
    let mut name = out.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let staged = out.with_file_name(name);
    fs::write(&staged, bytes)
        .and_then(|()| fs::rename(&staged, out))
        .with_context(|| format!("cannot write {}", out.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_core_module_with_an_interface_is_told_apart() {
        for (bytes, message) in [
            (&b""[..], "it is not WebAssembly in its binary form"),
            (b"#!/bin/sh\n", "it is not WebAssembly in its binary form"),
            (b"\0asm\x0d\0\x01\0rest", "it is a component already: use it as it is"),
        ] {
            assert_eq!(encode(bytes).unwrap_err().to_string(), message);
        }
        assert_eq!(beside(Path::new("target/x/rack_first.wasm")), Path::new("rack-first.wasm"));
    }
}
