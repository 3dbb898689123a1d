//! Turns the core module of a policy, as rustc makes it, into a component.
//!
//! `wit-bindgen` left the policy's interface in a custom section of the module; the encoder reads
//! it and wraps the module accordingly. `plugins/build` runs this; nothing else needs it: a component
//! that something else made does the same, only that a call takes a microsecond longer.

mod lean;

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use wit_component::ComponentEncoder;

fn main() -> Result<()> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    ensure!(paths.len() == 2, "usage: conclave-encode MODULE COMPONENT");
    let (input, output) = (&paths[0], &paths[1]);
    let module =
        std::fs::read(input).with_context(|| format!("cannot read {}", input.display()))?;
    let component = encode(&module)
        .with_context(|| format!("{} does not make a component", input.display()))?;
    std::fs::write(output, component).with_context(|| format!("cannot write {}", output.display()))
}

fn encode(module: &[u8]) -> Result<Vec<u8>> {
    let module = lean::unfreed(module)?;
    let component = ComponentEncoder::default().module(&module)?.validate(true).encode()?;
    lean::data_beside_memory(&component)
}
