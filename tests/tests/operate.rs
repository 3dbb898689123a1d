//! What operators do to a running cluster, as they type it: through success, refusal and outage.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result};
use conclave_tests::cluster::{self, Cluster, Plan};
use conclave_tests::node::{ELECTION, TTL};
use conclave_tests::process::Process;
use conclave_tests::proxy::Mode;
use conclave_tests::{Outcome, PATIENCE, binary, eventually};
use serde_json::{Value, json};

/// Three nodes that change leaders only when they are told to.
fn three() -> Result<Cluster> {
    Cluster::start(&["a", "b", "c"], &Plan { ttl: "10s", ..Plan::default() })
}

fn command(cluster: &Cluster, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary::conclave());
    let endpoint = format!("http://{}", cluster.etcd[0].address());
    command.args(arguments).args(["--endpoints", &endpoint, "--cluster", cluster::NAME]);
    command
}

fn conclave(cluster: &Cluster, arguments: &[&str]) -> Result<Output> {
    command(cluster, arguments).output().context("cannot run conclave")
}

/// That it succeeded, and what it printed as JSON.
fn done(cluster: &Cluster, arguments: &[&str]) -> Result<Value> {
    let output = conclave(cluster, &[arguments, &["--output", "json"]].concat())?;
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {error}");
    serde_json::from_slice(&output.stdout).with_context(|| format!("{arguments:?}: {error}"))
}

/// That it was refused, with these words.
fn refused(cluster: &Cluster, arguments: &[&str], words: &str) -> Outcome {
    let output = conclave(cluster, arguments)?;
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
    assert!(error.contains(words), "{arguments:?}: {error}");
    Ok(())
}

#[test]
fn a_term_is_moved_and_moved_on() -> Outcome {
    let cluster = three()?;
    let from = cluster.leader()?;
    let to = cluster.other(&from);
    let before = cluster.term()?.context("a term")?.token;
    let moved = done(&cluster, &["transfer", ELECTION, "--to", &to, "--note", "by hand"])?;
    assert_eq!(cluster.leader_after(&from)?, to);
    assert_eq!(
        [&moved["outcome"], &moved["from"], &moved["to"], &moved["token"]],
        [&json!("moved"), &json!(from), &json!(to), &json!(before)],
        "{moved}"
    );
    let after = cluster.term()?.context("a term")?.token;
    assert_eq!(moved["next_token"], json!(after));

    let again = done(&cluster, &["transfer", ELECTION, "--to", &to])?;
    assert_eq!(again["outcome"], "already_there", "{again}");
    let stepped = done(&cluster, &["step-down", ELECTION])?;
    let third = cluster.leader_after(&to)?;
    assert_eq!(stepped["to"], json!(third), "{stepped}");

    let history = done(&cluster, &["history", ELECTION])?;
    let terms = history["terms"].as_array().context("terms")?;
    let nodes: Vec<&str> = terms.iter().filter_map(|term| term["node"].as_str()).collect();
    assert_eq!(nodes, [&*from, &*to, &*third], "{history}");
    let whys: Vec<&Value> = terms.iter().map(|term| &term["why"]).collect();
    assert_eq!(whys, [&json!("transfer"), &json!("transfer"), &Value::Null], "{history}");
    assert_eq!(terms[0]["handed_to"], json!(to), "{history}");
    assert!(terms[1]["gap_before_ms"].is_u64() && terms[0]["gap_before_ms"].is_null());
    let table = String::from_utf8(conclave(&cluster, &["history", ELECTION])?.stdout)?;
    assert!(
        table.contains("an operator moved it, handed to") && table.contains("stands"),
        "{table}"
    );
    cluster.finish()?;
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() -> Outcome {
    let mut cluster = three()?;
    let leader = cluster.leader()?;
    let other = cluster.other(&leader);
    refused(&cluster, &["transfer", "elsewhere"], "there is no election `elsewhere`; there are ")?;
    refused(
        &cluster,
        &["transfer", ELECTION, "--to", "nobody"],
        "nobody is no candidate; there are ",
    )?;
    refused(
        &cluster,
        &["cordon", "nobody"],
        "the store knows no node `nobody` now; there are a, b, c",
    )?;
    refused(&cluster, &["uncordon", &other], "is not cordoned")?;
    refused(&cluster, &["resume"], "nothing is paused")?;

    done(&cluster, &["cordon", &other])?;
    refused(
        &cluster,
        &["transfer", ELECTION, "--to", &other],
        "is cordoned; let it lead again first",
    )?;
    // Forced, it is asked for, does not happen, and is taken back.
    let forced = ["transfer", ELECTION, "--to", &other, "--force", "--timeout", "1s"];
    refused(&cluster, &forced, "is no longer asked to hand over")?;
    done(&cluster, &["uncordon", &other])?;
    cluster.leads_for(&leader, Duration::from_secs(1))?;

    done(&cluster, &["pause", ELECTION])?;
    refused(&cluster, &["step-down", ELECTION], "it is paused; end that first")?;
    let status = done(&cluster, &["status"])?;
    assert_eq!(status["elections"][0]["paused"], true, "{status}");
    done(&cluster, &["resume"])?;

    for name in ["a", "b", "c"].into_iter().filter(|name| **name != *leader) {
        cluster.node(name).stop()?;
    }
    refused(&cluster, &["step-down", ELECTION], "there is nobody to follow")?;
    refused(&cluster, &["drain", &leader], "nobody would lead control-plane")?;
    cluster.leads_for(&leader, Duration::from_millis(500))?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_node_is_drained_and_comes_back() -> Outcome {
    let cluster = three()?;
    let leader = cluster.leader()?;
    let drained = done(&cluster, &["drain", &leader])?;
    let next = cluster.leader_after(&leader)?;
    assert_eq!(drained["drained"], json!([{ "election": ELECTION, "to": next }]), "{drained}");
    let nodes = done(&cluster, &["nodes"])?;
    let row = |name: &str| {
        let mut nodes = nodes.as_array().into_iter().flatten();
        nodes.find(|node| node["node"] == name).cloned().context("a node")
    };
    assert!(row(&leader)?["cordoned"][ELECTION].is_string(), "{nodes}");
    assert_eq!(row(&leader)?["holds"], json!([]), "{nodes}");
    assert_eq!(row(&next)?["holds"], json!([ELECTION]), "{nodes}");
    let table = String::from_utf8(conclave(&cluster, &["nodes"])?.stdout)?;
    assert!(table.starts_with("NODE ") && table.lines().count() == 4, "{table}");

    // While it is cordoned it is passed over; afterwards it is not.
    let third = ["a", "b", "c"].into_iter().find(|name| **name != *leader && **name != *next);
    done(&cluster, &["step-down", ELECTION])?;
    assert_eq!(Some(&*cluster.leader_after(&next)?), third);
    done(&cluster, &["uncordon", &leader])?;
    done(&cluster, &["transfer", ELECTION, "--to", &leader])?;
    assert_eq!(cluster.leader()?, leader);
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_holder_that_fell_silent_is_told_with_the_gap_that_it_left() -> Outcome {
    let cluster = Cluster::start(&["a", "b"], &Plan::default())?;
    let leader = cluster.leader()?;
    cluster.link(&leader, Mode::BlackHole)?;
    let next = cluster.leader_after(&leader)?;
    let history = done(&cluster, &["history", ELECTION])?;
    let terms = history["terms"].as_array().context("terms")?;
    let [.., ended, stands] = &terms[..] else { panic!("two terms: {history}") };
    assert_eq!((&ended["node"], &ended["why"]), (&json!(leader), &json!("silent")), "{history}");
    assert_eq!(stands["node"], json!(next), "{history}");
    // Nobody led from when it was last heard of, for its TTL at least.
    let gap = stands["gap_before_ms"].as_u64().context("a gap")?;
    assert!(gap >= TTL.as_millis() as u64, "{history}");
    cluster.finish()?;
    Ok(())
}

#[test]
fn what_changes_is_told_as_it_changes() -> Outcome {
    let cluster = three()?;
    let from = cluster.leader()?;
    let mut watch = command(&cluster, &["watch", "--output", "json"]);
    let mut watch = watch.stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(watch.stdout.take().context("its output")?).lines();
    let (sender, told) = mpsc::channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            let _ = sender.send(line); // a test that failed reads no more
        }
    });
    let wait_for = |event: &str, node: Option<&str>| -> Result<Value> {
        loop {
            let line = told.recv_timeout(PATIENCE).with_context(|| event.to_owned())?;
            let news: Value = serde_json::from_str(&line)?;
            if news["event"] == event && node.is_none_or(|node| news["node"] == node) {
                return Ok(news);
            }
        }
    };
    wait_for("term began", Some(&from))?;
    done(&cluster, &["pause", "--note", "a test"])?;
    let paused = wait_for("paused", None)?;
    assert!(paused["words"].as_str().is_some_and(|words| words.contains("a test")), "{paused}");
    done(&cluster, &["resume"])?;
    wait_for("resumed", None)?;
    done(&cluster, &["pause", ELECTION, "--for", "1s"])?;
    let paused = done(&cluster, &["status"])?;
    let pause = &paused["elections"][0]["pause"];
    assert_eq!(
        pause["until_unix_ms"].as_u64(),
        pause["since_unix_ms"].as_u64().map(|since| since + 1_000),
        "{paused}"
    );
    wait_for("resumed", None).context("the nodes end it by themselves")?;
    let to = cluster.other(&from);
    done(&cluster, &["transfer", ELECTION, "--to", &to])?;
    wait_for("transfer asked", Some(&to))?;
    wait_for("term began", Some(&to))?;
    done(&cluster, &["cordon", &from])?;
    wait_for("cordoned", Some(&from))?;
    watch.kill()?;
    watch.wait()?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn on_a_terminal_a_table_is_kept_up_to_date() -> Outcome {
    let cluster = three()?;
    let from = cluster.leader()?;
    let to = cluster.other(&from);
    let usual = command(&cluster, &["watch"]);
    let mut words = vec![usual.get_program().to_string_lossy().into_owned()];
    words.extend(usual.get_args().map(|word| word.to_string_lossy().into_owned()));
    // A terminal of its own, whose output is a file.
    let screen = cluster.nodes[0].root().join("screen");
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--flush", "--command", &words.join(" ")]).arg(&screen);
    terminal.env("TERM", "xterm").stdin(Stdio::null()).stdout(Stdio::null());
    let mut terminal = Process::start("script", cluster.nodes[0].root(), terminal)?;
    let shows = |what: &str, parts: &[&str]| {
        eventually(what, PATIENCE, || {
            let text = String::from_utf8_lossy(&std::fs::read(&screen).ok()?).into_owned();
            // The newest frame that is whole.
            let frame = text.rsplit("\u{1b}[H").find(|frame| frame.contains("\u{1b}[J"))?;
            parts.iter().all(|part| frame.contains(part)).then_some(())
        })
    };
    shows("the holder", &["HOLDER IN STORE", &format!("{ELECTION}  {from}"), "3 of 3"])?;
    done(&cluster, &["transfer", ELECTION, "--to", &to])?;
    shows("the next one", &[&format!("{ELECTION}  {to}"), "asked to move"])?;
    done(&cluster, &["pause", "--note", "a test"])?;
    done(&cluster, &["cordon", &from])?;
    shows("what is marked", &["PAUSED", "a test", "2 of 3"])?;
    terminal.kill_family()?;
    cluster.finish()?;
    Ok(())
}

#[test]
fn a_store_that_is_gone_is_said_and_a_pause_of_it_is_waited_out() -> Outcome {
    let cluster = three()?;
    let (from, link) = (cluster.leader()?, &cluster.links[0][0]);
    let to = cluster.other(&from);
    let through_link = |arguments: &[&str]| {
        let mut command = Command::new(binary::conclave());
        command.args(arguments).args(["--endpoints", &link.url(), "--cluster", cluster::NAME]);
        command
    };
    // The link is node a's; nobody's session ends meanwhile.
    link.set(Mode::Refuse)?;
    for arguments in [&["nodes"][..], &["transfer", ELECTION, "--to", &to]] {
        let output = through_link(arguments).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains("cannot read the store"), "{error}");
    }
    link.set(Mode::Pass)?;
    eventually("the link to carry again", PATIENCE, || {
        through_link(&["nodes"]).output().ok()?.status.success().then_some(())
    })?;
    cluster.leads_for(&from, Duration::from_millis(300))?;
    cluster.finish()?;
    Ok(())
}
