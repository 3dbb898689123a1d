//! Turns the core module of a policy, as compilers make it, into a component.
//!
//! `wit-bindgen` left the policy's interface in a custom section of the module; the encoder reads
//! it and wraps the module accordingly. A component that something else made does the same, only that
//! a call takes a microsecond longer.

mod lean;

use anyhow::Result;
use wit_component::ComponentEncoder;

/// The component that a core module makes.
///
/// # Errors
/// Why it makes none.
pub fn encode(module: &[u8]) -> Result<Vec<u8>> {
    let module = lean::unfreed(module)?;
    let component = ComponentEncoder::default().module(&module)?.validate(true).encode()?;
    lean::data_beside_memory(&component)
}
