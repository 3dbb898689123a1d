//! An etcd with users: what each kind of user needs, by the script that grants it, and no more; certificates that are
//! renewed under a node; and secrets that stay where they belong.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, ensure};
use conclave_tests::address::Loopback;
use conclave_tests::etcd::{Etcd, Options, Version};
use conclave_tests::http::Caller;
use conclave_tests::node::{ELECTION, Node, control_plane_node};
use conclave_tests::pod::{API_SERVER, EXCLUSIVE};
use conclave_tests::tls::Authority;
use conclave_tests::{Outcome, PATIENCE, binary, eventually, scratch};
use serde_json::{Value, json};

const CLUSTER: &str = "rights";

/// An etcd that asks everybody who they are.
struct Guarded {
    etcd: Etcd,
    dir: tempfile::TempDir,
}

impl Guarded {
    fn start(version: Version) -> Result<Self> {
        let options = Options { users: &[("root", "secret")], ..Options::default() };
        let guarded = Guarded {
            etcd: Etcd::start_with(version, &options)?,
            dir: scratch::directory("rights")?,
        };
        for (user, kind, cluster, elections) in [
            ("nodes", "node", CLUSTER, &[][..]),
            ("strangers", "node", "another", &[]),
            ("readers", "reader", CLUSTER, &[]),
            ("operators", "operator", CLUSTER, &[ELECTION]),
        ] {
            guarded.etcd.ctl(&["user", "add", &format!("{user}:word")])?;
            guarded.grant(&[&[cluster, kind, user], elections].concat())?;
            // Again, as after a mistake.
            guarded.grant(&[&[cluster, kind, user], elections].concat())?;
        }
        Ok(guarded)
    }

    fn grant(&self, arguments: &[&str]) -> Result<()> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/etcd-access/grant");
        let etcdctl = self.etcd.ctl_command()?;
        let programs = Path::new(etcdctl.get_program()).parent().context("a directory")?;
        let output = Command::new("sh")
            .arg(script)
            .args(arguments)
            .env("PATH", format!("{}:{}", programs.display(), std::env::var("PATH")?))
            .env("ETCDCTL_ENDPOINTS", self.etcd.url())
            .env("ETCDCTL_USER", "root:secret")
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn store(&self, user: &str) -> Value {
        json!({ "endpoints": [self.etcd.url()], "user": user, "password": "word" })
    }

    fn node(&self, name: &str, user: &str) -> Result<Node> {
        let mut node = control_plane_node(name, CLUSTER, &[])?;
        node.config()["store"]["etcd"] = self.store(user);
        node.start()?;
        Ok(node)
    }

    /// An operator's command, as one of etcd's users.
    fn operate(&self, user: &str, arguments: &[&str]) -> Result<Output> {
        let mut node = control_plane_node("nobody", CLUSTER, &[])?;
        node.config()["store"]["etcd"] = self.store(user);
        let config = self.dir.path().join(format!("{user}.yaml"));
        for file in EXCLUSIVE.iter().chain([&API_SERVER]) {
            ensure!(node.sources().join(file).exists(), "{file}");
        }
        let text = fs::read_to_string(node.write_config()?)?;
        let root = node.root().display();
        fs::write(
            &config,
            text.replace("\"src/", &format!("\"{root}/src/"))
                .replace("\"dst/", &format!("\"{root}/dst/")),
        )?;
        let mut command = Command::new(binary::conclave());
        command.args(arguments).arg("--config").arg(&config);
        Ok(command.output()?)
    }
}

#[test]
fn each_kind_of_user_can_do_its_work_and_nothing_else() -> Outcome {
    for version in Version::ALL {
        let guarded = Guarded::start(version)?;
        let mut nodes = [guarded.node("a", "nodes")?, guarded.node("b", "nodes")?];
        eventually("both to stand", PATIENCE, || {
            (guarded.etcd.keys(&format!("/conclave/{CLUSTER}/candidates/")).ok()?.len() == 2)
                .then_some(())
        })?;
        let leads =
            |node: &Node| EXCLUSIVE.iter().all(|file| node.destinations().join(file).exists());
        let leader = eventually("one to lead", PATIENCE, || nodes.iter().position(leads))?;
        let to = nodes[1 - leader].name().to_owned();

        for user in ["nodes", "readers", "operators"] {
            for command in [&["status"][..], &["nodes"], &["history", ELECTION]] {
                let output = guarded.operate(user, command)?;
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{user} {command:?}: {said}");
            }
        }
        for (user, command) in [
            ("readers", &["transfer", ELECTION, "--to", &to][..]),
            ("readers", &["pause"]),
            ("strangers", &["status"]),
            ("strangers", &["nodes"]),
        ] {
            let output = guarded.operate(user, command)?;
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(1), "{user} {command:?}: {said}");
            assert!(said.contains("permission denied"), "{user} {command:?}: {said}");
        }
        let moved = guarded.operate("operators", &["transfer", ELECTION, "--to", &to])?;
        assert!(moved.status.success(), "{}", String::from_utf8_lossy(&moved.stderr));
        for command in [&["pause"][..], &["resume"], &["cordon", &to], &["uncordon", &to]] {
            let output = guarded.operate("operators", command)?;
            assert!(
                output.status.success(),
                "{command:?}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        // Whom the rights are for, an operator cannot become: the keys of terms are not his.
        let mut put = Command::new(guarded.etcd.ctl_command()?.get_program());
        put.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", guarded.etcd.url()));
        put.args(["--user=operators:word", "put"]);
        put.args([format!("/conclave/{CLUSTER}/elections/{ELECTION}/leader/0"), "me".to_owned()]);
        let refused = put.output()?;
        assert!(!refused.status.success(), "{}", String::from_utf8_lossy(&refused.stdout));

        // One that may only read takes no part, and says why.
        let mut reader = guarded.node("c", "readers")?;
        eventually("the reason in the log", PATIENCE, || {
            reader.output().ok()?.contains("permission denied").then_some(())
        })?;
        for node in &mut nodes {
            assert_eq!(node.stop()?.code(), Some(0));
        }
    }
    Ok(())
}

#[test]
fn renewed_certificates_of_a_new_authority_are_taken_up_without_a_restart() -> Outcome {
    let (old, new) = (Authority::new()?, Authority::new()?);
    let options = Options { tls: Some(&old), ..Options::default() };
    let mut etcd = Etcd::start_with(Version::V3_5, &options)?;
    let (ca, client) = etcd.client_files().context("a TLS server")?;
    let (ca, client) = (ca.to_owned(), client.clone());
    let mut node = control_plane_node("a", CLUSTER, &[])?;
    node.config()["store"]["etcd"] = json!({
        "endpoints": [etcd.url()],
        "tls": { "ca": ca, "certificate": client.certificate, "key": client.key },
    });
    node.config()["timings"]["ttl"] = json!("10s");
    node.start()?;
    let placed = node.destinations().join(EXCLUSIVE[0]);
    eventually("it to lead", PATIENCE, || placed.exists().then_some(()))?;
    let (daemon, since) = (node.daemon()?, fs::metadata(&placed)?.modified()?);

    // Every file is another one, by the same name, and etcd trusts the new authority alone.
    for entry in fs::read_dir(old.directory())? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == "pem") && path != ca {
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let server = (name != "client").then(|| etcd.address().ip());
            let renewed = new.issue(&name, server)?;
            fs::rename(&renewed.key, path.with_extension("key"))?;
            fs::rename(&renewed.certificate, &path)?;
        }
    }
    fs::copy(new.certificate(), &ca)?;
    etcd.stop()?;
    etcd.restart()?;
    let beat = || -> Option<u64> {
        let record = etcd.value(&format!("/conclave/{CLUSTER}/sessions/a")).ok()??;
        serde_json::from_str::<Value>(&record).ok()?["beat"].as_u64()
    };
    let seen = eventually("etcd to answer", PATIENCE, beat)?;
    eventually("more beats", PATIENCE, || (beat()? > seen + 1).then_some(()))?;
    assert_eq!(node.daemon()?, daemon, "the same daemon");
    assert_eq!(fs::metadata(&placed)?.modified()?, since, "the same term");
    assert_eq!(node.stop()?.code(), Some(0));
    Ok(())
}

/// Everything below a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        }
        found.push(path);
    }
    Ok(found)
}

#[test]
fn secrets_stay_where_they_belong_and_state_is_private() -> Outcome {
    const SECRETS: [&str; 2] = ["s3cret-of-etcd", "s3cret-of-http"];
    let options =
        Options { users: &[("root", "secret"), ("conclave", SECRETS[0])], ..Options::default() };
    let etcd = Etcd::start_with(Version::V3_5, &options)?;
    let address = Loopback::claim()?;
    let at = address.port(8437);
    let mut node = control_plane_node("a", CLUSTER, &[])?;
    // Beside the node's own directories, which are searched.
    let secrets = scratch::directory("secrets")?;
    for (name, secret) in ["password", "token"].into_iter().zip(SECRETS) {
        fs::write(secrets.path().join(name), secret)?;
    }
    node.config()["store"]["etcd"] = json!({
        "endpoints": [etcd.url()], "user": "conclave", "password_file": secrets.path().join("password"),
    });
    node.config()["http"] =
        json!({ "listen": at.to_string(), "token_file": secrets.path().join("token") });
    // Whoever starts it may be careless.
    node.start_as(|usual| {
        let mut command = Command::new("sh");
        command
            .args(["-c", "umask 000; exec \"$0\" \"$@\""])
            .arg(usual.get_program())
            .args(usual.get_args());
        if let Some(directory) = usual.get_current_dir() {
            command.current_dir(directory);
        }
        command.env("CONCLAVE_LOG", "trace");
        command
    })?;
    let placed = node.destinations().join(EXCLUSIVE[0]);
    eventually("it to lead", PATIENCE, || placed.exists().then_some(()))?;
    let caller = Caller { at, authority: None, token: Some(SECRETS[1]) };
    let mut told = vec![("its log".to_owned(), node.output()?)];
    for path in ["/v1/status", "/v1/cluster", "/metrics", "/readyz", "/", "/openapi.yaml"] {
        told.push((
            path.to_owned(),
            eventually(path, PATIENCE, || caller.ask("GET", path).ok())?.1,
        ));
    }
    told.push(("the store".to_owned(), etcd.ctl(&["get", "--prefix", ""])?));
    let pids = [node.guard()?.pid(), node.daemon()?];
    for pid in pids {
        for file in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{pid}/{file}"))?;
            told.push((file.to_owned(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    // Its decision log is written when it has a moment.
    assert_eq!(node.stop()?.code(), Some(0));
    let state = node.root().join("state");
    for path in files(&state)?.into_iter().chain([state]) {
        let mode = fs::metadata(&path)?.permissions().mode() & 0o777;
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode & !expected, 0, "{} has mode {mode:o}", path.display());
        if path.is_file() {
            let bytes = fs::read(&path)?;
            told.push((path.display().to_string(), String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
    for (what, text) in told {
        for secret in SECRETS {
            assert!(!text.contains(secret), "{what} tells the secret {secret}");
        }
    }
    Ok(())
}
