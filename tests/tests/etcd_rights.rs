//! etcd's users with the rights that `examples/etcd-access/grant` gives them: enough for their work, and for nothing else.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use conclave_tests::etcd::{Etcd, Options, Version};
use conclave_tests::node::{ELECTION, Node, control_plane_node};
use conclave_tests::pair::{CLUSTER, Pair, beats};
use conclave_tests::pod::EXCLUSIVE;
use conclave_tests::process::{Process, Signal};
use conclave_tests::tls::{Authority, Identity};
use conclave_tests::{Outcome, PATIENCE, binary, eventually, holds_for};
use serde_json::{Value, json};

const PASSWORD: &str = "word";

fn guarded(version: Version) -> Result<Etcd> {
    Etcd::start_with(version, &Options { users: &[("root", "secret")], ..Options::default() })
}

fn grant(etcd: &Etcd, arguments: &[&str]) -> Result<Output> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/etcd-access/grant");
    let etcdctl = etcd.ctl_command()?;
    let tools = Path::new(etcdctl.get_program()).parent().context("etcdctl's directory")?;
    let mut command = Command::new(script);
    command
        .args(arguments)
        .env("PATH", format!("{}:/usr/bin:/bin", tools.display()))
        .env("ETCDCTL_ENDPOINTS", etcd.url())
        .env("ETCDCTL_COMMAND_TIMEOUT", format!("{}s", PATIENCE.as_secs()))
        .env("ETCDCTL_USER", "root:secret");
    if let Some((authority, client)) = etcd.client_files() {
        command.env("ETCDCTL_CACERT", authority);
        command.env("ETCDCTL_CERT", &client.certificate).env("ETCDCTL_KEY", &client.key);
    }
    command.output().context("cannot run the script")
}

/// Adds a user with rights on a cluster; returns the settings of who logs in so.
fn user(etcd: &Etcd, name: &str, cluster: &str, kind: &str, elections: &[&str]) -> Result<Value> {
    etcd.add_user(name, PASSWORD)?;
    // Twice: it must not mind.
    for _ in 0..2 {
        let granted = grant(etcd, &[&[cluster, kind, name], elections].concat())?;
        ensure!(granted.status.success(), "{}", String::from_utf8_lossy(&granted.stderr));
    }
    Ok(json!({ "endpoints": [etcd.url()], "user": name, "password": PASSWORD }))
}

/// Two nodes, each a user of its own.
fn pair(etcd: &Etcd, ttl: &str) -> Result<Pair> {
    let (a, b) = (user(etcd, "a", CLUSTER, "node", &[])?, user(etcd, "b", CLUSTER, "node", &[])?);
    Pair::start_each([&a, &b], ttl)
}

/// Somebody with a configuration of the cluster, who runs commands and no node.
struct Person(Node);

impl Person {
    fn new(store: &Value) -> Result<Self> {
        let mut node = control_plane_node("person", CLUSTER, &[])?;
        node.config()["store"]["etcd"] = store.clone();
        Ok(Person(node))
    }

    fn call(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(binary::conclave());
        command.args(arguments).arg("--config").arg(self.0.write_config()?);
        command.output().context("cannot run conclave")
    }

    fn succeeds(&self, arguments: &[&str]) -> Result<String> {
        let output = self.call(arguments)?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {error}");
        Ok(String::from_utf8(output.stdout)?)
    }

    fn watches(&self) -> Result<Process> {
        let mut command = Command::new(binary::conclave());
        command.args(["watch", "--output", "json", "--config"]).arg(self.0.write_config()?);
        Process::start("watch", self.0.root(), command)
    }

    /// That it is refused for want of rights, in words that say so.
    fn is_denied(&self, arguments: &[&str]) -> Result<()> {
        let output = self.call(arguments)?;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1), "{arguments:?}: {} {error}", output.status);
        ensure!(error.contains("denies access to the cluster's keys"), "{arguments:?}: {error}");
        Ok(())
    }
}

fn key(rest: &str) -> String {
    format!("/conclave/{CLUSTER}/{rest}")
}

#[test]
fn a_nodes_rights_are_all_that_a_node_needs() -> Outcome {
    for version in Version::ALL {
        let etcd = guarded(version)?;
        let mut pair = pair(&etcd, "2s")?;
        let first = pair.settle(&etcd)?;
        let second = pair.hand_over(&first)?;
        pair.node(&first)?.start()?;
        pair.settle(&etcd)?;
        pair.hand_over(&second)?;
        let config = pair.node(&first)?.write_config()?;
        let check =
            Command::new(binary::conclave()).args(["config", "check"]).arg(config).output()?;
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
        for node in &mut pair.nodes {
            let said = node.output()?;
            assert!(!said.contains("denie"), "{said}");
        }
        pair.finish()?;
    }
    Ok(())
}

#[test]
fn a_reader_sees_everything_and_changes_nothing() -> Outcome {
    for version in Version::ALL {
        let etcd = guarded(version)?;
        let mut pair = pair(&etcd, "60s")?;
        let leader = pair.settle(&etcd)?;
        let reader = Person::new(&user(&etcd, "reader", CLUSTER, "reader", &[])?)?;
        let status: Value =
            serde_json::from_str(&reader.succeeds(&["status", "--output", "json"])?)?;
        assert_eq!(status["elections"][0]["holder_in_store"]["node"], json!(leader), "{status}");
        reader.succeeds(&["nodes"])?;
        reader.succeeds(&["history", ELECTION])?;
        reader.succeeds(&["explain", ELECTION])?;
        let other = if leader == "a" { "b" } else { "a" };
        for command in [
            &["transfer", ELECTION, "--to", other][..],
            &["step-down", ELECTION],
            &["cordon", other],
            &["pause", ELECTION],
        ] {
            reader.is_denied(command)?;
        }
        assert_eq!(etcd.keys(&key(&format!("elections/{ELECTION}/control/")))?, [""; 0]);
        assert_eq!(pair.observer.holders(&EXCLUSIVE), [&*leader]);
        let watch = reader.watches()?;
        let tells = |what: &str| {
            eventually(what, PATIENCE, || watch.output().ok()?.contains(what).then_some(()))
        };
        tells("term began")?;
        pair.hand_over(&leader)?;
        tells("term ended")?;
        pair.finish()?;
    }
    Ok(())
}

#[test]
fn an_operator_moves_terms_and_cannot_take_one() -> Outcome {
    for version in Version::ALL {
        let etcd = guarded(version)?;
        let pair = pair(&etcd, "60s")?;
        let leader = pair.settle(&etcd)?;
        let operator = Person::new(&user(&etcd, "operator", CLUSTER, "operator", &[ELECTION])?)?;
        let other = if leader == "a" { "b" } else { "a" };
        operator.succeeds(&["transfer", ELECTION, "--to", other])?;
        pair.observer.wait_for_new_holder(&EXCLUSIVE, &leader)?;
        operator.succeeds(&["pause", ELECTION])?;
        operator.succeeds(&["resume", ELECTION])?;
        operator.succeeds(&["drain", other])?;
        pair.observer.wait_for_new_holder(&EXCLUSIVE, other)?;
        operator.succeeds(&["uncordon", other])?;
        for of_nodes in [
            format!("elections/{ELECTION}/leader/1"),
            format!("candidates/{ELECTION}/a"),
            format!("history/{ELECTION}/00000000000000000001"),
            "sessions/a".to_owned(),
            "elections/other/control/pause".to_owned(),
        ] {
            let key = key(&of_nodes);
            assert!(!etcd.lets("operator", PASSWORD, &["put", &key, "{}"])?, "{key}");
            assert!(!etcd.lets("operator", PASSWORD, &["del", "--prefix", &key])?, "{key}");
        }
        pair.finish()?;
    }
    Ok(())
}

#[test]
fn a_certificates_name_is_a_user_and_needs_no_password() -> Outcome {
    for version in Version::ALL {
        let authority = Authority::new()?;
        let options =
            Options { tls: Some(&authority), users: &[("root", "secret")], ..Options::default() };
        let etcd = Etcd::start_with(version, &options)?;
        user(&etcd, "by-name", CLUSTER, "node", &[])?;
        let store = |name: &str| -> Result<Value> {
            let Identity { certificate, key } = authority.issue(name, None)?;
            let ca = authority.certificate();
            let tls = json!({ "ca": ca, "certificate": certificate, "key": key });
            Ok(json!({ "endpoints": [etcd.url()], "tls": tls }))
        };
        let mut pair = Pair::start(&store("by-name")?, "60s")?;
        let leader = pair.settle(&etcd)?;
        pair.hand_over(&leader)?;
        Person::new(&store("nobody")?)?.is_denied(&["status"])?;
        pair.finish()?;
    }
    Ok(())
}

#[test]
fn one_nodes_user_can_end_another_nodes_term() -> Outcome {
    let etcd = guarded(Version::V3_5)?;
    let pair = pair(&etcd, "60s")?;
    let leader = pair.settle(&etcd)?;
    let other = if leader == "a" { "b" } else { "a" };
    // Not what is wanted, but what is granted: the threat model says why.
    assert!(etcd.lets(other, PASSWORD, &["del", &key(&format!("sessions/{leader}"))])?);
    assert_eq!(pair.observer.wait_for_new_holder(&EXCLUSIVE, &leader)?, other);
    Ok(())
}

#[test]
fn another_clusters_users_have_nothing_of_ours() -> Outcome {
    for version in Version::ALL {
        let etcd = guarded(version)?;
        let pair = pair(&etcd, "60s")?;
        pair.settle(&etcd)?;
        // Names that begin alike: only the slash keeps them apart.
        for (name, cluster) in [("longer", "access2"), ("shorter", "acces")] {
            let store = user(&etcd, name, cluster, "node", &[])?;
            for key in [key(""), key("sessions/a")] {
                for tried in [&["get", "--prefix", &key][..], &["put", &key, "{}"], &["del", &key]]
                {
                    assert!(!etcd.lets(name, PASSWORD, tried)?, "{name} {tried:?}");
                }
            }
            Person::new(&store)?.is_denied(&["status"])?;
        }
        assert_eq!(pair.observer.holders(&EXCLUSIVE).len(), 1);
        pair.finish()?;
    }
    Ok(())
}

#[test]
fn a_node_that_lacks_rights_says_so_and_never_leads() -> Outcome {
    let etcd = guarded(Version::V3_5)?;
    let reader = user(&etcd, "reader", CLUSTER, "reader", &[])?;
    let stranger = user(&etcd, "stranger", "elsewhere", "node", &[])?;
    let mut pair = Pair::start_each([&reader, &stranger], "2s")?;
    for node in &mut pair.nodes {
        let guard = node.guard()?;
        eventually("the reason in the log", PATIENCE, || {
            guard.output().ok()?.contains("denies access to the cluster's keys").then_some(())
        })?;
    }
    holds_for("nobody leads", Duration::from_secs(3), || {
        pair.observer.holders(&EXCLUSIVE).is_empty()
    })?;
    assert_eq!(etcd.keys(&key(""))?, [""; 0]);
    pair.finish()?;
    Ok(())
}

#[test]
fn a_leader_whose_rights_are_taken_away_withdraws_before_the_next_leads() -> Outcome {
    for version in Version::ALL {
        let etcd = guarded(version)?;
        let mut pair = pair(&etcd, "2s")?;
        let leader = pair.settle(&etcd)?;
        etcd.ctl(&["user", "revoke-role", &leader, &format!("conclave-{CLUSTER}-node")])?;
        let next = pair.observer.wait_for_new_holder(&EXCLUSIVE, &leader)?;
        let said = pair.node(&leader)?.output()?;
        assert!(said.contains("denies access to the cluster's keys"), "{said}");
        // Given back, it is a candidate again, without a restart.
        let granted = grant(&etcd, &[CLUSTER, "node", &leader])?;
        assert!(granted.status.success(), "{granted:?}");
        pair.settle(&etcd)?;
        assert_eq!(pair.observer.holders(&EXCLUSIVE), [next]);
        pair.finish()?;
    }
    Ok(())
}

#[test]
fn another_login_is_taken_up_by_a_reload_without_ending_a_term() -> Outcome {
    for changed in ["user", "password"] {
        let etcd = guarded(Version::V3_5)?;
        let store = user(&etcd, "first", CLUSTER, "node", &[])?;
        let mut pair = Pair::start(&store, "60s")?;
        let leader = pair.settle(&etcd)?;
        let mut next = store;
        if changed == "user" {
            next = user(&etcd, "second", CLUSTER, "node", &[])?;
        } else {
            next["password"] = json!("other");
            etcd.change_password("first", "other")?;
        }
        for node in &mut pair.nodes {
            let daemon = node.daemon()?;
            node.config()["store"]["etcd"] = next.clone();
            node.write_config()?;
            node.signal(Signal::USR2)?;
            node.daemon_replaced(daemon)?;
        }
        if changed == "user" {
            etcd.ctl(&["user", "delete", "first"])?;
        }
        for node in ["a", "b"] {
            let seen = beats(&etcd, node).context("a session")?;
            eventually("another beat", PATIENCE, || (beats(&etcd, node)? > seen).then_some(()))?;
        }
        assert_eq!(pair.observer.holders(&EXCLUSIVE), [leader], "another {changed}");
        pair.finish()?;
    }
    Ok(())
}

#[test]
fn the_script_refuses_what_it_does_not_understand() -> Outcome {
    let etcd = guarded(Version::V3_4)?;
    etcd.add_user("somebody", PASSWORD)?;
    for (arguments, words) in [
        (&["c", "node"][..], "usage: grant CLUSTER"),
        (&["c", "chief", "somebody"], "none of node, reader and operator"),
        (&["c", "operator", "somebody"], "name the elections"),
        (&["c", "reader", "somebody", "masters"], "only an operator's rights"),
        (&["a/b", "node", "somebody"], "percent-encoding"),
        (&["", "node", "somebody"], "percent-encoding"),
        (&["c", "operator", "somebody", "a b"], "percent-encoding"),
        (&["c", "node", "nobody"], "user name not found"),
    ] {
        let output = grant(&etcd, arguments)?;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{arguments:?}: {said}");
    }
    let rights = etcd.ctl(&["user", "get", "somebody"])?;
    assert!(!rights.contains("conclave"), "{rights}");
    Ok(())
}
