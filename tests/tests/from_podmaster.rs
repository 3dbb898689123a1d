//! The script that moves a node from podmaster to conclave's podmaster mode.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context, Result};
use conclave_tests::process::Process;
use conclave_tests::{Outcome, PATIENCE, eventually, scratch};

/// A node's kubelet directory as podmaster leaves it, and a new pod manifest beside it.
struct Place {
    root: tempfile::TempDir,
    /// A process name that no other test has; the kernel keeps fifteen characters.
    process: String,
}

impl Place {
    fn new(test: &str) -> Result<Self> {
        let root = scratch::directory("move")?;
        let process = format!("{test}{}", std::process::id());
        let place = Place { root, process };
        fs::create_dir(place.kubelet())?;
        // Called as in the project's own example of such a pod.
        for file in ["podmaster.yaml", "scheduler.yaml", "controller-mgr.yaml", "apiserver.yaml"] {
            fs::write(place.kubelet().join(file), file)?;
        }
        fs::write(place.new_manifest(), "new")?;
        Ok(place)
    }

    /// The example's destinations are what the script takes out unless it is told otherwise.
    fn managed_in_the_example() -> Result<Vec<String>> {
        let file =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/reference/podmaster.yaml");
        let text = fs::read_to_string(file)?;
        let managed =
            text.lines().filter_map(|line| line.split_once("--dest-file=/dst/manifests/"));
        Ok(managed.map(|(_, name)| name.to_owned()).collect())
    }

    fn kubelet(&self) -> PathBuf {
        self.root.path().join("manifests")
    }

    fn new_manifest(&self) -> PathBuf {
        self.root.path().join("podmaster.yaml")
    }

    fn call(&self, step: &str) -> Result<Output> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/from-podmaster/move");
        Command::new("/bin/sh")
            .arg(script)
            .arg(step)
            .env("KUBELET_DIR", self.kubelet())
            .env("NEW", self.new_manifest())
            .env("KEEP", self.root.path().join("kept"))
            .env("PROCESS", &self.process)
            .env("PATH", self.few_programs()?)
            .output()
            .context("cannot run the script")
    }

    /// What the smallest system has: a program that looks for processes is none of it.
    fn few_programs(&self) -> Result<PathBuf> {
        let programs = self.root.path().join("bin");
        if !programs.exists() {
            fs::create_dir(&programs)?;
            for name in ["cp", "mkdir", "mv", "sleep"] {
                symlink(Path::new("/bin").join(name), programs.join(name))?;
            }
        }
        Ok(programs)
    }

    fn files(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.kubelet())? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }
}

#[test]
fn stop_takes_out_what_podmaster_left_and_start_puts_the_new_one_in() -> Outcome {
    let place = Place::new("a")?;
    let early = place.call("start")?;
    assert!(!early.status.success(), "the old one is still there");
    let said = String::from_utf8(early.stderr)?;
    assert!(said.contains("run 'move stop' first"), "{said}");

    assert!(place.call("stop")?.status.success());
    assert_eq!(place.files()?, ["apiserver.yaml"], "what runs everywhere stays");
    let managed = Place::managed_in_the_example()?;
    assert_eq!(managed.len(), 2, "{managed:?}");
    for file in managed {
        assert_eq!(fs::read_to_string(place.root.path().join("kept").join(&file))?, file);
    }

    assert!(place.call("start")?.status.success());
    assert_eq!(place.files()?, ["apiserver.yaml", "podmaster.yaml"]);
    assert_eq!(fs::read_to_string(place.kubelet().join("podmaster.yaml"))?, "new");
    Ok(())
}

#[test]
fn a_podmaster_that_still_runs_is_waited_for_before_anything_of_its_is_removed() -> Outcome {
    let place = Place::new("b")?;
    let sleeper = place.root.path().join(&place.process);
    symlink("/bin/sleep", &sleeper)?;
    let mut command = Command::new(&sleeper);
    command.arg("3");
    let mut podmaster = Process::start("podmaster", place.root.path(), command)?;
    std::thread::scope(|scope| -> Outcome {
        let stopping = scope.spawn(|| place.call("stop"));
        let gone = || (!place.kubelet().join("podmaster.yaml").exists()).then_some(());
        eventually("the old pod manifest is taken out", PATIENCE, gone)?;
        let kept = place.kubelet().join("scheduler.yaml").exists();
        assert!(kept || podmaster.ended()?.is_some(), "removed while it still ran");
        // Asking reaps it: a zombie still has its name.
        eventually("podmaster's end", PATIENCE, || podmaster.ended().ok().flatten())?;
        assert!(stopping.join().expect("the script's thread")?.status.success());
        Ok(())
    })?;
    assert_eq!(place.files()?, ["apiserver.yaml"]);
    Ok(())
}
