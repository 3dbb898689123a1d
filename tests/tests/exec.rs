//! `conclave exec`: a command runs on one node at a time, and ends with the term, whatever happens.
//!
//! What must never overlap holds a lock of the kernel, which the last of its processes gives back when it
//! ends: a command that starts while anything of another is left says so.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use conclave_tests::etcd::{Etcd, Version};
use conclave_tests::process::{Pid, Process, Signal, send};
use conclave_tests::proxy::{Mode, Proxy};
use conclave_tests::{Outcome, PATIENCE, binary, eventually, holds_for, scratch};
use tempfile::TempDir;

const CLUSTER: &str = "jobs";

/// Several who want to run the same.
struct Scene {
    etcd: Etcd,
    dir: TempDir,
    /// Whether this machine lets control groups be made. Where it does not, what leaves a process group is not
    /// ended, as the program says, and nothing does here.
    groups: bool,
}

impl Scene {
    fn new() -> Result<Self> {
        let (etcd, dir) = (Etcd::start(Version::V3_4)?, scratch::directory("exec")?);
        let mut scene = Scene { etcd, dir, groups: true };
        let probe = scene.command("probe", &scene.etcd.url(), &[], &["true"]).output()?;
        let said = String::from_utf8_lossy(&probe.stderr);
        scene.groups = !said.contains("no control group");
        if !scene.groups {
            eprintln!("without control groups: {said}");
        }
        Ok(scene)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Starts one that runs `script` while it leads, and reaches etcd by `url`.
    fn start(&self, name: &str, url: &str, arguments: &[&str], script: &str) -> Result<Process> {
        let mut command = self.command(name, url, arguments, &["sh", "-c", script]);
        command.current_dir(self.dir.path());
        Process::start(name, self.dir.path(), command)
    }

    fn command(&self, name: &str, url: &str, arguments: &[&str], what: &[&str]) -> Command {
        let mut command = Command::new(binary::conclave());
        command.args(["exec", "--endpoints", url, "--cluster", CLUSTER, "--name", name]);
        command.args(arguments).args(["job", "--"]).args(what);
        command
    }

    /// What runs alone or says that it does not; it notes its term and goes on for ever, and one of its
    /// processes is in no group of the others.
    fn alone(&self, then: &str) -> String {
        let path = self.dir.path().display();
        let leave = if self.groups { "setsid" } else { "" };
        format!(
            "exec 9>{path}/lock; flock -n 9 || {{ echo two >> {path}/two; exit 1; }}; \
             {leave} sleep 1000 & echo $CONCLAVE_NODE $CONCLAVE_TERM >> {path}/ran; {then}"
        )
    }

    /// Which nodes have run it, with which tokens.
    fn ran(&self) -> Vec<(String, u64)> {
        let text = fs::read_to_string(self.path("ran")).unwrap_or_default();
        let line = |line: &str| {
            let (node, token) = line.split_once(' ')?;
            Some((node.to_owned(), token.parse().ok()?))
        };
        text.lines().filter_map(line).collect()
    }

    fn wait_for_runs(&self, count: usize) -> Result<Vec<(String, u64)>> {
        eventually(&format!("{count} runs"), PATIENCE, || {
            let ran = self.ran();
            (ran.len() >= count).then_some(ran)
        })
    }

    /// Nothing ever ran beside another, and tokens grew.
    fn judge(&self) {
        assert!(!self.path("two").exists(), "two at once: {:?}", self.ran());
        let ran = self.ran();
        assert!(ran.is_sorted_by(|one, next| one.1 < next.1), "{ran:?}");
    }
}

/// Whether nobody has the file open as a lock any more.
fn is_free(lock: &Path) -> bool {
    let free = Command::new("flock").arg("-n").arg(lock).arg("true").status();
    free.is_ok_and(|status| status.success())
}

/// The daemon of one: the child of its guard.
fn daemon(process: &Process) -> Result<Pid> {
    process.children().into_iter().next().context("a daemon")
}

#[test]
fn a_command_runs_with_its_token_and_its_status_is_passed_on() -> Outcome {
    let scene = Scene::new()?;
    let url = scene.etcd.url();
    for (what, expected) in [
        (
            &["sh", "-c", "echo $CONCLAVE_ELECTION $CONCLAVE_ROLE $CONCLAVE_NODE; cat; exit 7"][..],
            7,
        ),
        (&["sh", "-c", "kill -9 $$"], 137),
        (&["/nowhere/nothing"], 127),
        (&["/etc"], 126),
        (&["true"], 0),
    ] {
        let output = scene.command("one", &url, &["--ttl", "2s"], what).output()?;
        let (out, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(expected), "{what:?}: {out}{error}");
        assert_eq!(out, if expected == 7 { "job leader one\n" } else { "" }, "{error}");
    }
    let refused = scene.command("one", &url, &["--ttl", "1ms"], &["true"]).output()?;
    assert_eq!(refused.status.code(), Some(2), "{}", String::from_utf8_lossy(&refused.stderr));
    Ok(())
}

#[test]
fn of_two_one_runs_and_the_other_follows() -> Outcome {
    let scene = Scene::new()?;
    let url = scene.etcd.url();
    let done = scene.path("done");
    // The first ends by itself once it is told to; the others wait to be ended.
    let first = scene.alone(&format!("while [ ! -e {} ]; do sleep 0.02; done", done.display()));
    let mut first = scene.start("first", &url, &["--ttl", "2s"], &first)?;
    scene.wait_for_runs(1)?;
    let gentle = format!(
        "trap 'echo asked > {}; exit' TERM; while :; do sleep 0.02; done",
        scene.path("asked").display()
    );
    let mut second = scene.start("second", &url, &["--ttl", "2s"], &scene.alone(&gentle))?;
    holds_for("one alone", Duration::from_millis(500), || scene.ran().len() == 1)?;
    fs::write(&done, "")?;
    assert_eq!(first.wait(PATIENCE)?.code(), Some(0));
    scene.wait_for_runs(2)?;

    // Asked to stop, it asks its command, and then the third has its turn.
    let mut third = scene.start(
        "third",
        &url,
        &["--ttl", "2s", "--grace", "100ms"],
        &scene.alone("trap '' TERM; while :; do sleep 0.02; done"),
    )?;
    holds_for("one alone", Duration::from_millis(300), || scene.ran().len() == 2)?;
    send(second.pid(), Signal::TERM)?;
    assert_eq!(second.wait(PATIENCE)?.code(), Some(0));
    assert!(scene.path("asked").exists(), "it was asked");
    scene.wait_for_runs(3)?;
    // One that does not listen is killed after its grace, with all that it started.
    send(third.pid(), Signal::TERM)?;
    assert_eq!(third.wait(PATIENCE)?.code(), Some(0));
    assert!(is_free(&scene.path("lock")), "something of it is left");
    let nodes: Vec<String> = scene.ran().into_iter().map(|(node, _)| node).collect();
    assert_eq!(nodes, ["first", "second", "third"]);
    scene.judge();
    Ok(())
}

#[test]
fn by_the_deadline_everything_of_it_has_ended_whoever_is_cut_off_frozen_or_dead() -> Outcome {
    let scene = Scene::new()?;
    let links = [Proxy::start(scene.etcd.address())?, Proxy::start(scene.etcd.address())?];
    let script = scene.alone("while :; do sleep 1000; done");
    let names = ["a", "b"];
    let mut both = Vec::new();
    for (name, link) in names.iter().zip(&links) {
        both.push(scene.start(name, &link.url(), &["--ttl", "1s"], &script)?);
        scene.wait_for_runs(1)?;
    }
    let index = |node: &str| names.iter().position(|name| *name == node).context("a node");
    for (round, fault) in ["cut off", "frozen", "dead"].into_iter().enumerate() {
        let before = scene.wait_for_runs(round + 1)?;
        let at = index(&before.last().context("a run")?.0)?;
        match fault {
            "cut off" => links[at].set(Mode::BlackHole)?,
            "frozen" => send(daemon(&both[at])?, Signal::STOP)?,
            _ => send(daemon(&both[at])?, Signal::KILL)?,
        }
        // The other one, or, after a restart of its daemon, perhaps the same, in a later term.
        let after = scene.wait_for_runs(before.len() + 1).with_context(|| fault.to_owned())?;
        let (node, _) = after.last().context("a run")?;
        assert!(fault == "dead" || index(node)? != at, "{fault}: {after:?}");
        links[at].set(Mode::Pass)?;
        scene.judge();
    }
    for mut process in both {
        send(process.pid(), Signal::TERM)?;
        process.wait(PATIENCE)?;
    }
    assert!(is_free(&scene.path("lock")), "something of it is left");
    scene.judge();
    Ok(())
}

#[test]
fn without_control_groups_its_process_group_ends_with_the_deadline() -> Outcome {
    let scene = Scene::new()?;
    let link = Proxy::start(scene.etcd.address())?;
    // Nothing of it leaves the process group here: that would be too much to ask.
    let script = format!(
        "exec 9>lock; flock -n 9 || exit 1; sleep 1000 & echo a $CONCLAVE_TERM >> {}; wait",
        scene.path("ran").display()
    );
    let usual = scene.command("a", &link.url(), &["--ttl", "1s"], &["sh", "-c", &script]);
    let unmount = "for at in $(awk '/ - cgroup2 /{print $5}' /proc/self/mountinfo); do umount -l $at; done; exec \"$0\" \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", unmount]).arg(usual.get_program()).args(usual.get_args());
    command.current_dir(scene.dir.path());
    let mut process = Process::start("a", scene.dir.path(), command)?;
    scene.wait_for_runs(1)?;
    assert!(
        process.output()?.contains("no control group for the command"),
        "{}",
        process.output()?
    );
    send(daemon(&process)?, Signal::STOP)?;
    eventually("everything of it to end", PATIENCE, || is_free(&scene.path("lock")).then_some(()))?;
    // Another daemon begins anew.
    scene.wait_for_runs(2)?;
    send(process.pid(), Signal::TERM)?;
    process.wait(PATIENCE)?;
    assert!(is_free(&scene.path("lock")), "something of it is left");
    scene.judge();
    Ok(())
}
