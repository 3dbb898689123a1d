//! The status page in a real browser: who leads, through a failover, without the store, behind a node that hangs,
//! on a phone, in the dark, and with whatever somebody wrote into a note.
//!
//! `CONCLAVE_SCREENSHOTS=DIR` has it draw the pages that the documentation shows.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use conclave_tests::answering::{Answering, NAMES};
use conclave_tests::browser::Browser;
use conclave_tests::cluster;
use conclave_tests::node::{ELECTION, Node};
use conclave_tests::pod;
use conclave_tests::process::{Signal, send};
use conclave_tests::proxy::Mode;
use conclave_tests::{Outcome, PATIENCE, binary, eventually};
use serde_json::json;

/// Markup, as somebody may write it into a note.
const NOTE: &str = "<img src=x onerror=alert(1)>";

/// A part of an election's card.
fn part(election: &str, of: &str) -> String {
    format!("[data-election=\"{election}\"] {of}")
}

/// Where the page says who leads, or who is holder in store.
fn who() -> String {
    part(ELECTION, ".who")
}

/// Opens a node's page; a browser does not try again, so the node must answer by then.
fn open(answering: &Answering, node: &str) -> Result<Browser> {
    answering.wait_for(node, "/livez", 200)?;
    Browser::open(&format!("http://{}/", answering.at[node]))
}

/// Runs a command of an operator's.
fn operate(answering: &Answering, arguments: &[&str]) -> Result<()> {
    let endpoint = format!("http://{}", answering.cluster.etcd[0].address());
    let mut command = Command::new(binary::conclave());
    command.args(arguments).args(["--endpoints", &endpoint, "--cluster", cluster::NAME]);
    let output = command.output()?;
    if !output.status.success() {
        bail!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn draw(browser: &Browser, name: &str) -> Result<()> {
    if let Some(directory) = std::env::var_os("CONCLAVE_SCREENSHOTS") {
        browser.draw(&PathBuf::from(directory).join(name))?;
    }
    Ok(())
}

/// Waits until an element no longer shows a text.
fn wait_until_gone(page: &Browser, selector: &str, text: &str) -> Result<()> {
    eventually(&format!("{selector} to show no {text:?} any more"), PATIENCE, || {
        let shown = page.text(selector).ok()?;
        (!shown.is_empty() && !shown.contains(text)).then_some(())
    })?;
    Ok(())
}

/// That nothing went wrong in the page that people would not see.
fn no_complaints(page: &Browser) -> Result<()> {
    assert_eq!(page.complaints()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn it_shows_who_leads_through_a_failover() -> Outcome {
    let mut answering = Answering::start("5s")?;
    let leader = answering.cluster.leader()?;
    let token = answering.cluster.term()?.context("a term")?.token;
    let of_leader = open(&answering, &leader)?;
    of_leader.wait_for(&who(), &[&format!("{leader} leads")])?;
    of_leader.wait_for(&part(ELECTION, "p"), &[&format!("token {token}"), "for "])?;
    of_leader.wait_for("#valid", &["what it leads stands for"])?;

    let watcher = answering.cluster.other(&leader);
    let page = open(&answering, &watcher)?;
    page.pretend(1000, 760, "light")?;
    page.wait_for(&who(), &[&leader, "is holder in store"])?;
    assert!(!page.text(&who())?.contains("leads"), "only the node itself can say so");
    page.wait_for("#store", &["the store answers"])?;
    page.wait_for("#nodes", &["3 nodes with a session"])?;

    // Its machine is gone: the others' pages say who is next, without being asked to reload.
    page.evaluate("window.here = true")?;
    answering.cluster.node(&leader).kill()?;
    of_leader.wait_for("#lost", &["does not answer", "Nothing below is known to be true"])?;
    of_leader.wait_for("#deaf", &["NOT TOLD NOW"])?;
    wait_until_gone(&of_leader, &who(), "leads")?;
    // Nobody is there to take the killed node's manifests out, so the store says who is next.
    let next = eventually("another holder in store", PATIENCE, || {
        let term = answering.cluster.term().ok()??;
        let holder = term.record["holder"].as_str()?.to_owned();
        (holder != leader).then_some(holder)
    })?;
    page.wait_for(&who(), &[&next])?;
    page.wait_for("#events", &["its node fell silent"])?;
    page.wait_for("#said", &[&format!("{ELECTION} is held by {next} now")])?;
    assert_eq!(page.evaluate("window.here")?, json!(true), "it is the same page");

    // The time line has the term that ended, the time without a leader and the term that stands.
    let bars = "[...document.querySelectorAll('.bars span')].map(bar => bar.title)";
    let bars: Vec<String> = serde_json::from_value(page.evaluate(bars)?)?;
    let [ended, gap, stands] = &bars[..] else { panic!("not three bars: {bars:?}") };
    assert!(ended.starts_with(&format!("{leader}, token {token}, ")), "{ended}");
    assert!(ended.contains("its node fell silent"), "{ended}");
    assert!(gap.starts_with("nobody held it for "), "{gap}");
    assert!(stands.starts_with(&format!("{next}, ")) && stands.ends_with("stands"), "{stands}");
    wait_until_gone(&page, "#elections", "this node is")?;
    wait_until_gone(&page, "#elections", "not in place")?;
    draw(&page, "status-page.png")?;
    of_leader.pretend(1000, 760, "light")?;
    draw(&of_leader, "status-page-lost.png")?;
    page.pretend(320, 640, "dark")?;
    draw(&page, "status-page-phone.png")?;
    no_complaints(&page)?;
    no_complaints(&of_leader)?;
    Ok(())
}

#[test]
fn what_operators_do_is_shown_and_what_they_write_is_text() -> Outcome {
    let answering = Answering::start("10s")?;
    let leader = answering.cluster.leader()?;
    let mut others = NAMES.into_iter().filter(|name| **name != *leader);
    let (watcher, third) = others.next().zip(others.next()).context("two others")?;
    let page = open(&answering, watcher)?;
    page.wait_for(&who(), &[&leader])?;

    let long = format!("{NOTE}{}", "x".repeat(400));
    operate(&answering, &["pause", "--note", &long, "--for", "1h"])?;
    page.wait_for(&part(ELECTION, ".row"), &["paused", &long, "since", "until"])?;
    // On a phone nothing runs out of the screen, and in the dark it is dark.
    page.pretend(320, 640, "dark")?;
    let sideways = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth";
    assert_eq!(page.evaluate(sideways)?, json!(0));
    let back = || page.evaluate("getComputedStyle(document.body).backgroundColor");
    assert_eq!(back()?, json!("rgb(20, 23, 27)"));
    page.pretend(1000, 760, "light")?;
    assert_eq!(back()?, json!("rgb(245, 246, 248)"));
    operate(&answering, &["resume"])?;
    wait_until_gone(&page, "#elections", "paused")?;

    operate(&answering, &["cordon", third, "--note", NOTE])?;
    page.wait_for(&part(ELECTION, "table"), &["cordoned", NOTE])?;
    page.wait_for("#events", &[&format!("{third} is cordoned"), NOTE])?;
    assert_eq!(page.evaluate("document.images.length")?, json!(0));

    // It takes part in the election itself: once it leads, it says so.
    operate(&answering, &["transfer", ELECTION, "--to", watcher])?;
    page.wait_for(&who(), &[&format!("{watcher} leads")])?;
    page.wait_for("#events", &["an operator moved it", "this node is leader"])?;

    // Nobody is left who may lead, and the page is loud about it.
    operate(&answering, &["cordon", &leader])?;
    page.wait_for(&part(ELECTION, ".row"), &["nobody could follow"])?;
    operate(&answering, &["cordon", watcher, "--force"])?;
    page.wait_for(&who(), &["Nobody holds it, since"])?;
    assert_eq!(page.evaluate("document.querySelectorAll('.card.alarm').length")?, json!(1));
    let title = page.evaluate("document.title")?;
    assert!(title.as_str().is_some_and(|title| title.starts_with("(!)")), "{title}");
    no_complaints(&page)?;
    Ok(())
}

#[test]
fn a_leader_that_hangs_is_not_said_to_lead_when_another_does() -> Outcome {
    let mut answering = Answering::start("5s")?;
    let leader = answering.cluster.leader()?;
    let page = open(&answering, &leader)?;
    page.wait_for(&who(), &[&format!("{leader} leads")])?;
    let daemon = answering.cluster.node(&leader).daemon()?;
    send(daemon, Signal::STOP)?;
    answering.cluster.leader_after(&leader)?;
    assert!(!page.text(&who())?.contains("leads"), "its deadline has passed");
    // The guard has put an end to it and started another, with which the page goes on.
    answering.cluster.node(&leader).daemon_replaced(daemon)?;
    page.wait_for(&who(), &["is holder in store"])?;
    page.wait_for("#events", &["was not heard"])?;
    no_complaints(&page)?;
    Ok(())
}

#[test]
fn without_the_store_it_says_how_old_everything_is() -> Outcome {
    let mut answering = Answering::start("10s")?;
    let leader = answering.cluster.leader()?;
    let cut = answering.cluster.other(&leader);
    let page = open(&answering, &cut)?;
    page.wait_for(&who(), &[&leader, "is holder in store"])?;
    page.wait_for(&part(ELECTION, "table"), &[&leader])?;
    answering.cluster.link(&cut, Mode::Refuse)?;
    page.wait_for("#store", &["the store does not answer"])?;
    page.wait_for("#valid", &["this node has no session in the store"])?;
    page.wait_for(&who(), &[&leader, "was holder in store when it was last read"])?;
    page.wait_for("#age", &["read", " ago"])?;

    // Nor does it know anything that it could show after a start without the store.
    answering.cluster.node(&cut).kill()?;
    page.wait_for("#lost", &["does not answer"])?;
    answering.cluster.node(&cut).start()?;
    let fresh = open(&answering, &cut)?;
    fresh.wait_for(&who(), &["does not know who holds it"])?;
    fresh.wait_for("#age", &["the store has not answered yet"])?;
    answering.cluster.link(&cut, Mode::Pass)?;
    for page in [&page, &fresh] {
        page.wait_for(&who(), &[&leader, "is holder in store"])?;
        page.wait_for("#age", &["just now"])?;
        no_complaints(page)?;
    }
    Ok(())
}

/// Has a node stand in this many more elections.
fn stand_in_more(node: &mut Node, count: usize) -> Result<()> {
    for number in 0..count {
        let name = format!("more-{number:02}");
        let file = format!("{name}.yaml");
        std::fs::write(node.sources().join(&file), pod::manifest(&name))?;
        let manifest =
            json!({ "source": format!("src/{file}"), "destination": format!("dst/{file}") });
        let elections = node.config()["elections"].as_array_mut().context("elections")?;
        elections.push(json!({ "name": name, "manifests": [manifest], "overlap": "accepted" }));
    }
    Ok(())
}

#[test]
fn of_many_elections_those_that_need_a_look_come_first() -> Outcome {
    let answering = Answering::start_with("10s", |node, _| stand_in_more(node, 40))?;
    let page = open(&answering, "a")?;
    page.wait_for("#overview", &["41 elections: 41 well"])?;
    let order = || -> Result<Vec<String>> {
        let names = "[...document.querySelectorAll('.card')].map(card => card.dataset.election)";
        Ok(serde_json::from_value(page.evaluate(names)?)?)
    };
    assert_eq!(order()?[0], ELECTION, "by name, where all are well");

    // What is opened stays open and keeps the focus while others change and move.
    let more = part("more-07", "details.more");
    let summary = format!("document.querySelector('{more} summary')");
    page.evaluate(&format!("{summary}.focus(), {summary}.click()"))?;
    page.wait_for(&more, &["Rank", "Why"])?;
    operate(&answering, &["pause", "more-30", "--note", NOTE])?;
    page.wait_for("#overview", &["1 with a note, 40 well"])?;
    assert_eq!(order()?[0], "more-30");
    page.wait_for(&more, &["Rank", "Why"])?;
    assert_eq!(page.evaluate(&format!("document.activeElement === {summary}"))?, json!(true));

    let filter = |text: &str| {
        page.evaluate(&format!(
            "filter.value = {}, filter.dispatchEvent(new Event('input'))",
            json!(text)
        ))
    };
    page.evaluate("window.filter = document.getElementById('filter')")?;
    filter("MORE-1")?;
    assert_eq!(order()?, (10..20).map(|number| format!("more-{number}")).collect::<Vec<_>>());
    filter("nowhere")?;
    page.wait_for("#elections", &["None does."])?;
    filter("")?;
    assert_eq!(order()?.len(), 41);
    page.pretend(320, 640, "light")?;
    let sideways = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth";
    assert_eq!(page.evaluate(sideways)?, json!(0));
    no_complaints(&page)?;
    answering.cluster.finish()?;
    Ok(())
}

#[test]
fn it_asks_with_its_token_and_keeps_it_to_itself() -> Outcome {
    // As base64 makes them; a plus sign is no space here.
    const TOKEN: &str = "open+sesame/8437==";
    let answering = Answering::start_with("10s", |node, _| {
        let token = node.root().join("token");
        std::fs::write(&token, TOKEN)?;
        node.config()["http"]["token_file"] = json!(token);
        Ok(())
    })?;
    let url = format!("http://{}/", answering.at["a"]);
    let page = open(&answering, "a")?;
    page.wait_for("#lost", &["A token is needed"])?;
    // Somebody adds it in the address bar, which opens no new page.
    page.evaluate(&format!("location.hash = 'token={TOKEN}'"))?;
    let opened = Browser::open(&format!("{url}#token={TOKEN}"))?;
    for page in [&page, &opened] {
        page.wait_for(&part(ELECTION, "h2"), &[ELECTION])?;
        assert_eq!(page.evaluate("location.href")?, json!(url));
        // Events are told to it, too; what happens before the node's watch stands is read instead.
        eventually("an event behind the token", PATIENCE, || {
            operate(&answering, &["pause", "--note", "behind a token"]).ok()?;
            operate(&answering, &["resume"]).ok()?;
            page.text("#events").ok()?.contains("behind a token").then_some(())
        })?;
        no_complaints(page)?;
    }
    answering.cluster.finish()?;
    Ok(())
}
