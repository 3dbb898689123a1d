//! `conclave-reference WIT PAGE`: writes the policy interface's reference.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

fn main() -> Result<()> {
    let paths: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    ensure!(paths.len() == 2, "usage: conclave-reference WIT PAGE");
    let page = conclave_reference::page(&paths[0])?;
    std::fs::write(&paths[1], page).with_context(|| format!("cannot write {}", paths[1].display()))
}
