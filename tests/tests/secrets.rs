//! What a node is told in confidence appears nowhere, and what it keeps is for its own user alone.
//!
//! A node leads a whole life with everything on, logging all that can be logged; then everything that it wrote or said
//! is searched.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use conclave_tests::address::Loopback;
use conclave_tests::etcd::{Etcd, Options, Version};
use conclave_tests::http::Caller;
use conclave_tests::node::{ELECTION, Node, control_plane_node, scheduler_node};
use conclave_tests::pod::SCHEDULER;
use conclave_tests::process::{Pid, Signal};
use conclave_tests::tls::{Authority, Identity};
use conclave_tests::{Outcome, PATIENCE, base64, binary, eventually, scratch};
use serde_json::{Value, json};

const CLUSTER: &str = "secrets";
const PASSWORD: &str = "hU7-etcd-password-x3";
const TOKEN: &str = "hU7-http-token-k9";
const GUESS: &str = "hU7-wrong-token-p5";

/// Everything that a node wrote or said, by where it was found.
type Finds = BTreeMap<String, Vec<u8>>;

/// A node with a login, a client certificate and a token, and the etcd that wants the first two.
struct Scene {
    node: Node,
    http: SocketAddr,
    authority: Authority,
    identities: [Identity; 2],
    etcd: Etcd,
    _address: Loopback,
}

impl Scene {
    /// `inline`: the password stands in the configuration, not in a file of its own.
    fn start(inline: bool) -> Result<Self> {
        let authority = Authority::new()?;
        let users = [("root", "secret"), ("conclave", PASSWORD)];
        // Logins expire, so that they are renewed.
        let options = Options { tls: Some(&authority), users: &users, auth_token_ttl: Some(1) };
        let etcd = Etcd::start_with(Version::V3_5, &options)?;
        let address = Loopback::claim()?;
        let http = address.port(8437);
        let client = authority.issue("a-client", None)?;
        let server = authority.issue("a-server", Some(address.ip()))?;
        let mut node = control_plane_node("a", CLUSTER, &[etcd.url()])?;
        let root = node.root().to_owned();
        fs::write(root.join("password"), format!("{PASSWORD}\n"))?;
        fs::write(root.join("token"), format!("{TOKEN}\n"))?;
        let config = node.config();
        let store = &mut config["store"]["etcd"];
        store["tls"] = json!({
            "ca": authority.certificate(), "certificate": client.certificate, "key": client.key,
        });
        store["user"] = json!("conclave");
        if inline {
            store["password"] = json!(PASSWORD);
        } else {
            store["password_file"] = json!("password");
        }
        config["http"] = json!({
            "listen": http.to_string(),
            "tls": { "certificate": server.certificate, "key": server.key },
            "token_file": "token",
        });
        config["elections"][0]["shadow"] = json!({ "policy": "preferred" });
        config["elections"][0]["role_file"] = json!("role.json");
        config["elections"][0]["hooks"] = json!({ "gained": ["/usr/bin/env"] });
        node.start_as(|mut usual| {
            usual.env("CONCLAVE_LOG", "trace");
            usual
        })?;
        let identities = [client, server];
        Ok(Scene { node, http, authority, identities, etcd, _address: address })
    }

    fn ask(&self, path: &str, token: &str) -> Result<(u16, String)> {
        let authority = self.authority.certificate();
        let caller = Caller { at: self.http, authority: Some(&authority), token: Some(token) };
        caller.ask("GET", path)
    }

    /// Waits for the node to lead, by its word and by what is in place.
    fn leads(&self) -> Result<()> {
        let content = |directory: PathBuf| fs::read(directory.join(SCHEDULER)).ok();
        eventually("the node to lead", PATIENCE, || {
            let (status, _) = self.ask(&format!("/leader/{ELECTION}"), TOKEN).ok()?;
            let placed = content(self.node.destinations())? == content(self.node.sources())?;
            (status == 200 && placed).then_some(())
        })
    }

    /// All that goes on in a node's life; returns what was found while it lived.
    fn live(&mut self) -> Result<Finds> {
        let mut finds = Finds::new();
        self.leads()?;
        let daemon = self.node.kill_daemon()?;
        let daemon = self.node.daemon_replaced(daemon)?;
        self.leads()?;
        fs::write(self.node.destinations().join(SCHEDULER), "changed by hand")?;
        let saved = self.node.root().join("state/saved");
        eventually("the changed file to be saved", PATIENCE, || saved.exists().then_some(()))?;
        self.node.signal(Signal::USR2)?;
        let daemon = self.node.daemon_replaced(daemon)?;
        self.leads()?;
        for path in ["/", "/v1/status", "/v1/cluster", "/metrics", "/openapi.yaml"] {
            let (status, body) = self.ask(path, TOKEN)?;
            ensure!(status == 200, "{path}: {body}");
            finds.insert(path.to_owned(), body.into_bytes());
            let (_, to_strangers) = self.ask(path, GUESS)?;
            finds.insert(format!("{path} without the token"), to_strangers.into_bytes());
        }
        self.ask_commands(&mut finds)?;
        for (who, pid) in [("guard", self.node.guard()?.pid()), ("daemon", daemon)] {
            for file in ["cmdline", "environ"] {
                let path = format!("/proc/{}/{file}", pid.as_raw_nonzero());
                finds.insert(format!("the {who}'s {file}"), fs::read(path)?);
            }
        }
        finds.insert("the page".to_owned(), fs::read(page_of(daemon)?)?);
        let keys = self.etcd.ctl(&["get", "--prefix", &format!("/conclave/{CLUSTER}/")])?;
        finds.insert("the cluster's keys".to_owned(), keys.into());
        Ok(finds)
    }

    fn ask_commands(&self, finds: &mut Finds) -> Result<()> {
        let config = self.node.write_config()?;
        for call in [
            &["status", "--output", "json", "--config"][..],
            &["nodes", "--config"],
            &["history", ELECTION, "--config"],
            &["explain", ELECTION, "--config"],
            &["config", "check"],
        ] {
            let mut command = Command::new(binary::conclave());
            let output = command.args(call).arg(&config).env("CONCLAVE_LOG", "trace").output()?;
            ensure!(output.status.success(), "{call:?}: {output:?}");
            finds.insert(format!("{call:?}"), [output.stdout, output.stderr].concat());
        }
        Ok(())
    }

    /// Ends the node; returns what it leaves behind.
    fn end(&mut self) -> Result<Finds> {
        ensure!(self.node.stop()?.success(), "{}", self.node.output()?);
        let mut finds = Finds::from([("the log".to_owned(), self.node.output()?.into_bytes())]);
        for path in [self.node.root().join("state"), self.node.destinations()] {
            for file in everything_in(&path)? {
                if file.is_file() {
                    finds.insert(file.display().to_string(), fs::read(&file)?);
                }
            }
        }
        finds.insert("the role file".to_owned(), fs::read(self.node.root().join("role.json"))?);
        Ok(finds)
    }

    /// What must be nowhere: as text, as it stands in an authorization header, and the keys.
    fn secrets(&self) -> Result<Vec<String>> {
        let login = base64::encode(format!("conclave:{PASSWORD}").as_bytes());
        let mut secrets = vec![PASSWORD.to_owned(), TOKEN.to_owned(), GUESS.to_owned(), login];
        for identity in &self.identities {
            let key = fs::read_to_string(&identity.key)?;
            let line = key.lines().find(|line| !line.starts_with('-')).context("a key")?;
            secrets.push(line.to_owned());
        }
        Ok(secrets)
    }
}

/// The page that guard and daemon share: the daemon was told where.
fn page_of(daemon: Pid) -> Result<PathBuf> {
    let environ = fs::read(format!("/proc/{}/environ", daemon.as_raw_nonzero()))?;
    let environ = String::from_utf8(environ)?;
    let page = environ.split('\0').find_map(|entry| entry.strip_prefix("CONCLAVE_PAGE="));
    Ok(page.context("a page")?.into())
}

/// A directory and everything in it, however deep.
fn everything_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = vec![directory.to_owned()];
    let mut at = 0;
    while let Some(path) = found.get(at).cloned() {
        if path.is_dir() {
            for entry in fs::read_dir(path)? {
                found.push(entry?.path());
            }
        }
        at += 1;
    }
    Ok(found)
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

/// Whether there is an etcd login's token: sixteen letters, a dot and a number.
fn has_login_token(text: &[u8]) -> bool {
    let words = text.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'.');
    words.filter_map(|word| std::str::from_utf8(word).ok()?.split_once('.')).any(|(head, tail)| {
        let letters = head.len() == 16 && head.bytes().all(|byte| byte.is_ascii_alphabetic());
        letters && !tail.is_empty() && tail.bytes().all(|byte| byte.is_ascii_digit())
    })
}

fn nowhere(inline: bool) -> Outcome {
    let mut scene = Scene::start(inline)?;
    let mut finds = scene.live()?;
    finds.extend(scene.end()?);
    // That the net is cast where something can be caught.
    let decisions = scene.node.root().join("state/decisions/log.jsonl").display().to_string();
    for (place, word) in [
        ("the log", "TRACE"),
        ("/v1/status", ELECTION),
        ("the cluster's keys", "sessions/a"),
        ("the daemon's cmdline", "conclave"),
        (&*decisions, ELECTION),
    ] {
        assert!(contains(&finds[place], word), "{place}");
    }
    for secret in scene.secrets()? {
        for (place, text) in &finds {
            assert!(!contains(text, &secret), "{secret} stands in {place}");
        }
    }
    for (place, text) in &finds {
        assert!(!has_login_token(text), "a login's token stands in {place}");
    }
    Ok(())
}

#[test]
fn a_password_from_a_file_and_a_token_appear_nowhere() -> Outcome {
    nowhere(false)
}

#[test]
fn a_password_in_the_configuration_appears_nowhere_else() -> Outcome {
    nowhere(true)
}

#[test]
fn a_refused_login_is_told_without_its_password() -> Outcome {
    let users = [("root", "secret"), ("conclave", "another")];
    let etcd = Etcd::start_with(Version::V3_5, &Options { users: &users, ..Options::default() })?;
    let mut node = control_plane_node("a", CLUSTER, &[etcd.url()])?;
    node.config()["store"]["etcd"]["user"] = json!("conclave");
    node.config()["store"]["etcd"]["password"] = json!(PASSWORD);
    node.start_as(|mut usual| {
        usual.env("CONCLAVE_LOG", "trace");
        usual
    })?;
    eventually("the refusal", PATIENCE, || {
        node.output().ok()?.contains("does not accept the login").then_some(())
    })?;
    let said = node.output()?;
    assert!(!said.contains(PASSWORD), "{said}");
    Ok(())
}

#[test]
fn mistakes_around_a_password_are_told_without_it() -> Outcome {
    let dir = scratch::directory("mistakes")?;
    let file = dir.path().join("conclave.yaml");
    for (login, words) in [
        (format!("    password: {PASSWORD}\n"), "store.etcd has no `user`"),
        (format!("    user: u\n    password: [{PASSWORD}]\n"), "expected text"),
        (format!("    user: u\n    password: {PASSWORD}\n    password_file: x\n"), "both"),
    ] {
        let etcd = format!("store:\n  etcd:\n    endpoints: [\"http://127.0.0.1:1\"]\n{login}");
        fs::write(&file, format!("cluster: c\nnode: {{name: a}}\n{etcd}"))?;
        let output =
            Command::new(binary::conclave()).args(["config", "check"]).arg(&file).output()?;
        let said = String::from_utf8([output.stdout, output.stderr].concat())?;
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
        assert!(!said.contains(PASSWORD), "{said}");
    }
    Ok(())
}

#[test]
fn what_a_node_keeps_is_its_users_alone_whatever_the_umask() -> Outcome {
    let dir = scratch::directory("store")?;
    let store = dir.path().join("store.db");
    let mut node = scheduler_node("a", CLUSTER, &store, |config: &mut Value| {
        config["elections"][0]["shadow"] = json!({ "policy": "preferred" });
    })?;
    node.start_as(|usual| {
        let mut loose = Command::new("/bin/sh");
        loose.args(["-c", "umask 000 && exec \"$@\"", "sh"]);
        loose.arg(usual.get_program()).args(usual.get_args());
        loose.current_dir(usual.get_current_dir().unwrap_or(Path::new("/")));
        loose
    })?;
    let destination = node.destinations().join(SCHEDULER);
    eventually("the node to lead", PATIENCE, || destination.exists().then_some(()))?;
    let old = node.kill_daemon()?;
    let daemon = node.daemon_replaced(old)?;
    fs::write(&destination, "changed by hand")?;
    let state = node.root().join("state");
    eventually("a life with everything", PATIENCE, || {
        let kept = ["saved", "decisions/log.jsonl", "cache", "ledger.json", "memory.json"];
        kept.iter().all(|name| state.join(name).exists()).then_some(())
    })?;
    let page = page_of(daemon)?;
    let mut files = everything_in(&state)?;
    // What somebody changed is saved as it was, in a directory that is private; as what is on its way to its place is.
    files.retain(|file| file.parent() != Some(&state.join("saved")));
    files.extend([node.destinations().join(".conclave"), page, store.clone()]);
    // SQLite's own, beside it.
    files.extend(["-wal", "-shm"].map(|end| store.with_extension(format!("db{end}"))));
    for file in files {
        let metadata = fs::symlink_metadata(&file).with_context(|| file.display().to_string())?;
        let mode = metadata.permissions().mode() & 0o777;
        assert_eq!(mode & 0o077, 0, "{} has mode {mode:o}", file.display());
        assert_eq!(metadata.uid(), fs::metadata(dir.path())?.uid(), "{}", file.display());
    }
    assert!(node.stop()?.success(), "{}", node.output()?);
    Ok(())
}
