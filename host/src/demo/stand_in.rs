//! What the demo starts beside nodes, through hidden commands of this program: processes that end
//! when the demo does, however it ends.

use std::io::{self, Read as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use rustix::process::{Signal, set_parent_process_death_signal};

/// How a stand-in pod is called; its name follows.
pub(super) const POD: [&str; 2] = ["stand-in", "pod"];

/// How a node is called; its configuration file follows.
pub(super) const NODE: [&str; 2] = ["stand-in", "node"];

/// A pod: does nothing until it is ended, or until the pipe from its kubelet breaks.
pub fn pod() {
    let mut pipe = [0; 64];
    // A read ends when the kubelet closes the pipe, which it never does while it lives.
    while matches!(io::stdin().lock().read(&mut pipe), Ok(1..)) {}
}

/// A node: becomes `conclave run`, which is told to stop when the demo dies.
///
/// # Errors
///
/// Only where the program could not be replaced; otherwise this does not return.
pub fn node(config: &Path) -> io::Result<()> {
    set_parent_process_death_signal(Some(Signal::TERM))?;
    let program = std::env::current_exe()?;
    Err(Command::new(program).args(["run", "--config"]).arg(config).exec())
}
