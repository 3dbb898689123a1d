//! The examples with HAProxy and nginx, as Debian has them: how many requests fail, and for how long, through a planned
//! handover and through the death of the leader's machine.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use conclave_tests::address::Loopback;
use conclave_tests::etcd::{Etcd, Version};
use conclave_tests::kubelet::{Census, Habits, Kubelet, first_container};
use conclave_tests::node::Node;
use conclave_tests::process::Process;
use conclave_tests::{Outcome, PATIENCE, beside, binary, eventually, holds_for, scratch};
use serde_json::Value;
use tempfile::TempDir;

const POD: &str = "toy-scheduler";

/// How often the kubelets look, and what of the time around them is not in anybody's settings: processes that start, and
/// a busy machine.
const GLANCE: Duration = Duration::from_millis(200);
const SLACK: Duration = Duration::from_secs(4);

/// From the examples: the pod's grace period, HAProxy's slowest interval for a server that changes, the TTL, the delay.
const GRACE: Duration = Duration::from_secs(2);
const CHECK: Duration = Duration::from_millis(500);
const TTL: Duration = Duration::from_secs(3);
const TAKEOVER_DELAY: Duration = Duration::from_secs(1);

fn example(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/load-balancers").join(name)
}

/// The examples on addresses of their own.
struct Scene {
    load: Vec<(&'static str, Load)>,
    _proxies: Vec<Process>,
    kubelets: Vec<Option<Kubelet>>,
    nodes: Vec<Node>,
    census: Arc<Census>,
    etcd: Etcd,
    _addresses: [Loopback; 3],
    _dir: TempDir,
}

impl Scene {
    fn start() -> Result<Self> {
        let (etcd, dir) = (Etcd::start(Version::V3_4)?, scratch::directory("balancers")?);
        let addresses = [Loopback::claim()?, Loopback::claim()?, Loopback::claim()?];
        let [front, one, two] = &addresses;
        let places = [
            ("10.0.0.10", front.ip().to_string()),
            ("10.0.0.11", one.ip().to_string()),
            ("10.0.0.12", two.ip().to_string()),
            ("10.0.0.21:2379", etcd.address().to_string()),
        ];
        let fill = |name: &str| -> Result<String> {
            let text = fs::read_to_string(example(name))?;
            Ok(places.iter().fold(text, |text, (from, to)| text.replace(from, to)))
        };
        let census = Arc::new(Census::default());
        let (mut nodes, mut kubelets) = (Vec::new(), Vec::new());
        for (name, address) in [("master-1", one), ("master-2", two)] {
            let mut node = node(
                name,
                &fill("conclave.yaml")?.replace(&places[1].1, &address.ip().to_string()),
            )?;
            let habits = Habits { every: GLANCE, grace: GRACE, run: Arc::new(toy) };
            kubelets.push(Some(Kubelet::start(&node.destinations(), habits, &census)?));
            node.start()?;
            nodes.push(node);
        }
        let haproxy = dir.path().join("haproxy.cfg");
        fs::write(&haproxy, fill("haproxy.cfg")?)?;
        let mut command = beside::command("usr/sbin/haproxy")?;
        command.arg("-db").arg("-f").arg(&haproxy);
        let mut proxies = vec![Process::start("haproxy", dir.path(), command)?];
        fs::write(dir.path().join("nginx.conf"), beside::nginx_here(&fill("nginx.conf")?))?;
        let mut command = beside::command("usr/sbin/nginx")?;
        let here = "daemon off; master_process off; pid nginx.pid; error_log error.log; ";
        command.arg("-p").arg(dir.path()).args(["-c", "nginx.conf", "-e", "error.log", "-g", here]);
        proxies.push(Process::start("nginx", dir.path(), command)?);
        let load =
            vec![("HAProxy", Load::on(front.port(10251))), ("nginx", Load::on(front.port(10252)))];
        let scene = Scene {
            load,
            _proxies: proxies,
            kubelets,
            nodes,
            census,
            etcd,
            _addresses: addresses,
            _dir: dir,
        };
        scene.settle(None)?;
        Ok(scene)
    }

    /// Waits until the same node, another than this one, answers through both; returns its index.
    fn settle(&self, not: Option<usize>) -> Result<usize> {
        let answers = |load: &Load| match call(load.at).ok()?.as_str() {
            "master-1" => Some(0),
            "master-2" => Some(1),
            _ => None,
        };
        eventually("one node to answer through both", PATIENCE, || {
            let found: Vec<_> = self.load.iter().map(|(_, load)| answers(load)).collect();
            let one = found[0].filter(|_| found[0] == found[1])?;
            (Some(one) != not).then_some(one)
        })
    }

    /// What came of the requests since the last time, after a while in which all is well.
    fn failures(&self) -> Result<Vec<(&'static str, Failures)>> {
        holds_for("the service to be there", Duration::from_millis(500), || {
            self.load.iter().all(|(_, load)| call(load.at).is_ok())
        })?;
        Ok(self.load.iter().map(|(name, load)| (*name, load.take())).collect())
    }
}

/// A node as the example has it, with directories and a store of its own.
fn node(name: &str, text: &str) -> Result<Node> {
    let mut node = Node::new(name, serde_yaml::from_str(text)?)?;
    fs::copy(example("scheduler.yaml"), node.sources().join("scheduler.yaml"))?;
    let (source, destination) = (node.sources(), node.destinations());
    let manifest = &mut node.config()["elections"][0]["manifests"][0];
    assert_eq!(manifest["source"], "/srv/kubernetes/manifests/scheduler.yaml");
    assert_eq!(manifest["destination"], "/etc/kubernetes/manifests/");
    manifest["source"] = source.join("scheduler.yaml").to_string_lossy().into();
    manifest["destination"] = format!("{}/", destination.display()).into();
    Ok(node)
}

/// What the manifest's container runs, from where it lies here.
fn toy(manifest: &Value) -> std::process::Command {
    let mut manifest = manifest.clone();
    let script = &mut manifest["spec"]["containers"][0]["command"][1];
    let name = script.as_str().and_then(|path| Path::new(path).file_name()).unwrap_or_default();
    *script = example(&name.to_string_lossy()).to_string_lossy().into();
    first_container(&manifest)
}

/// A request, and who answered it, if anybody did.
struct Asked {
    began: Instant,
    ended: Instant,
    answer: Option<String>,
}

/// Requests that failed.
#[derive(Debug, Clone, Copy, Default)]
struct Failures {
    count: usize,
    of: usize,
    /// From the beginning of the first to the end of the last one.
    span: Duration,
}

/// A hundred requests a second, each on a connection of its own.
struct Load {
    at: SocketAddr,
    stop: Arc<AtomicBool>,
    outcomes: Arc<Mutex<Vec<Asked>>>,
    workers: Vec<JoinHandle<()>>,
}

impl Load {
    fn on(at: SocketAddr) -> Self {
        const WORKERS: u32 = 10;
        const PACE: Duration = Duration::from_millis(10 * WORKERS as u64);
        let stop = Arc::new(AtomicBool::new(false));
        let outcomes = Arc::new(Mutex::new(Vec::new()));
        let worker = |number: u32| {
            let (stop, outcomes) = (Arc::clone(&stop), Arc::clone(&outcomes));
            thread::spawn(move || {
                thread::sleep(PACE / WORKERS * number);
                while !stop.load(Ordering::Relaxed) {
                    let began = Instant::now();
                    let answer = call(at).ok();
                    let asked = Asked { began, ended: Instant::now(), answer };
                    outcomes.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
                    thread::sleep(PACE.saturating_sub(began.elapsed()));
                }
            })
        };
        let workers = (0..WORKERS).map(worker).collect();
        Load { at, stop, outcomes, workers }
    }

    fn take(&self) -> Failures {
        let outcomes =
            std::mem::take(&mut *self.outcomes.lock().unwrap_or_else(PoisonError::into_inner));
        never_back_and_forth(&outcomes);
        let failed: Vec<&Asked> = outcomes.iter().filter(|it| it.answer.is_none()).collect();
        let first = failed.iter().map(|it| it.began).min();
        let last = failed.iter().map(|it| it.ended).max();
        let span = first.zip(last).map_or(Duration::ZERO, |(first, last)| last - first);
        Failures { count: failed.len(), of: outcomes.len(), span }
    }
}

/// Between two looks the service moves once at most: when the next node has answered, nobody who asks later is
/// answered by the one before.
fn never_back_and_forth(outcomes: &[Asked]) {
    let mut answered: Vec<&Asked> = outcomes.iter().filter(|it| it.answer.is_some()).collect();
    answered.sort_by_key(|it| it.began);
    let Some(before) = answered.first().map(|it| &it.answer) else { return };
    let Some(moved) = answered.iter().filter(|it| it.answer != *before).map(|it| it.ended).min()
    else {
        return;
    };
    let late = answered.iter().any(|it| it.answer == *before && it.began > moved);
    assert!(!late, "{before:?} answered after another had taken its place");
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            // One that panicked has told so.
            let _ = worker.join();
        }
    }
}

/// Who answers.
fn call(at: SocketAddr) -> Result<String> {
    const LIMIT: Duration = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&at, LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let (head, body) = answer.split_once("\r\n\r\n").context("a head")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("{head}");
    }
    Ok(body.trim().to_owned())
}

#[test]
fn requests_fail_for_no_longer_than_a_check_and_the_handover() -> Outcome {
    let mut scene = Scene::start()?;
    let first = scene.settle(None)?;
    scene.failures()?;

    // The other one may have to become a candidate first; what is refused is not begun.
    let mut said = String::new();
    let moved = eventually("the handover to be accepted", PATIENCE, || {
        let mut command = std::process::Command::new(binary::conclave());
        command.args(["transfer", "scheduler", "--cluster", "schedulers"]);
        let output = command.args(["--endpoints", &scene.etcd.url()]).output().ok()?;
        said = String::from_utf8_lossy(&output.stderr).into_owned();
        output.status.success().then_some(())
    });
    moved.context(said)?;
    let second = scene.settle(Some(first))?;
    let planned = scene.failures()?;

    // A machine that is gone: guard, daemon, kubelet and pod.
    scene.nodes[second].kill()?;
    scene.kubelets[second] = None;
    scene.settle(Some(second))?;
    let crash = scene.failures()?;

    for (what, failures, longest) in [
        ("planned handover", planned, GRACE + 2 * GLANCE + 2 * CHECK + SLACK),
        ("crash", crash, TTL + TAKEOVER_DELAY + 2 * GLANCE + 2 * CHECK + SLACK),
    ] {
        for (proxy, Failures { count, of, span }) in failures {
            println!(
                "{what} behind {proxy}: {count} of {of} requests failed, over {} ms",
                span.as_millis()
            );
            assert!(span <= longest, "{what} behind {proxy}: {span:?}, not within {longest:?}");
        }
    }
    assert_eq!(scene.census.most(POD), 1, "never two schedulers");
    Ok(())
}
