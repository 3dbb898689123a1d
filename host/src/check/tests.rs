//! Looks at real ports, pages, files and processes.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use conclave_core::ElectionName;
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::process::{Pid, test_kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::mpsc;

use super::probe::{Look, Looker, connect_to_any};
use super::*;

/// Longer than anything here takes on the slowest machine.
const PATIENCE: Duration = Duration::from_secs(60);
const INTERVAL: Duration = Duration::from_millis(2);

impl Probe {
    async fn look(&self, limit: Duration) -> Look {
        Looker::new(self.clone()).look(limit).await
    }

    async fn look_for_end(&self, limit: Duration) -> Result<(), String> {
        Looker::new(self.clone()).look_for_end(limit).await
    }
}

async fn listener() -> (TcpListener, Address) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, Address { host: "127.0.0.1".to_owned(), port })
}

/// A port that refuses and that nobody else can get: bound, but not listened on.
fn refusing() -> (TcpSocket, Address) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, Address { host: "127.0.0.1".to_owned(), port })
}

/// Answers every connection with the same bytes, or with silence.
async fn server(answer: Option<&'static str>) -> Address {
    let (listener, address) = listener().await;
    tokio::spawn(async move {
        let mut held = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            match answer {
                Some(answer) => {
                    let mut request = [0; 1024];
                    let length = stream.read(&mut request).await.unwrap();
                    assert!(request[..length].starts_with(b"GET /health?full HTTP/1.1\r\n"));
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
                None => held.push(stream),
            }
        }
    });
    address
}

fn page(server: Address) -> Probe {
    Probe::Http(HttpTarget { server, path: "/health?full".to_owned() })
}

fn shell(script: &str) -> Probe {
    Probe::Command(["sh", "-c", script].map(str::to_owned).to_vec())
}

fn alive(pid: &str) -> bool {
    // A killed process may stay a zombie of another parent for a moment.
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let pid = Pid::from_raw(pid.parse().unwrap()).unwrap();
    test_kill_process(pid).is_ok() && !status.contains(") Z ")
}

async fn eventually(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..PATIENCE.as_millis() / 5 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn a_port_accepts_or_refuses() {
    let (_open, address) = listener().await;
    assert_eq!(Probe::Tcp(address.clone()).look(PATIENCE).await, Look::Yes);
    assert!(Probe::Tcp(address).look_for_end(PATIENCE).await.is_err());
    let (_closed, address) = refusing();
    assert!(matches!(Probe::Tcp(address.clone()).look(PATIENCE).await, Look::No(_)));
    assert_eq!(Probe::Tcp(address).look_for_end(PATIENCE).await, Ok(()));
}

#[tokio::test]
async fn a_host_that_cannot_be_found_proves_no_end() {
    let nowhere = Probe::Tcp(Address { host: "no-such-host.invalid".to_owned(), port: 1 });
    assert!(matches!(nowhere.look(PATIENCE).await, Look::Unclear(_)));
    assert!(nowhere.look_for_end(PATIENCE).await.is_err());
}

#[tokio::test]
async fn a_page_is_good_with_a_2xx_status_only() {
    let table = [
        ("HTTP/1.1 200 OK\r\n\r\n", "yes"),
        ("HTTP/1.1 204 No Content\r\n\r\n", "yes"),
        ("HTTP/1.1 302 Found\r\n\r\n", "no"),
        ("HTTP/1.1 503 Busy\r\n\r\n", "no"),
        ("hello", "unclear"),
        ("", "unclear"),
    ];
    for (answer, expected) in table {
        let found = match page(server(Some(answer)).await).look(PATIENCE).await {
            Look::Yes => "yes",
            Look::No(_) => "no",
            Look::Unclear(_) => "unclear",
        };
        assert_eq!(found, expected, "{answer:?}");
    }
}

#[tokio::test]
async fn a_page_has_ended_only_when_its_port_has() {
    assert!(
        page(server(Some("HTTP/1.1 503 Busy\r\n\r\n")).await).look_for_end(PATIENCE).await.is_err()
    );
    let (_closed, address) = refusing();
    assert_eq!(page(address).look_for_end(PATIENCE).await, Ok(()));
}

#[tokio::test]
async fn a_silent_server_is_no_answer() {
    let look = page(server(None).await).look(Duration::from_millis(20)).await;
    assert_eq!(look, Look::Unclear("no answer within 20ms".to_owned()));
}

#[tokio::test]
async fn a_command_says_it_by_its_exit() {
    assert_eq!(shell("exit 0").look(PATIENCE).await, Look::Yes);
    assert_eq!(shell("exit 3").look(PATIENCE).await, Look::No("exit status: 3".to_owned()));
    let nothing = Probe::Command(vec!["/no/such/program".to_owned()]);
    assert!(matches!(nothing.look(PATIENCE).await, Look::Unclear(_)));
    assert_eq!(shell("exit 0").look_for_end(PATIENCE).await, Ok(()));
    assert!(shell("exit 1").look_for_end(PATIENCE).await.is_err());
    assert!(nothing.look_for_end(PATIENCE).await.is_err());
}

/// A disk that hangs takes the thread that looks at it; what else runs beside the loop needs the
/// others.
#[tokio::test]
async fn looks_that_hang_take_one_thread_only() {
    let directory = tempfile::tempdir().unwrap();
    // Opening a FIFO for writing hangs until somebody reads: so does running what is behind it.
    let fifo = directory.path().join("program");
    let mode = Mode::from_raw_mode(0o700);
    mknodat(CWD, &fifo, FileType::Fifo, mode, 0).unwrap();
    let hang = {
        let fifo = fifo.clone();
        move || std::fs::File::options().write(true).open(fifo)
    };
    let looker = Looker::new(Probe::File(fifo.clone()));
    let limit = Duration::from_millis(20);
    assert!(tokio::time::timeout(limit, looker.apart(hang)).await.is_err(), "it hangs");
    for _ in 0..5 {
        let look = looker.look(PATIENCE).await;
        assert_eq!(look, Look::Unclear("an earlier look still hangs".to_owned()));
    }
    let reader = std::fs::File::open(&fifo).unwrap();
    while looker.look(PATIENCE).await != Look::Yes {
        tokio::time::sleep(INTERVAL).await;
    }
    drop(reader);
}

/// A name that nobody within reach knows takes a thread for as long as the resolver's patience.
#[tokio::test]
async fn names_that_hang_take_one_thread_only() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("resolver");
    mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o700), 0).unwrap();
    let (_open, address) = listener().await;
    let named = Address { host: "localhost".to_owned(), port: address.port };
    for probe in [Probe::Tcp(named.clone()), page(named.clone())] {
        let looker = Looker::new(probe);
        let hang = {
            let fifo = fifo.clone();
            move || std::fs::File::options().write(true).open(fifo)
        };
        let limit = Duration::from_millis(20);
        assert!(tokio::time::timeout(limit, looker.apart(hang)).await.is_err(), "it hangs");
        for _ in 0..5 {
            let hangs = "an earlier look still hangs".to_owned();
            assert_eq!(looker.look(PATIENCE).await, Look::Unclear(hangs.clone()));
            assert_eq!(looker.look_for_end(PATIENCE).await, Err(hangs));
        }
        drop(std::fs::File::open(&fifo).unwrap());
    }
    // An address needs no asking.
    assert_eq!(Probe::Tcp(address).look(PATIENCE).await, Look::Yes);
    assert_eq!(Probe::Tcp(named).look(PATIENCE).await, Look::Yes);
}

#[tokio::test]
async fn only_where_every_address_of_a_host_refuses_does_nobody_listen() {
    let (_open, open) = listener().await;
    let (_closed, closed) = refusing();
    let at = |address: &Address| SocketAddr::new(address.host.parse().unwrap(), address.port);
    let (open, refusing) = (at(&open), at(&closed));
    // No connection can be made to everybody at once, nor does anybody refuse it.
    let nowhere = SocketAddr::from((Ipv4Addr::BROADCAST, 1));
    let table: [(&[SocketAddr], &str); 7] = [
        (&[open], "yes"),
        (&[refusing, open], "yes"),
        (&[nowhere, open], "yes"),
        (&[refusing, refusing], "no"),
        (&[refusing, nowhere], "unclear"),
        (&[nowhere, refusing], "unclear"),
        (&[], "unclear"),
    ];
    for (addresses, expected) in table {
        let found = match connect_to_any(addresses).await {
            Ok(_) => "yes",
            Err(Look::No(_)) => "no",
            Err(_) => "unclear",
        };
        assert_eq!(found, expected, "{addresses:?}");
    }
}

#[tokio::test]
async fn addresses_of_both_kinds_need_no_asking() {
    for text in ["127.0.0.1:80", "[::1]:80", "[fd00::17]:10251"] {
        let address: Address = text.parse().unwrap();
        let found = Looker::new(Probe::Tcp(address.clone())).resolve(&address).await;
        assert_eq!(found, Ok(vec![text.parse().unwrap()]));
    }
}

/// A script that notes itself and a child of its own, and then takes for ever.
fn endless(directory: &Path) -> Probe {
    let noted = directory.join("pids");
    shell(&format!("sleep 1000 & echo $$ $! > {0}.new; mv {0}.new {0}; wait", noted.display()))
}

async fn noted(directory: &Path) -> Vec<String> {
    let file = directory.join("pids");
    eventually("the script never noted its processes", || file.exists()).await;
    std::fs::read_to_string(file).unwrap().split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_command_that_takes_too_long_is_ended_with_its_children() {
    let directory = tempfile::tempdir().unwrap();
    let probe = endless(directory.path());
    let mut limit = Duration::from_millis(100);
    // A busy machine may need some tries before the script gets as far as noting itself.
    while !directory.path().join("pids").exists() {
        let look = probe.look(limit).await;
        assert!(matches!(look, Look::Unclear(_)), "{look:?}");
        limit *= 2;
    }
    for pid in noted(directory.path()).await {
        eventually("a process of the command lives on", || !alive(&pid)).await;
    }
}

#[tokio::test]
async fn a_command_ends_with_the_checks_that_run_it() {
    let directory = tempfile::tempdir().unwrap();
    let (sender, _receiver) = mpsc::unbounded_channel();
    let check = fitness(endless(directory.path()), 1, 1);
    let watch = watch(&[ElectionName::new("e")], &[check], &sender);
    let pids = noted(directory.path()).await;
    assert!(pids.iter().all(|pid| alive(pid)));
    drop(watch);
    for pid in pids {
        eventually("a process of the command lives on", || !alive(&pid)).await;
    }
}

fn fitness(probe: Probe, rise: u32, fall: u32) -> FitnessCheck {
    FitnessCheck { name: "it".to_owned(), probe, interval: INTERVAL, timeout: PATIENCE, rise, fall }
}

#[tokio::test]
async fn a_watch_reports_the_first_judgement_and_every_change() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ready");
    let (sender, mut reports) = mpsc::unbounded_channel();
    let elections = ["masters", "others"].map(ElectionName::new);
    let _watch = watch(&elections, &[fitness(Probe::File(file.clone()), 2, 3)], &sender);
    for passing in [false, true, false] {
        if passing {
            std::fs::write(&file, "").unwrap();
        } else {
            let _ = std::fs::remove_file(&file);
        }
        for election in &elections {
            let report = reports.recv().await.unwrap();
            assert_eq!((&report.election, report.check.as_str()), (election, "it"));
            assert_eq!(report.passing, passing);
            assert_eq!(report.reason.is_empty(), passing);
        }
    }
}

fn stop(probe: Probe, within: Duration) -> StopCheck {
    StopCheck { probe, interval: INTERVAL, timeout: PATIENCE, within }
}

#[tokio::test]
async fn a_stop_check_waits_until_it_holds() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("running");
    std::fs::write(&file, "").unwrap();
    let check = stop(Probe::File(file.clone()), PATIENCE);
    let waiting = tokio::spawn(async move { check_stopped(&check).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(!waiting.is_finished());
    std::fs::remove_file(&file).unwrap();
    assert_eq!(waiting.await.unwrap(), Ok(()));
}

#[tokio::test]
async fn a_stop_check_gives_up_and_says_what_it_saw() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let check = stop(Probe::File(file.path().to_path_buf()), Duration::from_millis(30));
    let reason = check_stopped(&check).await.unwrap_err();
    assert_eq!(reason, format!("file {} is still there", file.path().display()));
}

#[test]
fn addresses_are_read_and_shown_alike() {
    for good in ["127.0.0.1:80", "[::1]:80", "localhost:65535", "my-host.example:1"] {
        assert_eq!(good.parse::<Address>().unwrap().to_string(), good);
    }
    for bad in
        ["", "80", ":80", "h:", "h:0", "h:65536", "::1:80", "[::1:80", "a b:1", "u@h:1", "h:80/x"]
    {
        assert!(bad.parse::<Address>().is_err(), "{bad}");
    }
}

#[test]
fn pages_are_read_and_shown_alike() {
    let table = [
        ("http://h", "http://h:80/"),
        ("http://h:8080", "http://h:8080/"),
        ("http://[::1]/x", "http://[::1]:80/x"),
        ("http://[::1]:8080/x?y=1", "http://[::1]:8080/x?y=1"),
    ];
    for (text, shown) in table {
        assert_eq!(text.parse::<HttpTarget>().unwrap().to_string(), shown);
    }
    for bad in
        ["h:80", "https://h", "http://", "http://h/a b", "http://h/\r\nX: y", "http://u:p@h/"]
    {
        assert!(bad.parse::<HttpTarget>().is_err(), "{bad:?}");
    }
}
