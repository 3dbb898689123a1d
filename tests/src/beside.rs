//! Programs of Debian's that nodes are tested with; `scripts/setup tests` unpacks them into the user's cache.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// A command of one of them, by its path as Debian has it: `usr/sbin/haproxy`.
///
/// # Errors
///
/// When it is not there.
pub fn command(path: &str) -> Result<Command> {
    let beside = cache()?.join("beside");
    let program = beside.join(path);
    if !program.is_file() {
        bail!("there is no {}: run scripts/setup tests", program.display());
    }
    let mut command = Command::new(program);
    let libraries = format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    command.env("LD_LIBRARY_PATH", beside.join(libraries));
    Ok(command)
}

/// An nginx configuration with directories below its prefix for what it writes. Debian's package makes others, which a
/// machine that has only the program lacks.
pub fn nginx_here(text: &str) -> String {
    let own = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let own: String = own.iter().map(|what| format!("{what}_temp_path {what}; ")).collect();
    text.replace("http {", &format!("http {{ access_log off; {own}"))
}

/// Where `scripts/setup` puts what it fetches.
///
/// # Errors
///
/// When the environment does not say where.
pub fn cache() -> Result<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).or_else(home);
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("conclave"))
}
