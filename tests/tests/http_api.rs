//! What a node answers to programs: as its description says, live, and only to whom it should.

use std::fs;
use std::net::SocketAddr;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use conclave_tests::answering::Answering;
use conclave_tests::http::Caller;
use conclave_tests::node::ELECTION;
use conclave_tests::proxy::Mode;
use conclave_tests::tls::Authority;
use conclave_tests::{Outcome, PATIENCE, eventually};
use serde_json::{Value, json};

/// The description that a node gives of its answers, by which they are judged.
struct Description(Value);

impl Description {
    fn of(answering: &Answering) -> Result<Self> {
        let (status, text) = answering.get("a", "/openapi.yaml")?;
        assert_eq!(status, 200, "{text}");
        Ok(Description(serde_yaml::from_str(&text)?))
    }

    /// Whether a value is what the schema of this name says.
    fn judge(&self, name: &str, value: &Value) -> Result<()> {
        let reference = format!("#/components/schemas/{name}");
        let components = &self.0["components"];
        let schema = json!({ "$ref": reference, "components": components });
        let mistakes = jsonschema::validator_for(&schema)?;
        let mistakes: Vec<String> = mistakes
            .iter_errors(value)
            .map(|mistake| format!("{}: {mistake}", mistake.instance_path()))
            .collect();
        assert!(mistakes.is_empty(), "{name}: {mistakes:#?}\n{value:#}");
        Ok(())
    }
}

/// Events as a node tells them.
struct Events(Receiver<(String, Value)>);

impl Events {
    fn of(at: SocketAddr) -> Result<Self> {
        let lines = Caller { at, authority: None, token: None }.listen("/v1/events")?;
        let (sender, events) = mpsc::channel();
        thread::spawn(move || {
            let mut name = String::new();
            for line in lines {
                if let Some(event) = line.strip_prefix("event: ") {
                    name = event.to_owned();
                } else if let Some(data) = line.strip_prefix("data: ") {
                    let Ok(data) = serde_json::from_str(data) else { return };
                    if sender.send((name.clone(), data)).is_err() {
                        return; // the test is over
                    }
                }
            }
        });
        Ok(Events(events))
    }

    /// The next event that is like this; those before it are judged and passed over.
    fn wait(
        &self,
        description: &Description,
        mut like: impl FnMut(&str, &Value) -> bool,
    ) -> Result<Value> {
        loop {
            let (name, data) = self.0.recv_timeout(PATIENCE).context("an event")?;
            match name.as_str() {
                "change" => description.judge("Change", &data)?,
                "role" => description.judge("RoleChange", &data)?,
                other => bail!("an event {other} is not described"),
            }
            if like(&name, &data) {
                return Ok(data);
            }
        }
    }
}

#[test]
fn answers_are_what_their_description_says() -> Outcome {
    let answering = Answering::start("10s")?;
    let description = Description::of(&answering)?;
    let (from, cluster) = (answering.cluster.leader()?, &answering.cluster);
    let to = cluster.other(&from);
    let third = ["a", "b", "c"].into_iter().find(|name| ![&*from, &*to].contains(name));
    let third = third.context("a third node")?;
    cluster.transfer(&to)?;
    cluster.leader_after(&from)?;
    let mark =
        |note: &str| json!({ "note": note, "since_unix_ms": 1, "for_ms": 3_600_000 }).to_string();
    cluster.control("pause", Some(&mark("a test")))?;
    cluster.control(&format!("cordons/{third}"), Some(&mark("broken")))?;
    let own = format!("/v1/elections/{ELECTION}");
    for node in ["a", "b", "c"] {
        description.judge("Status", &answering.json(node, "/v1/status")?)?;
        description.judge("OwnElection", &answering.json(node, &own)?)?;
        description.judge("Cluster", &answering.json(node, "/v1/cluster")?)?;
        let history = answering.json(node, &format!("/v1/history/{ELECTION}"))?;
        description.judge("History", &history)?;
        let terms = history["terms"].as_array().context("terms")?;
        assert_eq!(terms.len(), 2, "{history:#}");
        assert_eq!((&terms[0]["node"], &terms[0]["handed_to"]), (&json!(from), &json!(to)));
        assert_eq!((&terms[0]["why"], &terms[1]["why"]), (&json!("transfer"), &Value::Null));
    }
    let paths = description.0["paths"].as_object().context("paths")?;
    for path in paths.keys().filter(|path| *path != "/v1/events") {
        let path = path.replace("{election}", ELECTION);
        let (status, body) = answering.get(&to, &path)?;
        let known = ["200", "503"].contains(&status.to_string().as_str());
        assert!(known, "{path} is described, and answered with {status}: {body}");
    }
    assert_eq!(answering.get("a", "/v1/history/nothing")?.0, 404);
    let whole = answering.json("a", "/v1/cluster")?;
    let election = &whole["elections"][0];
    assert_eq!(election["holder_in_store"]["node"], json!(to), "{whole:#}");
    let candidates = election["candidates"].as_array().context("candidates")?;
    let cordoned = candidates.iter().find(|it| it["cordoned"] == true).context("a cordoned one")?;
    assert_eq!((&cordoned["node"], &cordoned["cordon"]["note"]), (&json!(third), &json!("broken")));
    answering.cluster.finish()?;
    Ok(())
}

#[test]
fn what_changes_is_told_to_those_who_listen() -> Outcome {
    let answering = Answering::start("10s")?;
    let description = Description::of(&answering)?;
    let from = answering.cluster.leader()?;
    let to = answering.cluster.other(&from);
    let (old, new) = (Events::of(answering.at[&from])?, Events::of(answering.at[&to])?);
    // The watch stands some milliseconds after the connection: what is asked for until then is read anew.
    eventually("a change to be told", PATIENCE, || {
        answering.cluster.control("pause", Some("{}")).ok()?;
        answering.cluster.control("pause", None).ok()?;
        let told = |events: &Events| events.0.try_recv().is_ok();
        (told(&old) && told(&new)).then_some(())
    })?;
    answering.cluster.transfer(&to)?;
    for (events, node, role) in [(&old, &from, "standby"), (&new, &to, "leader")] {
        let own = |name: &str, data: &Value| name == "role" && data["role"] == role;
        let began = |name: &str, data: &Value| {
            name == "change" && data["event"] == "term began" && data["node"] == json!(to)
        };
        // In either order: the one comes from the loop and the other from the store.
        let mut both = (false, false);
        events
            .wait(&description, |name, data| {
                both = (both.0 || own(name, data), both.1 || began(name, data));
                both == (true, true)
            })
            .with_context(|| format!("on {node}"))?;
    }
    answering.cluster.finish()?;
    Ok(())
}

#[test]
fn whoever_is_one_listener_too_many_is_told() -> Outcome {
    let answering = Answering::start("10s")?;
    let caller = Caller { at: answering.at["a"], authority: None, token: None };
    let listeners = (0..100).map(|_| caller.listen("/v1/events"));
    let listeners = listeners.collect::<Result<Vec<_>>>()?;
    eventually("the next one to be refused", PATIENCE, || {
        (caller.ask("GET", "/v1/events").ok()?.0 == 503).then_some(())
    })?;
    assert_eq!(answering.get("a", "/livez")?.0, 200);
    drop(listeners);
    eventually("another one to be let in", PATIENCE, || {
        caller.listen("/v1/events").ok().map(drop)
    })?;
    answering.cluster.finish()?;
    Ok(())
}

#[test]
fn without_the_store_the_last_reading_is_told_with_its_age() -> Outcome {
    let answering = Answering::start("2s")?;
    let node = answering.cluster.leader()?;
    let before = answering.json(&node, "/v1/cluster")?;
    assert_eq!(before["store_answers"], true, "{before:#}");
    answering.cluster.link(&node, Mode::Refuse)?;
    let after = eventually("the outage to be told", PATIENCE, || {
        let after = answering.json(&node, "/v1/cluster").ok()?;
        (after["store_answers"] == false).then_some(after)
    })?;
    assert_eq!(after["revision"], before["revision"], "what it had: {after:#}");
    let (status, _) = answering.get(&node, &format!("/v1/history/{ELECTION}"))?;
    assert_eq!(status, 200);
    answering.cluster.link(&node, Mode::Pass)?;
    eventually("the store to be read again", PATIENCE, || {
        let now = answering.json(&node, "/v1/cluster").ok()?;
        (now["store_answers"] == true).then_some(())
    })?;
    answering.cluster.finish()?;
    Ok(())
}

#[test]
fn who_has_no_token_is_told_nothing_and_a_renewed_certificate_is_shown() -> Outcome {
    const TOKEN: &str = "open-sesame";
    let (authority, renewed) = (Authority::new()?, Authority::new()?);
    let mut answering = Answering::start_with("10s", |node, listen| {
        let identity = authority.issue(node.name(), Some(listen.ip()))?;
        let token = node.root().join("token");
        fs::write(&token, format!("{TOKEN}\n"))?;
        node.config()["http"]["token_file"] = json!(token);
        node.config()["http"]["tls"] =
            json!({ "certificate": identity.certificate, "key": identity.key });
        Ok(())
    })?;
    let (node, old, new) = ("a", authority.certificate(), renewed.certificate());
    let at = answering.at[node];
    let ask = |authority, token, path: &str| {
        Caller { at, authority: Some(authority), token }.ask("GET", path)
    };
    eventually("the node to answer over TLS", PATIENCE, || {
        (ask(&*old, Some(TOKEN), "/readyz").ok()?.0 == 200).then_some(())
    })?;
    for path in [
        "/v1/status",
        "/v1/cluster",
        "/metrics",
        "/readyz",
        "/v1/events",
        &format!("/leader/{ELECTION}"),
    ] {
        for token in [None, Some("guess"), Some("")] {
            let (status, body) = ask(&old, token, path)?;
            assert_eq!(status, 401, "{path} with {token:?}: {body}");
            assert!(!body.contains(ELECTION), "{body}");
        }
    }
    assert_eq!(ask(&old, None, "/livez")?.0, 200, "a kubelet has no token");
    assert!(Caller { at, authority: None, token: Some(TOKEN) }.ask("GET", "/livez").is_err());
    assert!(ask(&new, Some(TOKEN), "/livez").is_err(), "not signed by that authority");

    let identity = renewed.issue(node, Some(at.ip()))?;
    let served = authority.issue(node, Some(at.ip()))?; // where its files are
    fs::rename(&identity.key, &served.key)?;
    fs::rename(&identity.certificate, &served.certificate)?;
    eventually("the renewed certificate", PATIENCE, || {
        (ask(&*new, Some(TOKEN), "/v1/status").ok()?.0 == 200).then_some(())
    })?;
    fs::write(answering.cluster.node(node).root().join("token"), "changed")?;
    eventually("the changed token", PATIENCE, || {
        (ask(&*new, Some("changed"), "/v1/status").ok()?.0 == 200).then_some(())
    })?;
    assert_eq!(ask(&new, Some(TOKEN), "/v1/status")?.0, 401);
    answering.cluster.leads_for(&answering.cluster.leader()?, Duration::from_millis(100))?;
    answering.cluster.finish()?;
    Ok(())
}
