//! What a command is before it may run: this program, waiting for leave in the command's group. It becomes the
//! command, or ends when the daemon that started it does.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use rustix::process::{Signal, set_parent_process_death_signal};

/// The exit statuses of shells for a command that cannot be run, and for one that is not there.
const CANNOT_RUN: u8 = 126;
const NOT_FOUND: u8 = 127;

/// Waits on standard input for leave, then becomes the command, whose standard input is empty. Returns the exit
/// status, if it does not.
pub(crate) fn wait_and_become(arguments: &[OsString]) -> u8 {
    // Its daemon's end is its own. What it starts the guard ends.
    if set_parent_process_death_signal(Some(Signal::KILL)).is_err() {
        return CANNOT_RUN;
    }
    let mut leave = [0; 1];
    if io::stdin().lock().read_exact(&mut leave).is_err() {
        return 0; // there will be none
    }
    let Some((program, arguments)) = arguments.split_first() else { return CANNOT_RUN };
    let error = Command::new(program).args(arguments).stdin(Stdio::null()).exec();
    eprintln!("conclave: cannot run {}: {error}", program.to_string_lossy());
    if error.kind() == io::ErrorKind::NotFound { NOT_FOUND } else { CANNOT_RUN }
}
