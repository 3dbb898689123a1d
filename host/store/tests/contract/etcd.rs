//! What only a server across a network can do to us: failing links, dead endpoints, logins that
//! expire, certificates that are renewed, other APIs, other competitors.

use std::collections::BTreeSet;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use conclave_core::{Key, Request, Revision};
use conclave_store::{
    EtcdConfig, EtcdStore, Login, Reply, Store, StoreError, TlsFiles, Watch, WatchEvent,
};
use conclave_tests::address::Loopback;
use conclave_tests::etcd::{Etcd, Options, Version};
use conclave_tests::proxy::{Mode, Proxy};
use conclave_tests::tls::Authority;
use conclave_tests::v2_server::V2Server;
use tokio::time::{sleep, timeout};

use crate::scene::{Scene, TIMEOUT, hand_over, resign, session_record};
use crate::world::{EtcdServer, etcd_config};

/// Short enough to wait for, long enough for a healthy request on a busy machine.
const SHORT: Duration = Duration::from_secs(1);

/// A configuration that notices a silent endpoint soon.
fn hasty(endpoints: Vec<String>) -> EtcdConfig {
    EtcdConfig { request_timeout: SHORT, ..etcd_config(endpoints, "c") }
}

fn claim(node: &str) -> Request {
    Request::CreateSession { node: node.into(), record: session_record(node, 0) }
}

async fn connect(config: EtcdConfig) -> EtcdStore {
    EtcdStore::connect(config).await.expect("the store connects")
}

async fn list(store: &EtcdStore) -> Result<Reply, StoreError> {
    store.execute(Request::List, TIMEOUT).await
}

/// Tries until the store answers.
async fn until_applied(store: &EtcdStore, request: Request) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match store.execute(request.clone(), SHORT).await {
            // An attempt whose answer was lost may have been the one that was applied.
            Ok(_) => return,
            Err(error) => assert!(Instant::now() < deadline, "not in time: {error}"),
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Follows a watch until it has told of a node's session.
async fn until_told(watch: &mut Watch, node: &str) {
    let key = Key::Session(node.into());
    loop {
        match timeout(TIMEOUT, watch.next()).await.expect("news in time") {
            Some(WatchEvent::Changes { entries, .. }) => {
                if entries.iter().any(|entry| entry.key == key && entry.stored.is_some()) {
                    return;
                }
            }
            Some(WatchEvent::Progress { .. }) => {}
            other => panic!("the watch ended: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_endpoints_are_passed_by() {
    let server = Etcd::start(Version::V3_4).unwrap();
    let refusing = Loopback::claim().unwrap();
    let silent = Proxy::start(server.address()).unwrap();
    silent.set(Mode::BlackHole).unwrap();
    let endpoints = vec![format!("http://{}", refusing.port(2379)), silent.url(), server.url()];
    let store = connect(hasty(endpoints)).await;
    for node in ["a", "b"] {
        store.execute(claim(node), TIMEOUT).await.expect("the live endpoint is in use");
    }
    let mut watch = store.watch(Revision(1));
    until_told(&mut watch, "b").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_falls_silent_costs_one_request() {
    let server = Etcd::start(Version::V3_5).unwrap();
    let links = [Proxy::start(server.address()).unwrap(), Proxy::start(server.address()).unwrap()];
    let store = connect(hasty(links.iter().map(Proxy::url).collect())).await;
    let mut watch = store.watch(Revision(1));
    for (round, silent) in [0, 1, 0, 1].into_iter().enumerate() {
        links[silent].set(Mode::BlackHole).unwrap();
        // It fails if this endpoint was in use, and succeeds if it was not.
        let _ = store.execute(claim(&format!("lost {round}")), SHORT).await;
        let node = format!("node {round}");
        store.execute(claim(&node), TIMEOUT).await.expect("the other endpoint is in use");
        until_told(&mut watch, &node).await;
        links[silent].cut();
        links[silent].set(Mode::Pass).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_is_sent_once() {
    let server = Etcd::start(Version::V3_4).unwrap();
    let links = [Proxy::start(server.address()).unwrap(), Proxy::start(server.address()).unwrap()];
    links[1].set(Mode::Refuse).unwrap();
    let store = connect(hasty(links.iter().map(Proxy::url).collect())).await;
    list(&store).await.expect("the first link is in use");
    links[1].set(Mode::Pass).unwrap();
    links[0].set(Mode::LoseReplies).unwrap();
    let error = store.execute(claim("a"), SHORT).await.unwrap_err();
    assert!(matches!(error, StoreError::TimedOut { .. }), "sent again, it is rejected: {error}");
    store.execute(claim("b"), TIMEOUT).await.expect("the second link is in use");
    until_told(&mut store.watch(Revision(1)), "a").await;

    // A reading may be asked again; from then on the link that answers is in use.
    links[0].cut();
    links[0].set(Mode::Pass).unwrap();
    links[1].set(Mode::LoseReplies).unwrap();
    list(&store).await.expect("the first link answers");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_ends_for_requests_and_watches() {
    let mut server = Etcd::start(Version::V3_5).unwrap();
    let store = connect(hasty(vec![server.url()])).await;
    let cluster = list(&store).await.unwrap().cluster;
    let mut watch = store.watch(Revision(1));
    until_applied(&store, claim("before")).await;
    until_told(&mut watch, "before").await;

    server.kill().unwrap();
    let error = store.execute(claim("meanwhile"), TIMEOUT).await.unwrap_err();
    assert_eq!(error.kind(), "unreachable", "{error}");
    server.restart().unwrap();
    until_applied(&store, claim("restarted")).await;
    until_told(&mut watch, "restarted").await;
    assert_eq!(list(&store).await.unwrap().cluster, cluster);

    server.pause().unwrap();
    let begun = Instant::now();
    let error = store.execute(claim("paused"), SHORT).await.unwrap_err();
    assert!(matches!(error, StoreError::TimedOut { .. }), "{error}");
    assert!(begun.elapsed() >= SHORT / 2);
    server.resume().unwrap();
    until_applied(&store, claim("resumed")).await;
    until_told(&mut watch, "resumed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_may_be_away_at_first() {
    let mut server = Etcd::start(Version::V3_4).unwrap();
    server.kill().unwrap();
    let store = connect(hasty(vec![server.url()])).await;
    assert_eq!(list(&store).await.unwrap_err().kind(), "unreachable");
    let mut watch = store.watch(Revision(1));
    server.restart().unwrap();
    until_applied(&store, claim("a")).await;
    until_told(&mut watch, "a").await;
}

/// Endpoint, authority and a copy of the client's identity, which may be exchanged.
struct Secured {
    config: EtcdConfig,
    certificate: PathBuf,
    key: PathBuf,
}

fn secured(server: &Etcd, dir: &Path) -> Secured {
    let (authority, identity) = server.client_files().expect("it serves TLS");
    let (certificate, key) = (dir.join("client.pem"), dir.join("client.key"));
    fs::copy(&identity.certificate, &certificate).unwrap();
    fs::copy(&identity.key, &key).unwrap();
    let files = TlsFiles {
        identity: Some((certificate.clone(), key.clone())),
        reread: Duration::from_millis(100),
        ..TlsFiles::new(authority)
    };
    let config = EtcdConfig { tls: Some(files), ..etcd_config(vec![server.url()], "c") };
    Secured { config, certificate, key }
}

fn serve_tls(version: Version, authority: &Authority) -> Etcd {
    Etcd::start_with(version, &Options { tls: Some(authority), ..Options::default() }).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_with_client_certificates() {
    for version in Version::ALL {
        let authority = Authority::new().unwrap();
        let server = serve_tls(version, &authority);
        let dir = tempfile::tempdir().unwrap();
        let Secured { config, .. } = secured(&server, dir.path());
        let store = connect(config.clone()).await;
        let mut watch = store.watch(Revision(1));
        store.execute(claim("a"), TIMEOUT).await.unwrap();
        until_told(&mut watch, "a").await;

        let files = config.tls.clone().unwrap();
        let anonymous = TlsFiles { identity: None, ..files.clone() };
        let stranger = Authority::new().unwrap();
        let distrusted = TlsFiles { authority: stranger.certificate(), ..files.clone() };
        let misnamed = TlsFiles { server_name: Some("elsewhere".into()), ..files };
        for files in [anonymous, distrusted, misnamed] {
            let store = connect(EtcdConfig { tls: Some(files), ..config.clone() }).await;
            let error = store.execute(claim("b"), TIMEOUT).await.unwrap_err();
            assert_eq!(error.kind(), "unreachable", "{error:?}");
        }
    }
}

/// The local ports of this process's connections to an address; a server may have some too.
fn local_ports(remote: SocketAddr) -> BTreeSet<u16> {
    let std::net::IpAddr::V4(ip) = remote.ip() else { panic!("the tests use IPv4") };
    let remote = format!("{:08X}:{:04X}", u32::from_le_bytes(ip.octets()), remote.port());
    let table = fs::read_to_string("/proc/self/net/tcp").unwrap();
    let links =
        fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| fs::read_link(fd.ok()?.path()).ok());
    let ours: BTreeSet<_> = links.map(|link| link.to_string_lossy().into_owned()).collect();
    let mut ports = BTreeSet::new();
    for line in table.lines().skip(1) {
        let fields: Vec<_> = line.split_whitespace().collect();
        if fields[2] == remote
            && fields[3] == "01"
            && ours.contains(&format!("socket:[{}]", fields[9]))
        {
            let (_, port) = fields[1].split_once(':').unwrap();
            ports.insert(u16::from_str_radix(port, 16).unwrap());
        }
    }
    ports
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !holds() {
        assert!(Instant::now() < deadline, "never {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_certificates_are_used_and_bad_ones_are_not() {
    let authority = Authority::new().unwrap();
    let server = serve_tls(Version::V3_5, &authority);
    let dir = tempfile::tempdir().unwrap();
    let Secured { config, certificate, key } = secured(&server, dir.path());
    let store = connect(config).await;
    let mut watch = store.watch(Revision(1));
    list(&store).await.unwrap();
    let first = local_ports(server.address());
    assert!(!first.is_empty());

    // A stranger's certificate is not accepted, half a file is none: what stands goes on.
    let strangers = Authority::new().unwrap();
    let stranger = strangers.issue("stranger", None).unwrap();
    let stranger = fs::read_to_string(stranger.certificate).unwrap();
    for (node, bad) in [("half", "-----BEGIN CERT"), ("none", ""), ("stranger", &stranger)] {
        fs::write(&certificate, bad).unwrap();
        // There is nothing to wait for: that nothing happens is under test.
        sleep(Duration::from_millis(500)).await;
        store.execute(claim(node), TIMEOUT).await.expect("the old connection serves");
        until_told(&mut watch, node).await;
        assert!(!local_ports(server.address()).is_disjoint(&first));
    }

    let renewed = authority.issue("renewed", None).unwrap();
    fs::copy(&renewed.key, &key).unwrap();
    fs::copy(&renewed.certificate, &certificate).unwrap();
    let renewed = || local_ports(server.address()).is_disjoint(&first);
    eventually("connected with the new certificate only", renewed).await;
    store.execute(claim("renewed"), TIMEOUT).await.expect("the new connection serves");
    until_told(&mut watch, "renewed").await;
}

#[tokio::test]
async fn what_cannot_work_is_said_at_once() {
    let missing = TlsFiles::new("/nonexistent/ca.pem");
    let config = EtcdConfig { tls: Some(missing), ..hasty(vec!["https://127.0.0.1:1".into()]) };
    let error = EtcdStore::connect(config).await.unwrap_err();
    assert!(error.to_string().contains("/nonexistent/ca.pem"), "{error}");

    let dir = tempfile::tempdir().unwrap();
    let empty = dir.path().join("ca.pem");
    fs::write(&empty, "not a certificate").unwrap();
    let files = TlsFiles::new(&empty);
    let config = EtcdConfig { tls: Some(files), ..hasty(vec!["https://127.0.0.1:1".into()]) };
    let error = EtcdStore::connect(config.clone()).await.unwrap_err();
    assert!(error.to_string().contains("holds no PEM block"), "{error}");
    fs::write(&empty, "-----BEGIN CERTIFICATE-----\nhalf a certificate").unwrap();
    let error = EtcdStore::connect(config).await.unwrap_err();
    assert!(matches!(error, StoreError::Config { .. }), "{error}");

    for endpoints in [vec![], vec!["ftp://a".to_owned()], vec!["https://a:2379".to_owned()]] {
        let error = EtcdStore::connect(hasty(endpoints)).await.unwrap_err();
        assert!(matches!(error, StoreError::Config { .. }), "{error}");
    }
}

fn login(user: &str, password: &str) -> Option<Login> {
    Some(Login { user: user.into(), password: password.into() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_outlives_its_token() {
    for version in Version::ALL {
        let users = [("root", "rootpw"), ("conclave", "secret")];
        let options = Options { users: &users, auth_token_ttl: Some(1), ..Options::default() };
        let server = Etcd::start_with(version, &options).unwrap();
        let config = EtcdConfig {
            login: login("conclave", "secret"),
            ..etcd_config(vec![server.url()], "c")
        };
        let store = connect(config.clone()).await;
        let mut watch = store.watch(Revision(1));
        store.execute(claim("a"), TIMEOUT).await.unwrap();
        until_told(&mut watch, "a").await;

        // Time itself is under test: the token expires without use.
        sleep(Duration::from_secs(3)).await;
        store.execute(claim("b"), TIMEOUT).await.expect("a new token is fetched");
        until_told(&mut watch, "b").await;
        sleep(Duration::from_secs(3)).await;
        until_told(&mut store.watch(Revision(1)), "b").await;

        // Any change of users or rights makes every token outdated.
        server.ctl(&["user", "add", "nobody:nothing"]).unwrap();
        store.execute(claim("c"), TIMEOUT).await.expect("a new token is fetched");
        server.ctl(&["user", "add", "somebody:nothing"]).unwrap();
        until_told(&mut store.watch(Revision(1)), "c").await;

        let wrong = EtcdConfig { login: login("conclave", "wrong"), ..config.clone() };
        let error = EtcdStore::connect(wrong).await.unwrap_err();
        assert!(matches!(error, StoreError::Authentication { .. }), "{error}");
        let powerless = EtcdConfig { login: login("nobody", "nothing"), ..config.clone() };
        let error = EtcdStore::connect(powerless).await.unwrap_err();
        assert!(matches!(error, StoreError::PermissionDenied { .. }), "{error}");
        let error = EtcdStore::connect(EtcdConfig { login: None, ..config }).await.unwrap_err();
        assert!(matches!(error, StoreError::Authentication { .. }), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shaking_hands_may_take_longer_than_a_request() {
    let users = [("root", "rootpw"), ("conclave", "secret")];
    let options = Options { users: &users, ..Options::default() };
    let server = Etcd::start_with(Version::V3_5, &options).unwrap();
    let link = Proxy::start(server.address()).unwrap();
    // With what HTTP/2 has to say meanwhile, connecting takes the link six delays and more, for a
    // login and a reading, and a request three or four, for which there is time.
    link.set(Mode::Delay(SHORT / 5)).unwrap();
    let config = hasty(vec![link.url()]);
    let store = connect(EtcdConfig { login: login("conclave", "secret"), ..config }).await;
    until_applied(&store, claim("a")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_login_together() {
    let authority = Authority::new().unwrap();
    let options = Options {
        tls: Some(&authority),
        users: &[("root", "rootpw"), ("conclave", "secret")],
        auth_token_ttl: None,
    };
    let server = Etcd::start_with(Version::V3_5, &options).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let Secured { config, .. } = secured(&server, dir.path());
    let store = connect(EtcdConfig { login: login("conclave", "secret"), ..config }).await;
    store.execute(claim("a"), TIMEOUT).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_v3_is_named() {
    let old = V2Server::start().unwrap();
    let url = format!("http://{}", old.address());
    let error = EtcdStore::connect(etcd_config(vec![url.clone()], "c")).await.unwrap_err();
    let StoreError::NoV3Api { endpoint, version } = &error else { panic!("{error:?}") };
    assert_eq!((endpoint, version.as_str()), (&url, "2.3.8"));
    assert!(error.to_string().contains("no etcd v3 API"));

    let server = Etcd::start(Version::V3_4).unwrap();
    let store = connect(hasty(vec![url, server.url()])).await;
    store.execute(claim("a"), TIMEOUT).await.expect("the other endpoint serves");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcds_own_elections_and_ours_exclude_each_other() {
    for version in Version::ALL {
        let server = EtcdServer::start(version).await;
        let scene = Scene::open(Arc::new(server), "c").await;
        let term = scene.term("e", "a").await;
        let b = scene.candidate("e", "b").await;
        let etcd = scene.world.etcd().expect("it is etcd");
        let prefix = scene.keys.leader_prefix(&"e".into());
        let leader = etcd.client().leader(prefix.as_str()).await.unwrap();
        let leader = leader.kv().expect("somebody leads").create_revision();
        assert_eq!(leader.unsigned_abs(), term.token.0, "etcd's recipe sees our leader");

        let rival = etcd.server().ctl_start("rival", &["elect", &prefix, "rival"]).unwrap();
        let queued = loop {
            let (_, seen) = scene.apply(Request::ReadLeader { election: "e".into() }).await;
            match seen.0.into_iter().find(|it| it.stored.as_ref().is_some_and(|it| it.leased)) {
                Some(entry) => break entry.key,
                None => sleep(Duration::from_millis(20)).await,
            }
        };
        let seen = scene.reject(hand_over(&term, &b)).await;
        assert!(seen.stored(&queued).leased);
        scene.apply(resign(&term)).await;
        let leader = etcd.client().leader(prefix.as_str()).await.unwrap();
        assert_eq!(leader.kv().expect("somebody leads").value(), b"rival");
        scene.reject(crate::scene::take(&b, Revision(0))).await;
        drop(rival);
    }
}
