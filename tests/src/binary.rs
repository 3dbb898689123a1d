//! The real `conclave` binary.
//!
//! Cargo gives a test only the binaries of its own package, so the first test of a process that
//! needs one asks Cargo to bring it up to date: a moment when nothing has changed, and no suite
//! ever runs yesterday's binary. `CONCLAVE_BIN` names another one (a release build, say).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The environment variable that names a binary to test instead of building one.
pub const VARIABLE: &str = "CONCLAVE_BIN";

static BINARY: OnceLock<PathBuf> = OnceLock::new();

/// Makes this one the binary under test.
///
/// # Errors
///
/// When it does not exist, or another one is already in use.
pub fn choose(path: &Path) -> Result<()> {
    let path = fs::canonicalize(path).with_context(|| path.display().to_string())?;
    if let Err(path) = BINARY.set(path) {
        bail!("{} comes too late: another binary is in use", path.display());
    }
    Ok(())
}

/// The path of the binary under test.
///
/// # Panics
///
/// When it does not build: no test can go on then.
pub fn conclave() -> &'static Path {
    BINARY.get_or_init(|| find().expect("the conclave binary"))
}

/// Puts a copy of the binary under test at `path`, at once, in place of what is there, as a
/// package manager does: what runs goes on with the file that it was started from.
///
/// # Errors
///
/// When the copy cannot be made.
pub fn install_at(path: &Path) -> Result<()> {
    let staged = path.with_extension("new");
    fs::copy(conclave(), &staged).with_context(|| format!("copy to {}", staged.display()))?;
    fs::rename(&staged, path).with_context(|| format!("rename to {}", path.display()))
}

fn find() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(VARIABLE) {
        return fs::canonicalize(&path).with_context(|| format!("{VARIABLE}={}", path.display()));
    }
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // What is measured is a release build; tests build what they are themselves.
    let profile = if cfg!(debug_assertions) { "--profile=dev" } else { "--profile=release" };
    let mut command = Command::new(cargo);
    // What cargo tells a test about its package is not to be told to other packages' build scripts:
    // ring's counts it as a change, and would be compiled again, here and then by the next build.
    for (name, _) in std::env::vars_os() {
        let told = ["CARGO_PKG_", "CARGO_MANIFEST_"];
        if name.to_str().is_some_and(|name| told.iter().any(|start| name.starts_with(start))) {
            command.env_remove(&name);
        }
    }
    let output = command
        // Of the whole workspace, so that dependencies get the features that the tests' own build
        // gave them; for the one package alone much of wasmtime would be compiled again.
        .args(["build", "--workspace", "--bin=conclave", "--message-format=json", profile])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("run cargo")?;
    let messages = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let told = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let told: String =
            told.filter_map(|it| Some(it["message"]["rendered"].as_str()?.to_owned())).collect();
        bail!("cargo build failed:\n{}{told}", String::from_utf8_lossy(&output.stderr));
    }
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built no executable")
}
