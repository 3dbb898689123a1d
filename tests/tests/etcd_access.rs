//! The ways to an etcd: certificates, passwords, dead endpoints, and a server of the old API.

use anyhow::Context;
use conclave_tests::etcd::{Etcd, Options, Version};
use conclave_tests::node::control_plane_node;
use conclave_tests::pair::{CLUSTER, Pair, beats};
use conclave_tests::pod::EXCLUSIVE;
use conclave_tests::proxy::{Mode, Proxy};
use conclave_tests::tls::Authority;
use conclave_tests::v2_server::V2Server;
use conclave_tests::{Outcome, PATIENCE, eventually};
use serde_json::{Value, json};

fn tls(etcd: &Etcd) -> Value {
    let (ca, client) = etcd.client_files().expect("a TLS server");
    json!({ "ca": ca, "certificate": client.certificate, "key": client.key })
}

#[test]
fn tls_with_client_certificates() -> Outcome {
    for version in Version::ALL {
        let authority = Authority::new()?;
        let options = Options { tls: Some(&authority), ..Options::default() };
        let etcd = Etcd::start_with(version, &options)?;
        let store = json!({ "endpoints": [etcd.url()], "tls": tls(&etcd) });
        let mut pair = Pair::start(&store, "60s")?;
        let leader = pair.settle(&etcd)?;
        pair.hand_over(&leader)?;
        pair.finish()?;
    }
    Ok(())
}

#[test]
fn a_server_of_another_authority_is_not_trusted() -> Outcome {
    let (authority, stranger) = (Authority::new()?, Authority::new()?);
    let options = Options { tls: Some(&authority), ..Options::default() };
    let etcd = Etcd::start_with(Version::V3_5, &options)?;
    let mut trust = tls(&etcd);
    trust["ca"] = json!(stranger.certificate());
    let mut pair = Pair::start(&json!({ "endpoints": [etcd.url()], "tls": trust }), "2s")?;
    // Whether it ends or goes on trying, it says what is wrong with the certificate.
    for node in &mut pair.nodes {
        let guard = node.guard()?;
        eventually("the reason in the log", PATIENCE, || {
            guard.output().ok()?.to_lowercase().contains("certificate").then_some(())
        })?;
    }
    assert!(etcd.keys("/conclave/")?.is_empty());
    pair.finish()?;
    Ok(())
}

#[test]
fn an_expired_login_is_renewed() -> Outcome {
    for version in Version::ALL {
        let users = [("root", "secret"), ("conclave", "word")];
        let options = Options { users: &users, auth_token_ttl: Some(1), ..Options::default() };
        let mut etcd = Etcd::start_with(version, &options)?;
        let store = json!({ "endpoints": [etcd.url()], "user": "conclave", "password": "word" });
        // A beat every three seconds: each finds that the login before it has expired.
        let mut pair = Pair::start(&store, "15s")?;
        let leader = pair.settle(&etcd)?;
        let seen = beats(&etcd, &leader).context("a session")?;
        eventually("four more beats", PATIENCE, || {
            (beats(&etcd, &leader)? >= seen + 4).then_some(())
        })?;
        // A restarted server knows no login at all.
        etcd.stop()?;
        etcd.restart()?;
        let seen = beats(&etcd, &leader).context("a session")?;
        eventually("another beat", PATIENCE, || (beats(&etcd, &leader)? > seen).then_some(()))?;
        assert_eq!(pair.observer.holders(&EXCLUSIVE), [&*leader]);
        pair.hand_over(&leader)?;
        pair.finish()?;
    }
    Ok(())
}

#[test]
fn certificates_and_passwords_together() -> Outcome {
    let authority = Authority::new()?;
    let users = [("root", "secret"), ("conclave", "word")];
    let options = Options { tls: Some(&authority), users: &users, auth_token_ttl: Some(1) };
    let etcd = Etcd::start_with(Version::V3_4, &options)?;
    let file = conclave_tests::scratch::directory("secrets")?;
    let password = file.path().join("password");
    std::fs::write(&password, "word\n")?;
    let store = json!({
        "endpoints": [etcd.url()], "tls": tls(&etcd), "user": "conclave", "password_file": password,
    });
    let mut pair = Pair::start(&store, "60s")?;
    let leader = pair.settle(&etcd)?;
    pair.hand_over(&leader)?;
    pair.finish()?;
    Ok(())
}

#[test]
fn a_dead_endpoint_among_several_is_passed_over() -> Outcome {
    for mode in [Mode::Refuse, Mode::BlackHole] {
        let etcd = Etcd::start(Version::V3_5)?;
        let dead = Proxy::start(etcd.address())?;
        dead.set(mode)?;
        let store = json!({ "endpoints": [dead.url(), etcd.url()] });
        let mut pair = Pair::start(&store, "10s")?;
        let leader = pair.settle(&etcd)?;
        pair.hand_over(&leader)?;
        pair.finish()?;
    }
    Ok(())
}

#[test]
fn a_server_of_the_old_api_is_named_as_such() -> Outcome {
    let server = V2Server::start()?;
    let endpoint = format!("http://{}", server.address());
    let mut node = control_plane_node("a", CLUSTER, &[endpoint])?;
    node.start()?;
    let status = node.guard()?.wait(PATIENCE)?;
    let said = node.output()?;
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("v3") && said.contains("2.3.8"), "{said}");
    Ok(())
}
