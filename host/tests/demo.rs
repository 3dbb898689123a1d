//! `conclave demo` comes to its good end, and leaves nothing behind however it ends.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Longer than the demo takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Starts a demo whose files are all below `files`.
fn start(files: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_conclave"))
        .arg("demo")
        .env("TMPDIR", files)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The processes whose command line or working files are below `files`.
fn processes(files: &Path) -> Vec<String> {
    let files = files.to_str().unwrap();
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        line.contains(files).then_some(line)
    });
    lines.collect()
}

fn assert_nothing_is_left(files: &Path) {
    let left: Vec<_> = fs::read_dir(files).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(left, [""; 0].map(std::path::PathBuf::from));
    assert_eq!(processes(files), [""; 0]);
}

#[test]
fn the_story_ends_well() {
    let files = tempfile::tempdir().unwrap();
    let output = start(files.path()).wait_with_output().unwrap();
    let (out, err) =
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    let text = out.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "went on with the same term: nothing moved.",
        "took over: manifests in place",
        "It removed them before its kubelet started, and stands by.",
        "and ended with success: manifests in place there after",
        "There were never two of one kind.",
    ] {
        assert!(text.contains(part), "`{part}` is missing in\n{out}");
    }
    assert_nothing_is_left(files.path());
}

#[test]
fn an_interrupted_demo_cleans_up() {
    for signal in [Signal::INT, Signal::TERM] {
        let files = tempfile::tempdir().unwrap();
        let mut demo = start(files.path());
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
        let leads = lines.by_ref().map_while(Result::ok).any(|line| line.contains(" leads: "));
        assert!(leads, "no leader was ever announced");
        assert!(!processes(files.path()).is_empty());
        kill_process(Pid::from_child(&demo), signal).unwrap();
        // Whatever else it says must not stop it.
        drop(lines);
        assert_eq!(demo.wait().unwrap().code(), Some(1));
        assert_nothing_is_left(files.path());
    }
}

#[test]
fn a_killed_demo_takes_its_processes_with_it() {
    let files = tempfile::tempdir().unwrap();
    let mut demo = start(files.path());
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    assert!(lines.by_ref().map_while(Result::ok).any(|line| line.contains(" leads: ")));
    demo.kill().unwrap();
    demo.wait().unwrap();
    let end = Instant::now() + PATIENCE;
    while !processes(files.path()).is_empty() {
        assert!(Instant::now() < end, "these live on: {:?}", processes(files.path()));
        thread::sleep(Duration::from_millis(20));
    }
}
