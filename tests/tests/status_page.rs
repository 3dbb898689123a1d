//! The status page in a real browser: who leads, through a failover, on a phone, in the dark, and with whatever
//! somebody wrote into a note.
//!
//! `CONCLAVE_SCREENSHOTS=DIR` has it draw the pages that the documentation shows.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};
use conclave_tests::answering::{Answering, NAMES};
use conclave_tests::browser::Browser;
use conclave_tests::node::ELECTION;
use conclave_tests::{Outcome, PATIENCE, binary, eventually};
use serde_json::json;

/// Runs a command of an operator's.
fn operate(answering: &Answering, arguments: &[&str]) -> Result<()> {
    let endpoint = format!("http://{}", answering.cluster.etcd[0].address());
    let mut command = Command::new(binary::conclave());
    command.args(arguments).args(["--endpoints", &endpoint, "--cluster", "plane"]);
    let output = command.output()?;
    if !output.status.success() {
        bail!("{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

fn draw(browser: &Browser, name: &str) -> Outcome {
    if let Some(directory) = std::env::var_os("CONCLAVE_SCREENSHOTS") {
        browser.draw(&PathBuf::from(directory).join(name))?;
    }
    Ok(())
}

#[test]
fn it_shows_who_leads_through_a_failover() -> Outcome {
    let mut answering = Answering::start("3s")?;
    let leader = answering.cluster.leader()?;
    let card = format!("[data-election=\"{ELECTION}\"]");
    let who = format!("{card} .who");
    let of_leader = Browser::open(&format!("http://{}/", answering.at[&leader]))?;
    of_leader.wait_for(&who, &[&format!("{leader} leads")])?;
    of_leader.wait_for("#health", &["the store answers", "what it leads stands for"])?;

    let watcher = answering.cluster.other(&leader);
    let third = NAMES.into_iter().find(|name| ![&*leader, &*watcher].contains(name));
    let third = third.expect("a third node");
    let page = Browser::open(&format!("http://{}/", answering.at[&watcher]))?;
    page.pretend(1000, 760, "light")?;
    page.wait_for(&who, &[&leader, "is holder in store"])?;
    assert!(!page.text(&who)?.contains("leads"), "only the node itself can say so");

    // What operators do is seen, and what they write is text.
    let note = "<img src=x onerror=alert(1)>";
    operate(&answering, &["pause", "--note", note, "--for", "1h"])?;
    page.wait_for(&card, &["paused", note, "until"])?;
    operate(&answering, &["resume"])?;
    operate(&answering, &["cordon", third, "--note", note])?;
    page.wait_for(&format!("{card} table"), &["cordoned", note])?;
    assert_eq!(page.evaluate("document.images.length")?, json!(0));
    operate(&answering, &["uncordon", third])?;

    // Its machine is gone: the others' pages say who is next, without being asked to reload.
    page.evaluate("window.here = true")?;
    answering.cluster.node(&leader).kill()?;
    of_leader.wait_for("#lost", &["does not answer", "Nothing below is known to be true"])?;
    eventually("another one to lead", PATIENCE, || {
        let text = page.text(&who).ok()?;
        (!text.is_empty() && !text.starts_with(&format!("{leader} "))).then_some(())
    })?;
    let next = answering.cluster.term()?.expect("a term").record["holder"].clone();
    page.wait_for(&who, &[next.as_str().unwrap_or_default()])?;
    page.wait_for("#events", &["its node fell silent"])?;
    page.wait_for("#said", &[&format!("{ELECTION} is held by")])?;
    assert_eq!(page.evaluate("window.here")?, json!(true), "it is the same page");
    page.wait_for(&format!("{card} .terms"), &[&leader])?;
    eventually("everything to be in place", PATIENCE, || {
        (!page.text(&card).ok()?.contains("not in place")).then_some(())
    })?;
    draw(&page, "status-page.png")?;
    of_leader.pretend(1000, 760, "light")?;
    draw(&of_leader, "status-page-lost.png")?;

    // On a phone nothing runs out of the screen, and in the dark it is dark.
    page.pretend(320, 640, "dark")?;
    let sideways = "document.scrollingElement.scrollWidth - document.scrollingElement.clientWidth";
    assert_eq!(page.evaluate(sideways)?, json!(0));
    let back = page.evaluate("getComputedStyle(document.body).backgroundColor")?;
    assert_eq!(back, json!("rgb(20, 23, 27)"));
    draw(&page, "status-page-phone.png")?;
    Ok(())
}

#[test]
fn it_asks_with_its_token_and_keeps_it_to_itself() -> Outcome {
    let answering = Answering::start_with("10s", |node, _| {
        let token = node.root().join("token");
        std::fs::write(&token, "open-sesame")?;
        node.config()["http"]["token_file"] = json!(token);
        Ok(())
    })?;
    let page = Browser::open(&format!("http://{}/", answering.at["a"]))?;
    page.wait_for("#lost", &["A token is needed"])?;
    let page = Browser::open(&format!("http://{}/#token=open-sesame", answering.at["a"]))?;
    page.wait_for(&format!("[data-election=\"{ELECTION}\"] h2"), &[ELECTION])?;
    assert_eq!(page.evaluate("location.hash")?, json!(""));
    answering.cluster.finish()?;
    Ok(())
}
