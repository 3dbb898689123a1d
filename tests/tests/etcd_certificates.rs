//! Client certificates for etcd: what is said of one that is not accepted, and one that is renewed under a running node.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use conclave_tests::etcd::{Etcd, Options, Version};
use conclave_tests::node::{Node, control_plane_node};
use conclave_tests::pair::{CLUSTER, Pair, beats};
use conclave_tests::pod::EXCLUSIVE;
use conclave_tests::tls::{Authority, Identity};
use conclave_tests::{Outcome, PATIENCE, binary, eventually, scratch};
use serde_json::{Value, json};
use tempfile::TempDir;

fn serving(version: Version, authority: &Authority) -> Result<Etcd> {
    Etcd::start_with(version, &Options { tls: Some(authority), ..Options::default() })
}

/// The TLS files of one node, which are replaced by renames, as those do who renew certificates.
struct Files(TempDir);

impl Files {
    fn new(authority: &Authority, identity: &Identity) -> Result<Self> {
        let files = Files(scratch::directory("tls-files")?);
        files.replace(authority, identity)?;
        Ok(files)
    }

    fn replace(&self, authority: &Authority, identity: &Identity) -> Result<()> {
        let place = |from: &Path, name: &str| -> Result<()> {
            let staged = self.0.path().join(format!("{name}.new"));
            fs::copy(from, &staged)?;
            Ok(fs::rename(staged, self.0.path().join(name))?)
        };
        place(&authority.certificate(), "ca.pem")?;
        place(&identity.certificate, "client.pem")?;
        place(&identity.key, "client.key")
    }

    fn store(&self, etcd: &Etcd) -> Value {
        let file = |name: &str| self.0.path().join(name);
        let (ca, certificate, key) = (file("ca.pem"), file("client.pem"), file("client.key"));
        json!({
            "endpoints": [etcd.url()],
            "tls": { "ca": ca, "certificate": certificate, "key": key },
        })
    }
}

/// Waits for further beats of a node's session.
fn still_beats(etcd: &Etcd, node: &str) -> Result<()> {
    // A server that has just started may need a moment, and so may a busy machine.
    let seen = eventually(&format!("a session of {node}"), PATIENCE, || beats(etcd, node))?;
    eventually(&format!("two more beats of {node}"), PATIENCE, || {
        (beats(etcd, node)? >= seen + 2).then_some(())
    })
}

/// Waits for a node to say what is wrong.
fn says(node: &mut Node, words: &str) -> Result<()> {
    let guard = node.guard()?;
    let waited = eventually(&format!("the word {words:?}"), PATIENCE, || {
        guard.output().ok()?.contains(words).then_some(())
    });
    waited.with_context(|| guard.output().unwrap_or_default())
}

#[test]
fn a_certificate_that_is_not_accepted_is_told_as_such() -> Outcome {
    for version in Version::ALL {
        let (authority, stranger) = (Authority::new()?, Authority::new()?);
        let etcd = serving(version, &authority)?;
        let yesterday = SystemTime::now() - Duration::from_secs(24 * 3600);
        let expired = authority.issue_until(Some(yesterday), "expired", None)?;
        let foreign = stranger.issue("foreign", None)?;
        let (expired, foreign) =
            (Files::new(&authority, &expired)?, Files::new(&authority, &foreign)?);
        let mut none = foreign.store(&etcd);
        none["tls"] = json!({ "ca": authority.certificate() });
        for store in [expired.store(&etcd), foreign.store(&etcd), none] {
            let mut node = control_plane_node("a", CLUSTER, &[])?;
            node.config()["store"]["etcd"] = store;
            let status = || -> Result<String> {
                let mut command = Command::new(binary::conclave());
                command.arg("status").arg("--config").arg(node.write_config()?);
                let output = command.output()?;
                ensure!(output.status.code() == Some(1), "{output:?}");
                Ok(String::from_utf8(output.stderr)?)
            };
            // The server hangs up right after it has said why, and its word may be lost.
            let mut said = String::new();
            let heard = eventually("what is wrong", PATIENCE, || {
                said = status().unwrap_or_else(|error| error.to_string());
                said.contains("BadCertificate").then_some(())
            });
            heard.context(said)?;
        }
        assert_eq!(etcd.keys("/conclave/")?, [""; 0]);
    }
    Ok(())
}

#[test]
fn another_authority_takes_over_under_running_nodes() -> Outcome {
    for version in Version::ALL {
        let (old, new) = (Authority::new()?, Authority::new()?);
        let mut etcd = serving(version, &old)?;
        let files = Files::new(&old, &old.issue("node", None)?)?;
        let mut pair = Pair::start(&files.store(&etcd), "20s")?;
        let leader = pair.settle(&etcd)?;
        etcd.stop()?;
        files.replace(&new, &new.issue("node", None)?)?;
        etcd.belong_to(&new)?;
        etcd.restart()?;
        for node in ["a", "b"] {
            still_beats(&etcd, node)?;
        }
        assert_eq!(pair.observer.holders(&EXCLUSIVE), [&*leader]);
        pair.hand_over(&leader)?;
        pair.finish()?;
    }
    Ok(())
}

#[test]
fn a_renewed_certificate_is_used_before_the_old_one_expires() -> Outcome {
    let authority = Authority::new()?;
    let mut etcd = serving(Version::V3_5, &authority)?;
    let end = SystemTime::now() + Duration::from_secs(40);
    let short = authority.issue_until(Some(end), "short", None)?;
    let (renewed, forgotten) = (Files::new(&authority, &short)?, Files::new(&authority, &short)?);
    let mut pair = Pair::start_each([&renewed.store(&etcd), &forgotten.store(&etcd)], "20s")?;
    pair.settle(&etcd)?;
    renewed.replace(&authority, &authority.issue("long", None)?)?;
    says(pair.node("a")?, "connected with renewed TLS files")?;
    eventually("the old certificate to expire", PATIENCE, || {
        (SystemTime::now() > end + Duration::from_secs(1)).then_some(())
    })?;
    // What stands goes on; what is made anew needs a certificate that is valid.
    etcd.stop()?;
    etcd.restart()?;
    still_beats(&etcd, "a")?;
    says(pair.node("b")?, "ertificate")?;
    // Late is not too late.
    forgotten.replace(&authority, &authority.issue("late", None)?)?;
    still_beats(&etcd, "b")?;
    pair.finish()?;
    Ok(())
}
