//! Podmaster's command line, as Conclave takes it.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use conclave_tests::etcd;
use conclave_tests::podmaster::{FILE, Group, LONG, Place, SHORT};
use conclave_tests::process::{Process, Signal};
use conclave_tests::proxy::{Mode, Proxy};
use conclave_tests::v2_server::V2Server;
use conclave_tests::{Outcome, PATIENCE, binary, eventually, pod, scratch};

#[test]
fn several_servers_may_include_a_dead_one() -> Outcome {
    let etcd = etcd::shared();
    let mut group = Group::new("several", &["a"])?;
    let dead = Proxy::start(etcd.address())?;
    dead.set(Mode::Refuse)?;
    let servers = format!("{},{}", dead.url(), etcd.url());
    group.start("a", &servers, LONG)?;
    group.leader()?;
    group.finish()?;
    Ok(())
}

/// Runs the binary under a name, to its end.
fn run(program: &Path, arguments: &[&str]) -> Result<Output> {
    Command::new(program).args(arguments).output().context("run the binary")
}

fn refusal(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = run(program, arguments)?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(2), "{:?}: {said}", output.status);
    ensure!(output.stdout.is_empty(), "words belong on the error stream");
    Ok(said)
}

#[test]
fn the_command_line_is_podmasters() -> Outcome {
    let etcd = etcd::shared();
    let place = Place::new("flags")?;
    let (source, destination) = (place.source(), place.destination());
    let url = etcd.url();
    // Under its old name, as in a container whose image alone was changed.
    let program = place.root().join("podmaster");
    symlink(binary::conclave(), &program)?;
    let mut command = Command::new(&program);
    command
        .args(["-etcd-servers", &url, "--key", "flags", "-ttl-secs=600", "--sleep", "1m30s"])
        .args(["--whoami=flags", "--v=2", "--logtostderr", "-alsologtostderr=true"])
        .arg("-source-file")
        .arg(&source)
        .arg("--dest-file")
        .arg(&destination);
    let mut process = Process::start("podmaster", place.root(), command)?;
    eventually("the manifest", PATIENCE, || place.placed().map(drop))?;
    process.signal(Signal::TERM)?;
    assert_eq!(process.wait(PATIENCE)?.code(), Some(0));
    assert_eq!(place.placed(), None);
    Ok(())
}

#[test]
fn the_name_defaults_to_the_host_name() -> Outcome {
    let etcd = etcd::shared();
    let place = Place::new("hostname")?;
    let mut command = Command::new(binary::conclave());
    command
        .args(["podmaster", "--key=hostname", &format!("--etcd-servers={}", etcd.url())])
        .arg(format!("--source-file={}", place.source().display()))
        .arg(format!("--dest-file={}", place.destination().display()));
    let _process = Process::start("podmaster", place.root(), command)?;
    eventually("the manifest", PATIENCE, || place.placed().map(drop))?;
    let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
    let keys = etcd.keys("/conclave/")?;
    let ours: Vec<_> = keys.iter().filter(|key| key.contains("hostname/sessions/")).collect();
    assert!(ours.iter().any(|key| key.contains(host.trim())), "{ours:?} on {host}");
    Ok(())
}

#[test]
fn mistakes_in_the_command_line_are_explained() -> Outcome {
    let dir = scratch::directory("flags")?;
    let (source, destination) = (dir.path().join(FILE), dir.path().join("dst").join(FILE));
    fs::write(&source, pod::manifest("pod"))?;
    fs::create_dir(dir.path().join("dst"))?;
    let source = format!("--source-file={}", source.display());
    let destination = format!("--dest-file={}", destination.display());
    let good = ["podmaster", "--etcd-servers=http://127.0.0.1:1", "--key=k", &source, &destination];
    let without = |flag: &str| -> Vec<&str> {
        good.into_iter().filter(|argument| !argument.starts_with(flag)).collect()
    };
    for flag in ["--etcd-servers", "--key", "--source-file", "--dest-file"] {
        let said = refusal(binary::conclave(), &without(flag))?;
        assert!(said.contains(flag), "{flag}: {said}");
    }
    let mistakes = [
        ("--ttl-secs=soon", "soon"),
        ("--sleep=5", "5"),
        ("--sleep=-1s", "-1s"),
        ("--kye=k", "kye"),
    ];
    for (flag, named) in mistakes {
        let said = refusal(binary::conclave(), &[&good[..], &[flag]].concat())?;
        assert!(said.contains(named), "{flag}: {said}");
    }
    Ok(())
}

#[test]
fn a_server_of_the_old_api_is_named_as_such() -> Outcome {
    let server = V2Server::start()?;
    let mut group = Group::new("old", &["a"])?;
    group.start("a", &format!("http://{}", server.address()), SHORT)?;
    let process = group.process("a");
    let status = process.wait(PATIENCE)?;
    let said = process.output()?;
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("v3") && said.contains("2.3.8"), "{said}");
    Ok(())
}
