//! Real etcd servers, private to one test.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;

use crate::address::Loopback;
use crate::process::{Process, Signal, stopped};
use crate::tls::{Authority, Identity};
use crate::{PATIENCE, beside, eventually, scratch};

/// Which etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// What Debian 12 packs.
    V3_4,
    /// The next minor release.
    V3_5,
}

impl Version {
    /// Both.
    pub const ALL: [Version; 2] = [Version::V3_4, Version::V3_5];

    /// Its number.
    pub fn name(self) -> &'static str {
        match self {
            Version::V3_4 => "3.4",
            Version::V3_5 => "3.5",
        }
    }

    /// Where `scripts/setup etcd` put it; runs that first where it is missing.
    fn directory(self) -> Result<PathBuf> {
        let dir = beside::cache()?.join(format!("etcd-{}", self.name())).join("bin");
        if !dir.join("etcd").exists() {
            set_up()?;
        }
        ensure!(dir.join("etcd").exists(), "no etcd in {}: run scripts/setup etcd", dir.display());
        Ok(dir)
    }

    /// The path of its `etcdctl`.
    ///
    /// # Errors
    ///
    /// When it is missing and cannot be installed.
    pub fn etcdctl(self) -> Result<PathBuf> {
        Ok(self.directory()?.join("etcdctl"))
    }
}

/// Installs the servers, at most once for this process.
fn set_up() -> Result<()> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !*done {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/setup");
        let status = Command::new(&script).arg("etcd").status().context("run scripts/setup")?;
        ensure!(status.success(), "no etcd servers here, and scripts/setup etcd failed: see above");
        *done = true;
    }
    Ok(())
}

/// How a server is to be.
#[derive(Default)]
pub struct Options<'a> {
    /// Serve TLS and demand client certificates of this authority.
    pub tls: Option<&'a Authority>,
    /// Demand one of these users and passwords; the first must be `root`. Every other gets all
    /// rights on every key.
    pub users: &'a [(&'a str, &'a str)],
    /// How many seconds an authentication lasts without use.
    pub auth_token_ttl: Option<u32>,
}

/// A member of an etcd cluster, running until dropped.
pub struct Etcd {
    version: Version,
    name: String,
    address: Loopback,
    /// Peers: what all members were started with.
    cluster: String,
    tls: Option<Tls>,
    login: Option<String>,
    arguments: Vec<String>,
    process: Process,
    dir: TempDir,
}

/// The files that a member and its clients use.
#[derive(Clone)]
struct Tls {
    authority: PathBuf,
    server: Identity,
    client: Identity,
}

impl Etcd {
    /// Starts one server, plain.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start(version: Version) -> Result<Self> {
        Self::start_with(version, &Options::default())
    }

    /// Starts one server.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn start_with(version: Version, options: &Options<'_>) -> Result<Self> {
        let mut members = Self::launch(version, 1, options)?;
        let mut etcd = members.pop().context("one member")?;
        etcd.wait_until_healthy()?;
        etcd.create_users(options.users)?;
        Ok(etcd)
    }

    /// Starts a cluster of several members.
    ///
    /// # Errors
    ///
    /// When one of them does not come up.
    pub fn start_cluster(version: Version, members: usize) -> Result<Vec<Self>> {
        let members = Self::launch(version, members, &Options::default())?;
        members.iter().try_for_each(Self::wait_until_healthy)?;
        Ok(members)
    }

    fn launch(version: Version, count: usize, options: &Options<'_>) -> Result<Vec<Self>> {
        let addresses = (0..count).map(|_| Loopback::claim()).collect::<Result<Vec<_>>>()?;
        let peers = addresses.iter().enumerate();
        let peers = peers.map(|(i, address)| format!("m{i}=http://{}", address.port(2380)));
        let cluster = peers.collect::<Vec<_>>().join(",");
        let members = addresses.into_iter().enumerate();
        members.map(|(i, address)| Self::member(version, i, address, &cluster, options)).collect()
    }

    fn member(
        version: Version,
        number: usize,
        address: Loopback,
        cluster: &str,
        options: &Options<'_>,
    ) -> Result<Self> {
        let name = format!("m{number}");
        let dir = scratch::directory("etcd")?;
        let tls = options.tls.map(|authority| Tls::issue(authority, &address)).transpose()?;
        let mut arguments = Vec::new();
        if !options.users.is_empty() {
            // The least there is: a login is made to be slow, and there are many.
            arguments.push("--bcrypt-cost=4".to_owned());
        }
        if let Some(seconds) = options.auth_token_ttl {
            arguments.push(format!("--auth-token-ttl={seconds}"));
        }
        let command = server(version, &name, &address, cluster, tls.as_ref(), &arguments, &dir)?;
        let process = Process::start(&name, dir.path(), command)?;
        let cluster = cluster.to_owned();
        Ok(Etcd { version, name, address, cluster, tls, login: None, arguments, process, dir })
    }

    fn create_users(&mut self, users: &[(&str, &str)]) -> Result<()> {
        let Some(((root, password), others)) = users.split_first() else { return Ok(()) };
        ensure!(*root == "root", "etcd wants the first user to be root");
        self.ctl(&["role", "add", "everything"])?;
        self.ctl(&["role", "grant-permission", "everything", "--prefix=true", "readwrite", ""])?;
        self.ctl(&["user", "add", &format!("root:{password}")])?;
        for (user, password) in others {
            self.ctl(&["user", "add", &format!("{user}:{password}")])?;
            self.ctl(&["user", "grant-role", user, "everything"])?;
        }
        self.ctl(&["user", "grant-role", "root", "root"])?;
        self.ctl(&["auth", "enable"])?;
        self.login = Some(format!("root:{password}"));
        Ok(())
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address.port(2379)
    }

    /// The client URL.
    pub fn url(&self) -> String {
        client_url(self.tls.as_ref(), &self.address)
    }

    /// The files that a TLS client needs: authority, certificate and key.
    pub fn client_files(&self) -> Option<(&Path, &Identity)> {
        self.tls.as_ref().map(|tls| (tls.authority.as_path(), &tls.client))
    }

    /// The server's process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Waits until the server answers a linearizable read.
    ///
    /// # Errors
    ///
    /// When it does not come to that.
    pub fn wait_until_healthy(&self) -> Result<()> {
        let healthy = eventually(&format!("etcd on {} to answer", self.url()), PATIENCE, || {
            self.ctl(&["endpoint", "health", "--dial-timeout=1s", "--command-timeout=2s"]).ok()
        });
        healthy.map(drop).with_context(|| self.process.output().unwrap_or_default())
    }

    /// Stops the server as an administrator would.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn stop(&mut self) -> Result<()> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(PATIENCE).map(drop)
    }

    /// Kills the server.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill_family()
    }

    /// Starts the stopped server again, on the same address and data, and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.start_again()?;
        self.wait_until_healthy()
    }

    /// Starts the stopped server again, on the same address and data.
    ///
    /// # Errors
    ///
    /// When it still runs, or cannot be started.
    pub fn start_again(&mut self) -> Result<()> {
        ensure!(self.process.ended()?.is_some(), "etcd still runs: stop or kill it first");
        let tls = self.tls.as_ref();
        let command = server(
            self.version,
            &self.name,
            &self.address,
            &self.cluster,
            tls,
            &self.arguments,
            &self.dir,
        )?;
        self.process = Process::start(&self.name, self.dir.path(), command)?;
        Ok(())
    }

    /// Has the server show and demand certificates of another authority from its next start on.
    ///
    /// # Errors
    ///
    /// When they cannot be issued.
    pub fn belong_to(&mut self, authority: &Authority) -> Result<()> {
        self.tls = Some(Tls::issue(authority, &self.address)?);
        Ok(())
    }

    /// Gives a user another password.
    ///
    /// # Errors
    ///
    /// When the server does not do it.
    pub fn change_password(&self, user: &str, password: &str) -> Result<()> {
        let mut change = self.ctl_command()?;
        change.args(["user", "passwd", "--interactive=false", user]);
        let mut change = change.stdin(Stdio::piped()).stdout(Stdio::null()).spawn()?;
        let mut input = change.stdin.take().context("etcdctl's input")?;
        writeln!(input, "{password}")?;
        drop(input);
        let status = change.wait()?;
        ensure!(status.success(), "etcdctl user passwd: {status}");
        Ok(())
    }

    /// Freezes the server: connections stand, nothing answers.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn pause(&self) -> Result<()> {
        self.process.signal(Signal::STOP)?;
        let pid = self.process.pid();
        eventually("etcd to stand still", PATIENCE, || stopped(pid).then_some(()))
    }

    /// Lets a frozen server go on.
    ///
    /// # Errors
    ///
    /// When it does not run.
    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// An `etcdctl` command for this server, ready for more arguments.
    ///
    /// # Errors
    ///
    /// When there is no etcdctl.
    pub fn ctl_command(&self) -> Result<Command> {
        self.ctl_command_as(self.login.as_deref())
    }

    /// The same, of somebody who logs in as this `user:password`.
    fn ctl_command_as(&self, login: Option<&str>) -> Result<Command> {
        let mut command = Command::new(self.version.etcdctl()?);
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", self.url()));
        command.arg(format!("--command-timeout={}s", PATIENCE.as_secs()));
        if let Some(tls) = &self.tls {
            command.arg("--cacert").arg(&tls.authority);
            command.arg("--cert").arg(&tls.client.certificate).arg("--key").arg(&tls.client.key);
        }
        if let Some(login) = login {
            command.arg(format!("--user={login}"));
        }
        Ok(command)
    }

    /// Whether a user with this password may run an `etcdctl`.
    ///
    /// # Errors
    ///
    /// When it fails for another reason than the user's rights.
    pub fn lets(&self, user: &str, password: &str, arguments: &[&str]) -> Result<bool> {
        let login = format!("{user}:{password}");
        let output = self.ctl_command_as(Some(&login))?.args(arguments).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let denied = said.contains("permission denied");
        ensure!(output.status.success() || denied, "etcdctl {arguments:?} as {user}: {said}");
        Ok(!denied)
    }

    /// Adds a user, who has no rights yet.
    ///
    /// # Errors
    ///
    /// When the server does not do it.
    pub fn add_user(&self, user: &str, password: &str) -> Result<()> {
        self.ctl(&["user", "add", &format!("{user}:{password}")]).map(drop)
    }

    /// Runs `etcdctl` and returns what it printed.
    ///
    /// # Errors
    ///
    /// When it fails, with what it said.
    pub fn ctl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.ctl_command()?.args(arguments).output().context("run etcdctl")?;
        if !output.status.success() {
            bail!("etcdctl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts an `etcdctl` that goes on running, such as `elect` or `watch`; its output is the
    /// process's.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn ctl_start(&self, name: &str, arguments: &[&str]) -> Result<Process> {
        let mut command = self.ctl_command()?;
        command.args(arguments);
        Process::start(name, self.dir.path(), command)
    }

    /// The keys that begin with `prefix`.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let listing = self.ctl(&["get", "--prefix", "--keys-only", prefix])?;
        Ok(listing.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect())
    }

    /// The value of a key, where there is one.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub fn value(&self, key: &str) -> Result<Option<String>> {
        let printed = self.ctl(&["get", "--print-value-only", key])?;
        Ok(printed.strip_suffix('\n').map(str::to_owned))
    }
}

impl Tls {
    fn issue(authority: &Authority, address: &Loopback) -> Result<Self> {
        let name = format!("etcd-{}", address.ip());
        Ok(Tls {
            authority: authority.certificate(),
            server: authority.issue(&name, Some(address.ip()))?,
            // With users, etcd would take a client certificate's common name for a login: empty.
            client: authority.issue("client", None)?,
        })
    }
}

fn client_url(tls: Option<&Tls>, address: &Loopback) -> String {
    let scheme = if tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{}", address.port(2379))
}

/// The command that runs a member.
fn server(
    version: Version,
    name: &str,
    address: &Loopback,
    cluster: &str,
    tls: Option<&Tls>,
    arguments: &[String],
    dir: &TempDir,
) -> Result<Command> {
    let client = client_url(tls, address);
    let peer = format!("http://{}", address.port(2380));
    let mut command = Command::new(version.directory()?.join("etcd"));
    command
        .args(["--name", name, "--logger=zap", "--log-outputs=stderr", "--data-dir"])
        .arg(dir.path().join("data"))
        .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
        .args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer])
        .args(["--initial-cluster", cluster, "--initial-cluster-state=new"])
        // Two clusters never take each other's members for their own.
        .args(["--initial-cluster-token", cluster])
        .args(arguments);
    if let Some(tls) = tls {
        command.arg("--client-cert-auth").arg("--trusted-ca-file").arg(&tls.authority);
        command.arg("--cert-file").arg(&tls.server.certificate);
        command.arg("--key-file").arg(&tls.server.key);
    }
    Ok(command)
}

/// A server that is shared by the tests of one process which do it no harm and use keys of their
/// own.
///
/// # Panics
///
/// When it does not come up.
pub fn shared() -> &'static Etcd {
    static SHARED: OnceLock<Etcd> = OnceLock::new();
    // Statics are never dropped: the janitor ends this one (see `scratch`).
    SHARED.get_or_init(|| Etcd::start(Version::V3_4).expect("the shared etcd"))
}

/// Long enough for every request in flight to time out at default settings.
pub const LONGER_THAN_A_REQUEST: Duration = Duration::from_secs(3);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_address_and_data_over_a_restart() {
        for version in Version::ALL {
            let mut etcd = Etcd::start(version).unwrap();
            etcd.ctl(&["put", "k", "v"]).unwrap();
            let address = etcd.address();
            etcd.stop().unwrap();
            assert!(etcd.ctl(&["get", "k", "--command-timeout=1s"]).is_err());
            etcd.restart().unwrap();
            etcd.kill().unwrap();
            etcd.restart().unwrap();
            assert_eq!(etcd.value("k").unwrap().as_deref(), Some("v"));
            assert_eq!(etcd.keys("").unwrap(), ["k"]);
            assert_eq!(etcd.address(), address);
        }
    }

    #[test]
    fn stands_still_and_goes_on() {
        let etcd = Etcd::start(Version::V3_4).unwrap();
        etcd.pause().unwrap();
        assert!(etcd.ctl(&["get", "k", "--command-timeout=1s"]).is_err());
        etcd.resume().unwrap();
        etcd.wait_until_healthy().unwrap();
    }

    #[test]
    fn demands_certificates_and_passwords() {
        let authority = Authority::new().unwrap();
        let users = [("root", "secret"), ("conclave", "word")];
        let options = Options { tls: Some(&authority), users: &users, auth_token_ttl: Some(1) };
        let etcd = Etcd::start_with(Version::V3_5, &options).unwrap();
        etcd.ctl(&["put", "k", "v"]).unwrap();
        assert!(etcd.url().starts_with("https://"));
        let bare = |arguments: &[&str]| {
            let mut command = Command::new(Version::V3_5.etcdctl().unwrap());
            command.arg("--endpoints").arg(etcd.url()).args(arguments).args(["get", "k"]);
            command.arg("--command-timeout=1s").output().unwrap().status.success()
        };
        let (ca, client) = etcd.client_files().unwrap();
        let (ca, cert, key) = (ca.display(), client.certificate.display(), client.key.display());
        let (ca, cert) = (format!("--cacert={ca}"), format!("--cert={cert}"));
        let key = format!("--key={key}");
        assert!(!bare(&[&ca, "--user=conclave:word"]), "no client certificate");
        assert!(!bare(&[&ca, &cert, &key, "--user=conclave:guess"]), "wrong password");
        assert!(!bare(&[&ca, &cert, &key]), "no user");
        assert!(bare(&[&ca, &cert, &key, "--user=conclave:word"]));
    }

    #[test]
    fn a_cluster_outlives_a_member() {
        let mut members = Etcd::start_cluster(Version::V3_5, 3).unwrap();
        members[0].kill().unwrap();
        members[1].wait_until_healthy().unwrap();
        members[2].ctl(&["put", "k", "v"]).unwrap();
        members[0].restart().unwrap();
        assert_eq!(members[0].value("k").unwrap().as_deref(), Some("v"));
    }
}
