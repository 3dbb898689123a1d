//! The guide for Kubernetes on Mesos: its commands as they stand, on two nodes whose kubelets take their time. What is
//! counted are processes, not files: with the guide's own settings there are never two schedulers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use conclave_tests::address::Loopback;
use conclave_tests::etcd::{Etcd, Version};
use conclave_tests::kubelet::{Census, Habits, Kubelet};
use conclave_tests::process::{Pid, Process};
use conclave_tests::proxy::{Mode, Proxy};
use conclave_tests::{Outcome, PATIENCE, beside, binary, eventually, scratch};
use serde_json::Value;
use tempfile::TempDir;

const SCHEDULER: &str = "kube-scheduler";
const MANAGER: &str = "kube-controller-manager";
const APISERVER: &str = "kube-apiserver";

/// The kubelets' habits, and the takeover delay that the guide derives from them.
const GLANCE: Duration = Duration::from_secs(1);
const GRACE: Duration = Duration::from_secs(1);
const TAKEOVER_DELAY: &str = "3s";
const TTL: &str = "2s";

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples").join(name)
}

/// The guide's commands that are marked with `<!-- run: NAME -->`.
fn commands(name: &str) -> Result<String> {
    let guide = fs::read_to_string(example("kubernetes-on-mesos/README.md"))?;
    let (_, after) =
        guide.split_once(&format!("<!-- run: {name} -->\n```sh\n")).context("a mark")?;
    let (commands, _) = after.split_once("```").context("the block's end")?;
    Ok(commands.to_owned())
}

/// A master: what it sees of the file system is its own, at the guide's very paths.
struct Master {
    name: &'static str,
    _kubelet: Kubelet,
    /// Lives in the mount namespace, and so keeps it.
    namespace: Process,
    link: Proxy,
    /// Its copy of the example.
    guide: PathBuf,
    _dir: TempDir,
}

impl Master {
    fn new(
        name: &'static str,
        etcd: &Etcd,
        addresses: [&Loopback; 3],
        census: &Arc<Census>,
    ) -> Result<Self> {
        let (dir, link) = (scratch::directory(name)?, Proxy::start(etcd.address())?);
        let guide = dir.path().join("guide");
        copy(&example("kubernetes-on-mesos"), &guide)?;
        let [one, two, nginx] = addresses.map(Loopback::ip);
        let own = if name == "one" { addresses[0] } else { addresses[1] };
        let env = fs::read_to_string(guide.join("cluster.env"))?;
        let mut env = replace(&env, "K8S_1_IP", &one.to_string())?;
        for (variable, value) in [
            ("K8S_2_IP", two.to_string()),
            ("NGINX_IP", nginx.to_string()),
            ("NGINX_APISERVER_PORT", "8081".to_owned()),
            ("NGINX_SCHEDULER_PORT", "8082".to_owned()),
            ("ETCD_IP", link.address().ip().to_string()),
            ("ETCD_PORT", link.address().port().to_string()),
            ("CONCLAVE_HTTP", own.port(8437).to_string()),
            ("TTL", TTL.to_owned()),
            ("TAKEOVER_DELAY", TAKEOVER_DELAY.to_owned()),
        ] {
            env = replace(&env, variable, &value)?;
        }
        fs::write(guide.join("cluster.env"), env)?;
        let programs = dir.path().join("bin");
        fs::create_dir(&programs)?;
        for program in ["conclave", "podmaster"] {
            symlink(binary::conclave(), programs.join(program))?;
        }
        let namespace = own_file_system(name, dir.path())?;
        let manifests = Path::new("/proc").join(namespace.pid().to_string());
        let run = containers(namespace.pid(), programs);
        let habits = Habits { every: GLANCE, grace: GRACE, run: Arc::new(run) };
        let kubelet =
            Kubelet::start(&manifests.join("root/etc/kubernetes/manifests"), habits, census)?;
        Ok(Master { name, _kubelet: kubelet, namespace, link, guide, _dir: dir })
    }

    /// Runs the guide's commands of this name.
    fn run(&self, name: &str) -> Result<String> {
        let own = if self.name == "one" { "K8S_1_IP" } else { "K8S_2_IP" };
        let text = format!(
            "cd '{}'\nPATH=\"$PWD/../bin:$PATH\"\n{}export MY_IP=${own}\n{}",
            self.guide.display(),
            commands("set up")?,
            commands(name)?,
        );
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--target", &self.namespace.pid().to_string()]);
        let output = command.args(["sh", "-eu", "-c", &text]).output()?;
        if !output.status.success() {
            bail!("{name} on {}: {}", self.name, String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Sets a variable in the guide's `cluster.env`.
fn replace(env: &str, variable: &str, value: &str) -> Result<String> {
    let start = format!("{variable}=");
    let old = env.lines().find(|line| line.starts_with(&start));
    let old = old.with_context(|| format!("{variable} in cluster.env"))?;
    Ok(env.replace(old, &format!("{start}{value}")))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let copied = Command::new("cp").arg("-r").arg(from).arg(to).status()?;
    if !copied.success() {
        bail!("cannot copy {}", from.display());
    }
    Ok(())
}

/// A process that sees directories of its own over /etc, /srv and /var/lib, and a memory disk of its own.
fn own_file_system(name: &str, directory: &Path) -> Result<Process> {
    // What is written is kept in memory: not every disk can lie over another one.
    let text = "mount --make-rprivate /; mount -t tmpfs none /dev/shm; \
        mkdir $0/own; mount -t tmpfs none $0/own; \
        for at in /etc /srv /var/lib; do \
            own=$0/own$at; mkdir -p $own/upper $own/work; \
            mount -t overlay overlay -o lowerdir=$at,upperdir=$own/upper,workdir=$own/work $at; \
        done; echo ready; exec sleep infinity";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-eu", "-c", text]).arg(directory);
    let process = Process::start(name, directory, command)?;
    eventually("a file system of its own", PATIENCE, || {
        process.output().ok()?.contains("ready").then_some(())
    })?;
    Ok(process)
}

/// What runs for a manifest: Conclave itself as its containers say, with their volumes where the host has them; and
/// stand-ins for the rest, of which only the scheduler is listened to.
fn containers(namespace: Pid, programs: PathBuf) -> impl Fn(&Value) -> Command + Send + Sync {
    move |manifest| match manifest["metadata"]["name"].as_str() {
        Some(SCHEDULER) => {
            let words = manifest["spec"]["containers"][0]["command"].as_array();
            let mut words = words.into_iter().flatten().filter_map(Value::as_str);
            let address = words.find_map(|word| word.strip_prefix("--address="));
            let mut command = Command::new("python3");
            command.arg(example("load-balancers/toy-scheduler.py"));
            command.args([address.unwrap_or_default(), "10251", "scheduler"]);
            command
        }
        Some(MANAGER | APISERVER) => {
            let mut command = Command::new("sleep");
            command.arg("1000");
            command
        }
        _ => {
            let all = manifest["spec"]["containers"].as_array();
            let started =
                all.into_iter().flatten().map(|it| format!("{} &", container(manifest, it)));
            let mut text = format!("PATH={}:$PATH; trap : TERM; ", programs.display());
            text.extend(started);
            // Once for the signal, and then for each to end.
            text.push_str(" wait; wait");
            let mut command = Command::new("nsenter");
            command.args(["--mount", "--target", &namespace.to_string(), "sh", "-c", &text]);
            command
        }
    }
}

/// A container's command on the host itself.
fn container(manifest: &Value, container: &Value) -> String {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let host_path = |mount: &Value| {
        let volumes = list(&manifest["spec"]["volumes"]);
        let volume = volumes.into_iter().find(|volume| volume["name"] == mount["name"])?;
        Some(volume["hostPath"]["path"].as_str()?.to_owned())
    };
    let words = list(&container["command"]);
    let words: Vec<&str> = words.iter().filter_map(Value::as_str).collect();
    let mut text = words.join(" ").trim_start_matches('/').to_owned();
    for mount in list(&container["volumeMounts"]) {
        if let (Some(inside), Some(outside)) = (mount["mountPath"].as_str(), host_path(&mount)) {
            text = text.replace(inside, &outside);
        }
    }
    text
}

/// Waits until so many pods of each name run.
fn wait_for(census: &Census, what: &str, counts: [(&str, usize); 3]) -> Outcome {
    eventually(what, PATIENCE * 2, || {
        counts.iter().all(|(name, count)| census.running(name) == *count).then_some(())
    })
    .with_context(|| format!("{:?}", counts.map(|(name, _)| (name, census.running(name)))))?;
    Ok(())
}

#[test]
fn the_guide_works_as_it_stands_and_never_runs_two_schedulers() -> Outcome {
    let etcd = Etcd::start(Version::V3_4)?;
    let addresses = [Loopback::claim()?, Loopback::claim()?, Loopback::claim()?];
    let [one, two, nginx] = &addresses;
    let census = Arc::new(Census::default());
    let masters = [
        Master::new("one", &etcd, [one, two, nginx], &census)?,
        Master::new("two", &etcd, [one, two, nginx], &census)?,
    ];
    let led = [(SCHEDULER, 1), (MANAGER, 1), (APISERVER, 2)];

    // With podmaster's own pod.
    for step in ["directories", "podmaster"] {
        masters.iter().try_for_each(|master| master.run(step).map(drop))?;
    }
    wait_for(&census, "podmaster's pods to run", led)?;
    masters.iter().try_for_each(|master| master.run("leave podmaster").map(drop))?;
    wait_for(&census, "nothing to run", led.map(|(name, _)| (name, 0)))?;

    // With Conclave's own configuration. Podmaster's mode has no word for pods that end; this has.
    census.begin_anew();
    masters.iter().try_for_each(|master| master.run("native").map(drop))?;
    wait_for(&census, "Conclave's pods to run", led)?;
    masters[0].run("nginx")?;
    check_nginx(&masters[0].guide)?;
    for master in &masters {
        eventually("the verification to pass", PATIENCE, || master.run("verify").ok())?;
    }
    let holder = |master: &Master| -> Result<String> {
        let status = master.run("verify")?;
        let line = status.lines().find(|line| line.contains("holder in store:"));
        Ok(line.context("a holder")?.split([':', ',']).nth(1).unwrap_or_default().trim().to_owned())
    };
    let before = holder(&masters[0])?;
    let moved = masters[0].run("move")?;
    assert!(moved.contains("moved from"), "{moved}");
    wait_for(&census, "the pods to have moved", led)?;
    let after = holder(&masters[0])?;
    assert_ne!(before, after);

    // The leader is cut off: its kubelet and its pods go on until it withdraws, and then for a look and a grace period.
    let at = usize::from(after == two.ip().to_string());
    masters[at].link.set(Mode::BlackHole)?;
    eventually("the other one to take over", PATIENCE * 2, || {
        (holder(&masters[1 - at]).ok()? == before).then_some(())
    })?;
    wait_for(&census, "the pods to run on the other one", led)?;
    for name in [SCHEDULER, MANAGER] {
        assert_eq!(census.most(name), 1, "never two of {name}");
    }
    Ok(())
}

/// Whether nginx takes the configuration that the guide makes.
fn check_nginx(guide: &Path) -> Outcome {
    let filled = fs::read_to_string(guide.join("nginx.filled.conf"))?;
    assert!(!filled.contains("${"), "{filled}");
    fs::write(guide.join("nginx.here.conf"), beside::nginx_here(&filled))?;
    let mut command = beside::command("usr/sbin/nginx")?;
    command.arg("-t").arg("-p").arg(guide).args(["-c", "nginx.here.conf", "-e", "stderr"]);
    let output = command.args(["-g", "pid nginx.pid;"]).output()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
