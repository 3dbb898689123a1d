//! The packages: the Debian package installed, upgraded, removed; the container's root with the commands of the pods that
//! run in it; and a node as a user of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail};
use conclave_tests::etcd::{Etcd, Version};
use conclave_tests::node::scheduler_node;
use conclave_tests::process::{Process, Signal};
use conclave_tests::{Outcome, PATIENCE, binary, eventually, pod, scratch};
use serde_json::Value;
use tempfile::TempDir;

fn repository(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn run(command: &mut Command) -> Result<Output> {
    let output = command.output().with_context(|| format!("{:?}", command.get_program()))?;
    if !output.status.success() {
        let said = [output.stdout, output.stderr].concat();
        bail!(
            "{:?} {:?}: {}",
            command.get_program(),
            command.get_args(),
            String::from_utf8_lossy(&said)
        );
    }
    Ok(output)
}

/// Builds the Debian package of the program under test; without compressing it, which takes its time.
fn build(version: &str, out: &Path) -> Result<PathBuf> {
    let mut command = Command::new(repository("packaging/deb/build"));
    command
        .args(["--version", version])
        .arg("--binary")
        .arg(binary::conclave())
        .arg("--out")
        .arg(out);
    let output = run(command.env("DPKG_DEB_COMPRESSOR_TYPE", "none"))?;
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// A machine with nothing on it, as dpkg sees it.
struct Machine(TempDir);

impl Machine {
    fn new() -> Result<Self> {
        let root = scratch::directory("machine")?;
        for directory in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/dpkg/triggers"] {
            fs::create_dir_all(root.path().join(directory))?;
        }
        for file in ["status", "available"] {
            fs::write(root.path().join("var/lib/dpkg").join(file), "")?;
        }
        Ok(Machine(root))
    }

    fn dpkg(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", self.0.path().display()));
        // Its dependencies are the real machine's, and its scripts run there, told by DPKG_ROOT where.
        command.args(["--force-depends", "--force-not-root", "--force-script-chrootless"]);
        command.args(["--force-confold", "--log=/dev/null"]).args(arguments);
        run(&mut command)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }
}

#[test]
fn the_debian_package_is_installed_upgraded_and_removed() -> Outcome {
    let (out, machine) = (scratch::directory("deb")?, Machine::new()?);
    let (old, new) = (build("0.1.0", out.path())?, build("0.1.1", out.path())?);
    let text = |path: &Path| path.to_string_lossy().into_owned();
    machine.dpkg(&["--install", &text(&old)])?;
    let program = machine.path("usr/bin/conclave");
    let version = run(Command::new(&program).arg("--version"))?;
    assert!(String::from_utf8(version.stdout)?.starts_with("conclave "));
    for path in [
        "usr/lib/systemd/system/conclave.service",
        "usr/lib/systemd/system/conclave-clean.service",
        "usr/share/man/man1/conclave.1.gz",
        "usr/share/man/man1/conclave-transfer.1.gz",
        "usr/share/bash-completion/completions/conclave",
        "usr/share/zsh/vendor-completions/_conclave",
        "etc/conclave/policies",
    ] {
        assert!(machine.path(path).exists(), "{path}");
    }
    let unit = fs::read_to_string(machine.path("usr/lib/systemd/system/conclave.service"))?;
    assert!(unit.contains("ExecStart=/usr/bin/conclave") && !unit.contains("/usr/local"), "{unit}");
    let state = machine.path("var/lib/conclave");
    assert_eq!(fs::metadata(&state)?.permissions().mode() & 0o777, 0o700);

    // An edited configuration stays, and so does what a node keeps.
    let config = machine.path("etc/conclave/conclave.yaml");
    fs::write(&config, "cluster: mine\n")?;
    fs::write(state.join("memory.json.kept"), "kept")?;
    machine.dpkg(&["--install", &text(&new)])?;
    assert_eq!(fs::read_to_string(&config)?, "cluster: mine\n");
    assert!(state.join("memory.json.kept").exists());
    machine.dpkg(&["--remove", "conclave"])?;
    assert!(!program.exists() && config.exists());
    machine.dpkg(&["--purge", "conclave"])?;
    assert!(!config.exists() && !state.exists());
    Ok(())
}

#[test]
fn the_package_is_not_removed_from_under_what_is_in_place() -> Outcome {
    let (out, machine) = (scratch::directory("deb")?, Machine::new()?);
    machine.dpkg(&["--install", &build("0.1.0", out.path())?.to_string_lossy()])?;
    // A node by that state directory leads, and is then dead with everything in place.
    let store = out.path().join("store.db");
    let state = machine.path("var/lib/conclave");
    let mut node = scheduler_node("a", "packaging", &store, |_| {})?;
    node.config()["state_directory"] = state.to_string_lossy().into();
    node.start()?;
    let placed = node.destinations().join(pod::SCHEDULER);
    eventually("the manifest", PATIENCE, || placed.exists().then_some(()))?;
    assert!(machine.dpkg(&["--remove", "conclave"]).is_err(), "it runs");
    assert!(placed.exists() && machine.path("usr/bin/conclave").exists());
    node.kill()?;
    machine.dpkg(&["--remove", "conclave"])?;
    assert!(!placed.exists(), "withdrawn before the program went");
    Ok(())
}

#[test]
fn the_same_program_gives_the_same_package() -> Outcome {
    let (one, two) = (scratch::directory("deb")?, scratch::directory("deb")?);
    let packages = [build("0.1.0", one.path())?, build("0.1.0", two.path())?];
    assert!(run(Command::new("cmp").args(&packages))?.status.success());
    Ok(())
}

/// A container's root, and how to run something in it as a container runtime does.
struct Container(TempDir);

impl Container {
    fn new() -> Result<Self> {
        let root = scratch::directory("container")?;
        run(Command::new(repository("packaging/container/root"))
            .arg(root.path())
            .arg(binary::conclave()))?;
        Ok(Container(root))
    }

    /// A command with directories of the host mounted.
    fn command(&self, mounts: &[(&Path, &str)], words: &[String]) -> Result<Command> {
        let root = self.0.path();
        let mut text = format!(
            "mount -t proc proc {root}/proc; mount -t tmpfs none {root}/tmp; mount -t tmpfs none {root}/dev; \
             mkdir {root}/dev/shm; touch {root}/dev/null; mount --bind /dev/null {root}/dev/null; ",
            root = root.display()
        );
        for (outside, inside) in mounts {
            let inside = root.join(inside.trim_start_matches('/'));
            fs::create_dir_all(&inside)?;
            text.push_str(&format!("mount --bind {} {}; ", outside.display(), inside.display()));
        }
        text.push_str("exec chroot \"$0\" \"$@\"");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "sh", "-eu", "-c", &text]);
        command.arg(root).args(words);
        Ok(command)
    }
}

/// The commands of a pod's containers.
fn commands(manifest: &str) -> Result<Vec<Vec<String>>> {
    let manifest: Value = serde_yaml::from_str(&fs::read_to_string(repository(manifest))?)?;
    let words = |container: &Value| {
        let words = container["command"].as_array().cloned().unwrap_or_default();
        words.iter().filter_map(|word| Some(word.as_str()?.to_owned())).collect()
    };
    let containers = manifest["spec"]["containers"].as_array().context("containers")?;
    Ok(containers.iter().map(words).collect())
}

#[test]
fn the_containers_root_runs_podmasters_very_commands() -> Outcome {
    let (etcd, container) = (Etcd::start(Version::V3_4)?, Container::new()?);
    let place = scratch::directory("podmaster")?;
    let [src, dst] = ["src", "dst"].map(|name| place.path().join(name));
    for directory in [&src, &dst] {
        fs::create_dir(directory)?;
    }
    let commands = commands("examples/reference/podmaster.yaml")?;
    assert_eq!(commands.len(), 2);
    let mut pods = Vec::new();
    for (words, file) in commands.into_iter().zip(["scheduler.yaml", "controller-mgr.yaml"]) {
        fs::copy(repository("examples/reference").join(file), src.join(file))?;
        // The addresses are the example's: everything else stays as it is.
        let url = etcd.url();
        let words: Vec<String> =
            words.iter().map(|word| word.replace("http://192.168.0.2:4001", &url)).collect();
        let mounts = [(&*src, "/src/manifests"), (&*dst, "/dst/manifests")];
        let pod = Process::start(file, place.path(), container.command(&mounts, &words)?)?;
        eventually(file, PATIENCE, || dst.join(file).exists().then_some(()))?;
        pods.push((pod, file));
    }
    for (pod, file) in &mut pods {
        // What a runtime signals is the container's first process.
        let first = eventually("the container", PATIENCE, || pod.children().first().copied())?;
        conclave_tests::process::send(first, Signal::TERM)?;
        assert_eq!(pod.wait(PATIENCE)?.code(), Some(0));
        assert!(!dst.join(*file).exists(), "{file} is withdrawn");
    }
    Ok(())
}

#[test]
fn the_containers_root_runs_conclaves_own_pod() -> Outcome {
    let (etcd, container) = (Etcd::start(Version::V3_4)?, Container::new()?);
    let place = scratch::directory("pod")?;
    let [src, dst, config, state] =
        ["src", "dst", "config", "state"].map(|name| place.path().join(name));
    for directory in [&src, &dst, &config, &state] {
        fs::create_dir(directory)?;
    }
    pod::copy(pod::SCHEDULER, &src)?;
    let text = format!(
        "{{cluster: pod, node: {{name: a}}, store: {{etcd: {{endpoints: [\"{}\"]}}}}, elections: [{{name: masters, \
         overlap: accepted, manifests: [{{source: /srv/kubernetes/manifests/{file}, destination: \
         /etc/kubernetes/manifests/}}]}}]}}",
        etcd.url(),
        file = pod::SCHEDULER,
    );
    fs::write(config.join("conclave.yaml"), text)?;
    let words = commands("examples/kubernetes-on-mesos/native/conclave-pod.yaml")?.remove(0);
    let mounts = [
        (&*config, "/etc/conclave"),
        (&*src, "/srv/kubernetes/manifests"),
        (&*dst, "/etc/kubernetes/manifests"),
        (&*state, "/var/lib/conclave"),
    ];
    let mut pod = Process::start("pod", place.path(), container.command(&mounts, &words)?)?;
    let placed = dst.join(pod::SCHEDULER);
    eventually("the manifest", PATIENCE, || placed.exists().then_some(()))?;

    // The machine loses its power; before its kubelet starts again the host cleans up, with nothing but the state.
    pod.kill_family()?;
    assert!(placed.exists(), "nobody withdrew it");
    let clean = ["/conclave", "clean", "--state-dir", "/var/lib/conclave"].map(str::to_owned);
    run(&mut container.command(&mounts, &clean)?)?;
    assert!(!placed.exists(), "a kubelet would have found it");
    Ok(())
}

#[test]
fn a_node_needs_no_root() -> Outcome {
    const NOBODY: u32 = 65_534;
    let store = scratch::directory("unprivileged")?;
    let mut node = scheduler_node("a", "unprivileged", &store.path().join("store.db"), |_| {})?;
    node.write_config()?;
    let own = |path: &Path| {
        run(Command::new("chown").arg("-R").arg(format!("{NOBODY}:{NOBODY}")).arg(path))
    };
    own(node.root())?;
    own(store.path())?;
    // Directories of the tests are private to who runs them.
    let above = node.root().parent().context("a parent")?.to_owned();
    fs::set_permissions(&above, fs::Permissions::from_mode(0o711))?;
    let program = node.root().join("conclave");
    binary::install_at(&program)?;
    node.start_as(|usual| {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            &NOBODY.to_string(),
            "--regid",
            &NOBODY.to_string(),
            "--clear-groups",
        ]);
        command.args(["--no-new-privs", "--"]).arg(&program).args(usual.get_args());
        if let Some(directory) = usual.get_current_dir() {
            command.current_dir(directory);
        }
        command
    })?;
    let placed = node.destinations().join(pod::SCHEDULER);
    eventually("the manifest", PATIENCE, || placed.exists().then_some(()))?;
    assert_eq!(node.stop()?.code(), Some(0));
    assert!(!placed.exists());
    Ok(())
}
