//! Replacing a running program by another version: what the guard executes on SIGUSR2, and what
//! that version answers when it is asked first.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use conclave_guard::{Upgrade, handover_version};
use conclave_manifests::LEDGER_VERSION;

use crate::cli::exit;
use crate::commands::run::{Told, told};
use crate::commands::say;
use crate::config;

/// How the guard is replaced by what is installed under this program's name. `call` is what the
/// daemon is told.
pub(super) fn to_installed(call: &[OsString]) -> Result<Upgrade> {
    let program = installed(env::args_os().next().as_deref(), env::current_exe);
    let mut question = Command::new(program.context("cannot find this program's own file")?);
    // By its own name, not podmaster's, whose flags are all that it would understand.
    question.arg0("conclave").arg("takes-over").arg(version()).args(call);
    // What was accepted once is not accepted for ever.
    let call = env::args_os().filter(|argument| argument != "--accept-store").collect();
    Ok(Upgrade { call, question })
}

/// Where this program is installed: where it was called, so that a symbolic link may point to
/// another version by then, or else where it was found.
fn installed(
    called: Option<&OsStr>,
    found: impl FnOnce() -> io::Result<PathBuf>,
) -> io::Result<PathBuf> {
    match called.map(Path::new) {
        Some(path) if path.as_os_str().as_bytes().contains(&b'/') => std::path::absolute(path),
        _ => {
            let found = found()?;
            // What the kernel says once the file has been replaced.
            let bytes = found.as_os_str().as_bytes();
            let path = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
            Ok(PathBuf::from(OsStr::from_bytes(path)))
        }
    }
}

/// What two versions must have in common for a term to go on from one to the other: what guard
/// and daemon share, what a guard hands over, and the ledger.
fn version() -> String {
    format!("{}.{LEDGER_VERSION}", handover_version())
}

/// `conclave takes-over`: whether this program can go on with what a guard of `version` has.
pub(super) fn answer(version: &str, arguments: Vec<OsString>) -> Result<u8> {
    let Told { source, .. } = told(arguments)?;
    let own = self::version();
    if version != own {
        say(&format!(
            "conclave: the program that runs keeps its state in layout {version}, the installed one in layout {own}: it cannot go on with the term"
        ));
        return Ok(Upgrade::NOT_IN_PLACE);
    }
    if let Some((file, text)) = source
        && config::read(&file).is_ok_and(|now| now != text)
    {
        say(&format!(
            "conclave: {} was changed since the node was started; an upgrade keeps what was read then, start the node anew for the change",
            file.display()
        ));
    }
    Ok(exit::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_installed_where_it_was_called() {
        for (called, found, installed_at) in [
            (Some("/usr/bin/conclave"), "/opt/conclave-2/conclave", "/usr/bin/conclave"),
            (Some("conclave"), "/usr/bin/conclave", "/usr/bin/conclave"),
            (Some("podmaster"), "/usr/bin/conclave (deleted)", "/usr/bin/conclave"),
            (None, "/usr/bin/conclave", "/usr/bin/conclave"),
        ] {
            let path = installed(called.map(OsStr::new), || Ok(found.into())).unwrap();
            assert_eq!(path, Path::new(installed_at), "{called:?}");
        }
        let relative = installed(Some(OsStr::new("./conclave")), || Ok("/a".into())).unwrap();
        assert_eq!(relative, env::current_dir().unwrap().join("conclave"));
    }
}
