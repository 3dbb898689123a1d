//! The script that moves a node from podmaster to conclave's podmaster mode, and the guide around it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use conclave_tests::etcd::{Etcd, Version};
use conclave_tests::kubelet::{Census, Habits, Kubelet};
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
        fs::create_dir(place.root.path().join("sources"))?;
        for file in Place::managed_in_the_example()? {
            fs::write(place.root.path().join("sources").join(&file), "source")?;
        }
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
            .env("SOURCES", self.root.path().join("sources"))
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

    let early = place.call("stop")?;
    let said = String::from_utf8(early.stderr)?;
    assert!(!early.status.success() && said.contains("run 'move hold'"), "{said}");
    assert!(place.call("hold")?.status.success());
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
    assert!(place.call("hold")?.status.success());
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

/// The guide's commands that are marked with `<!-- run: NAME -->`.
fn commands(name: &str) -> Result<String> {
    let guide = fs::read_to_string(example("from-podmaster/README.md"))?;
    let (_, after) =
        guide.split_once(&format!("<!-- run: {name} -->\n```sh\n")).context("a mark")?;
    Ok(after.split_once("```").context("the block's end")?.0.to_owned())
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// Behaves as podmaster does: whoever has a lock copies its manifest again and again, and leaves it when it ends. What
/// stands for etcd's lock is a directory that all see; it is let go of some time after its holder ended.
const OLD_PODMASTER: &str = r#"#!/bin/sh
lock=$1 source=$2 dest=$3
trap 'exit 0' TERM
while :; do
    if mkdir "$lock" 2>/dev/null; then echo $$ >"$lock/holder"; fi
    holder=$(cat "$lock/holder" 2>/dev/null || echo 0)
    if [ "$holder" = $$ ]; then
        cp "$source" "$dest"
    elif [ "$holder" != 0 ] && ! kill -0 "$holder" 2>/dev/null; then
        rm -rf "$lock"
    fi
    sleep 0.1
done
"#;

/// A node that an old podmaster runs on.
struct OldNode {
    _kubelet: Kubelet,
    root: tempfile::TempDir,
    process: String,
    etcd: String,
}

impl OldNode {
    fn new(name: &str, locks: &Path, etcd: &str, census: &Arc<Census>) -> Result<Self> {
        let root = scratch::directory(name)?;
        for directory in ["manifests", "sources", "bin"] {
            fs::create_dir(root.path().join(directory))?;
        }
        // As on a machine of its own, no other process has this name; the kernel keeps fifteen characters.
        let process = format!("{name}{}", std::process::id());
        let program = root.path().join("bin").join(&process);
        fs::write(&program, OLD_PODMASTER)?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
        symlink(conclave_tests::binary::conclave(), root.path().join("bin/podmaster"))?;
        symlink(conclave_tests::binary::conclave(), root.path().join("bin/conclave"))?;
        for pod in ["scheduler", "controller-mgr"] {
            let text = format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {pod}}}\n");
            fs::write(root.path().join("sources").join(format!("{pod}.yaml")), text)?;
        }
        let node = |which: &str, command: String| {
            format!("apiVersion: v1\nkind: Pod\nmetadata: {{name: {which}}}\ncommand: |\n{command}")
        };
        let at = root.path().display();
        let old = ["scheduler", "controller-mgr"].map(|pod| {
            format!(
                "  exec {} {}/{pod} {at}/sources/{pod}.yaml {at}/manifests/{pod}.yaml &\n",
                program.display(),
                locks.display()
            )
        });
        let new = [("scheduler", "scheduler"), ("controller-mgr", "controller")].map(|(pod, key)| {
            format!(
                "  {at}/bin/podmaster --etcd-servers={etcd} --key={key} --whoami={name} --ttl-secs=2 --sleep=500ms \
                 --source-file={at}/sources/{pod}.yaml --dest-file={at}/manifests/{pod}.yaml &\n"
            )
        });
        fs::write(
            root.path().join("manifests/podmaster.yaml"),
            node("old-podmaster", old.concat()),
        )?;
        fs::write(root.path().join("podmaster.yaml"), node("new-podmaster", new.concat()))?;
        let run = |manifest: &serde_json::Value| {
            let mut command = Command::new("sh");
            match manifest["command"].as_str() {
                Some(text) => command.arg("-c").arg(format!("trap : TERM\n{text}wait; wait")),
                None => command.args(["-c", "exec sleep 1000"]),
            };
            command
        };
        let habits = Habits {
            every: Duration::from_millis(300),
            grace: Duration::from_secs(5),
            run: Arc::new(run),
        };
        let kubelet = Kubelet::start(&root.path().join("manifests"), habits, census)?;
        Ok(OldNode { _kubelet: kubelet, root, process, etcd: etcd.to_owned() })
    }

    fn run(&self, step: &str) -> Result<Output> {
        let path = format!("{}:{}", self.root.path().join("bin").display(), std::env::var("PATH")?);
        Command::new("sh")
            .args(["-eu", "-c", &commands(step)?])
            .current_dir(example("from-podmaster"))
            .env("KUBELET_DIR", self.root.path().join("manifests"))
            .env("SOURCES", self.root.path().join("sources"))
            .env("NEW", self.root.path().join("podmaster.yaml"))
            .env("KEEP", self.root.path().join("kept"))
            .env("PROCESS", &self.process)
            .env("ETCD", &self.etcd)
            .env("PATH", path)
            .output()
            .context("cannot run the guide's commands")
    }

    fn must(&self, step: &str) -> Outcome {
        let output = self.run(step)?;
        assert!(output.status.success(), "{step}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

#[test]
fn by_the_guide_nodes_move_without_anything_running_twice_and_can_go_back() -> Outcome {
    let (etcd, census) = (Etcd::start(Version::V3_4)?, Arc::new(Census::default()));
    let locks = scratch::directory("locks")?;
    let nodes = [
        OldNode::new("oldone", locks.path(), &etcd.url(), &census)?,
        OldNode::new("oldtwo", locks.path(), &etcd.url(), &census)?,
    ];
    let runs = |podmaster: &str| -> Outcome {
        eventually(&format!("{podmaster} on both, and what it manages"), PATIENCE, || {
            let counts = [(podmaster, 2), ("scheduler", 1), ("controller-mgr", 1)];
            counts.iter().all(|(name, count)| census.running(name) == *count).then_some(())
        })?;
        Ok(())
    };
    let nothing_runs = |podmaster: &str| -> Outcome {
        eventually(&format!("nothing of {podmaster} to run"), PATIENCE, || {
            let names = [podmaster, "scheduler", "controller-mgr"];
            names.iter().all(|name| census.running(name) == 0).then_some(())
        })?;
        Ok(())
    };
    runs("old-podmaster")?;
    // One that begins with the second step is refused.
    assert!(!nodes[0].run("start")?.status.success());
    assert!(!nodes[0].run("stop")?.status.success());
    nodes.iter().try_for_each(|node| node.must("hold"))?;
    nodes.iter().try_for_each(|node| node.must("stop"))?;
    nothing_runs("old-podmaster")?;
    nodes.iter().try_for_each(|node| node.must("start"))?;
    runs("new-podmaster")?;
    nodes[1].must("check")?;
    for name in ["scheduler", "controller-mgr"] {
        assert_eq!(census.most(name), 1, "never two of {name}");
    }

    nodes.iter().try_for_each(|node| node.must("back stop"))?;
    nothing_runs("new-podmaster")?;
    nodes.iter().try_for_each(|node| node.must("back start"))?;
    runs("old-podmaster")?;
    Ok(())
}
