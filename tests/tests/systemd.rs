//! The service units in `examples/systemd`, each line of theirs that runs something run as it says,
//! and what a service manager is told.

use std::collections::BTreeMap;
use std::fs;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use conclave_tests::cluster::{Cluster, Plan};
use conclave_tests::node::TTL;
use conclave_tests::pod::{API_SERVER, EXCLUSIVE};
use conclave_tests::process::{Signal, send};
use conclave_tests::{Outcome, PATIENCE, binary, eventually};

/// Where the units expect things.
const PROGRAM: &str = "/usr/local/bin/conclave";
const CONFIG: &str = "/etc/conclave/conclave.yaml";

/// A unit's settings, by section and name; names may repeat.
struct Unit(BTreeMap<(String, String), Vec<String>>);

impl Unit {
    fn read(name: &str) -> Result<Self> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/systemd");
        let text = fs::read_to_string(directory.join(name)).context(name.to_owned())?;
        let (mut settings, mut section) = (BTreeMap::<_, Vec<_>>::new(), String::new());
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                section = name.to_owned();
                continue;
            }
            let (key, value) = line.split_once('=').with_context(|| format!("{name}: {line}"))?;
            settings.entry((section.clone(), key.to_owned())).or_default().push(value.to_owned());
        }
        Ok(Unit(settings))
    }

    /// The one value of a setting.
    fn get(&self, section: &str, name: &str) -> Result<&str> {
        let values = self.0.get(&(section.to_owned(), name.to_owned()));
        match values.map(Vec::as_slice) {
            Some([value]) => Ok(value),
            other => anyhow::bail!("[{section}] {name}: {other:?}"),
        }
    }

    /// What a line runs, with a node's own program, configuration and main process.
    fn command(&self, name: &str, config: &Path, main: Option<i32>) -> Result<Command> {
        let line = self.get("Service", name)?;
        let config = config.to_str().context("a path of text")?;
        let pid = main.map(|pid| pid.to_string()).unwrap_or_default();
        let mut words = line.split_whitespace().map(|word| match word {
            PROGRAM => binary::conclave().to_str().unwrap_or_default(),
            CONFIG => config,
            "$MAINPID" => &pid,
            word => word,
        });
        let mut command = Command::new(words.next().context("a program")?);
        command.args(words);
        Ok(command)
    }
}

/// A service manager's end of the conversation. It listens all the time, as one does: a socket
/// that nobody reads from is soon full.
struct Manager {
    words: Receiver<String>,
    name: String,
}

impl Manager {
    fn listen(cluster: &mut Cluster) -> Result<Self> {
        // Unique, because the node's directory is.
        let name = cluster.node("a").root().join("notify").display().to_string();
        let socket = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name)?)?;
        let (heard, words) = mpsc::channel();
        // Ends with the test's process.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(len) = socket.recv(&mut buffer) {
                let word = String::from_utf8_lossy(&buffer[..len]).into_owned();
                if heard.send(word).is_err() {
                    return;
                }
            }
        });
        Ok(Manager { words, name: format!("@{name}") })
    }

    fn next(&self, within: Duration) -> Option<String> {
        self.words.recv_timeout(within).ok()
    }

    /// Waits until it is told something that begins like this.
    fn await_word(&self, start: &str) -> Result<String> {
        let began = Instant::now();
        let mut told = Vec::new();
        while began.elapsed() < PATIENCE {
            let word = self.next(Duration::from_secs(1)).unwrap_or_default();
            if word.starts_with(start) {
                return Ok(word);
            }
            told.push(word);
        }
        anyhow::bail!("never told {start}, but {told:?}")
    }
}

#[test]
fn the_service_runs_as_its_unit_says() -> Outcome {
    let unit = Unit::read("conclave.service")?;
    let mut cluster = Cluster::prepare(&["a", "b"], &Plan::default())?;
    let manager = Manager::listen(&mut cluster)?;
    let config = cluster.node("a").write_config()?;
    assert_eq!(unit.get("Service", "Type")?, "notify");
    let watchdog: u64 = unit.get("Service", "WatchdogSec")?.trim_end_matches('s').parse()?;
    let mut start = unit.command("ExecStart", &config, None)?;
    start
        .current_dir(cluster.node("a").root())
        .env("NOTIFY_SOCKET", &manager.name)
        .env("WATCHDOG_USEC", (watchdog * 1_000_000).to_string());
    cluster.node("a").start_as(|_| start)?;
    manager.await_word("READY=1")?;
    cluster.node("b").start()?;
    cluster.settle()?;
    let term = cluster.term()?.expect("a term");
    let leader = cluster.leader()?;

    // systemctl reload
    let (guard, daemon) = (cluster.node("a").guard()?.pid(), cluster.node("a").daemon()?);
    let mut reload = unit.command("ExecReload", &config, Some(guard.as_raw_nonzero().get()))?;
    assert!(reload.status()?.success());
    cluster.node("a").daemon_replaced(daemon)?;
    cluster.leads_for(&leader, TTL * 2)?;
    assert_eq!(cluster.term()?.expect("a term").token, term.token);

    // While it runs there is nothing to clean up after.
    let clean = Unit::read("conclave-clean.service")?;
    let refused = clean.get("Service", "SuccessExitStatus")?.parse()?;
    let status = clean.command("ExecStart", &config, None)?.status()?;
    assert_eq!(status.code(), Some(refused));

    // systemctl stop
    assert_eq!(cluster.node("a").stop()?.code(), Some(0));
    manager.await_word("STOPPING=1")?;
    assert!(unit.command("ExecStopPost", &config, None)?.status()?.success());
    cluster.finish()?;
    Ok(())
}

#[test]
fn what_a_killed_unit_left_is_withdrawn_after_it_and_before_the_kubelet() -> Outcome {
    let service = Unit::read("conclave.service")?;
    let clean = Unit::read("conclave-clean.service")?;
    for (unit, line) in [(&service, "ExecStopPost"), (&clean, "ExecStart")] {
        let mut cluster = Cluster::prepare(&["a"], &Plan::default())?;
        cluster.node("a").start()?;
        cluster.settle()?;
        cluster.node("a").kill()?;
        cluster.etcd[0].kill()?;
        assert_eq!(cluster.observer.holders(&EXCLUSIVE), ["a"]);
        let config = cluster.node("a").write_config()?;
        assert!(unit.command(line, &config, None)?.status()?.success(), "{line}");
        cluster.observer.wait_for_nobody(&EXCLUSIVE)?;
        assert_eq!(cluster.observer.holders(&[API_SERVER]), ["a"]);
    }
    let before = clean.get("Unit", "Before")?;
    assert!(before.split_whitespace().any(|unit| unit == "kubelet.service"), "{before}");
    let after = service.get("Unit", "After")?;
    assert!(after.split_whitespace().any(|unit| unit == "conclave-clean.service"), "{after}");
    Ok(())
}

#[test]
fn final_exit_codes_are_not_tried_again() -> Outcome {
    let unit = Unit::read("conclave.service")?;
    assert_eq!(unit.get("Service", "Restart")?, "always");
    let prevented = unit.get("Service", "RestartPreventExitStatus")?;
    // The codes for which the program's own help says that starting again does not help.
    let help = Command::new(binary::conclave()).arg("--help").output()?;
    let help =
        String::from_utf8_lossy(&help.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
    for (code, meaning) in [
        (2, "2 the call or the configuration is wrong, and starting again will not help"),
        (3, "3 another live daemon has this node's name"),
        (4, "4 the store is another one"),
    ] {
        assert!(help.contains(meaning), "{help}");
        assert!(prevented.split_whitespace().any(|word| word == code.to_string()), "{prevented}");
    }
    Ok(())
}

#[test]
fn a_service_manager_hears_of_a_node_and_misses_its_beats() -> Outcome {
    let mut cluster = Cluster::prepare(&["a"], &Plan { ttl: "60s", ..Plan::default() })?;
    let manager = Manager::listen(&mut cluster)?;
    let name = manager.name.clone();
    // A sign of life every second.
    cluster.node("a").start_as(|mut command| {
        command.env("NOTIFY_SOCKET", name).env("WATCHDOG_USEC", "3000000");
        command
    })?;
    manager.await_word("READY=1")?;
    manager.await_word("STATUS=daemon")?;
    cluster.settle()?;
    let status = eventually("its effects to be told", PATIENCE, || {
        manager.await_word("STATUS=").ok().filter(|status| status.contains("2 exclusive effects"))
    })?;
    let daemon = cluster.node("a").daemon()?;
    assert!(status.contains(&daemon.as_raw_nonzero().to_string()), "{status}");
    for _ in 0..3 {
        manager.await_word("WATCHDOG=1")?;
    }

    // A daemon that does not move is no node that lives; the guard alone is not enough.
    send(daemon, Signal::STOP)?;
    let stopped = Instant::now();
    let mut signs = 0;
    while stopped.elapsed() < Duration::from_secs(5) {
        signs +=
            usize::from(manager.next(Duration::from_millis(100)).as_deref() == Some("WATCHDOG=1"));
    }
    assert!(signs <= 2, "one may have been under way, and one due: {signs}");
    send(daemon, Signal::CONT)?;
    manager.await_word("WATCHDOG=1")?;
    assert_eq!(cluster.node("a").stop()?.code(), Some(0));
    manager.await_word("STOPPING=1")?;
    cluster.finish()?;
    Ok(())
}
