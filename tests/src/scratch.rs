//! Directories that go away, and a janitor that clears up after a test process that was killed.
//!
//! Destructors end a test's processes and remove its directories. They do not run when the test
//! process itself is killed (a time limit, an interrupt), so the first use of either starts a
//! janitor: a shell that does nothing until the test process is gone, then ends every process
//! that carries this run's mark in its environment, unmounts what is mounted in the run's directory
//! (thawed first: nobody ends while a frozen disk holds him) and removes it, with what is marked
//! immutable in it.

use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context, Result};
use std::os::unix::process::CommandExt;
use tempfile::TempDir;

/// The environment variable by which a run's processes are recognised.
pub const MARK: &str = "CONCLAVE_TEST_RUN";

/// Waits for the end of its input, then clears up after run `$1` with directory `$2`.
const JANITOR: &str = r#"
cat >/dev/null
mounts() { while read -r _ point _; do case "$point" in "$1"/*) echo "$point" ;; esac; done </proc/mounts; }
for point in $(mounts "$2"); do fsfreeze --unfreeze "$point" 2>/dev/null; done
for environ in /proc/[0-9]*/environ; do
  if tr '\0' '\n' 2>/dev/null <"$environ" | grep -q "^$0=$1"; then
    pid="${environ#/proc/}"
    kill -9 "${pid%/environ}" 2>/dev/null
  fi
done
for point in $(mounts "$2"); do umount --lazy "$point"; done
rm -rf "$2" 2>/dev/null || { chattr -R -f -i "$2"; rm -rf "$2"; }
"#;

struct Run {
    mark: String,
    root: PathBuf,
    /// Closed by the kernel when this process ends, however it ends.
    _janitor: ChildStdin,
}

fn run() -> &'static Run {
    static RUN: OnceLock<Run> = OnceLock::new();
    RUN.get_or_init(|| start_run().expect("the test run's directory and janitor"))
}

fn start_run() -> Result<Run> {
    let mark = format!("{}-", std::process::id());
    let root = tempfile::Builder::new().prefix("conclave-tests-").tempdir()?.keep();
    let mut janitor = Command::new("sh")
        .args(["-c", JANITOR, MARK, &mark])
        .arg(&root)
        .env_remove(MARK)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // An interrupt from the terminal must not take the janitor along.
        .process_group(0)
        .spawn()
        .context("start the janitor")?;
    let input = janitor.stdin.take().context("the janitor's input")?;
    Ok(Run { mark, root, _janitor: input })
}

/// What a process of this run has in its environment under [`MARK`], made unique by `suffix`.
pub(crate) fn mark(suffix: u64) -> String {
    format!("{}{suffix}", run().mark)
}

/// An empty directory that is removed when dropped.
///
/// # Errors
///
/// When it cannot be created.
pub fn directory(name: &str) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix(&format!("{name}-"))
        .tempdir_in(&run().root)
        .with_context(|| format!("create a scratch directory in {}", run().root.display()))
}
