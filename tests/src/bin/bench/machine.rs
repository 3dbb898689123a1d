//! The machine and its etcd: what no figure means anything without.

use std::fs::{self, File};
use std::io::{Seek as _, Write as _};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use conclave_tests::etcd::Etcd;
use conclave_tests::gateway::Gateway;
use conclave_tests::node::control_plane_node;
use conclave_tests::{binary, scratch};
use serde_json::{Value, json};

use crate::figure::Figure;

/// What is written to measure the disk: about as much as etcd's log takes for one small write.
const BLOCK: [u8; 4096] = [b'x'; 4096];

/// What this machine is, by its own account.
pub(crate) struct Machine {
    /// The processor's model.
    model: String,
    /// The cores that this process may use.
    cores: usize,
    /// The kernel's version.
    kernel: String,
    /// The load average of the last minute, before anything was measured.
    load: f64,
}

impl Machine {
    /// Asks the system.
    ///
    /// # Errors
    ///
    /// When `/proc` is not what Linux makes it.
    pub(crate) fn look() -> Result<Self> {
        let processors = fs::read_to_string("/proc/cpuinfo")?;
        let model = processors.lines().find_map(|line| line.strip_prefix("model name"));
        let model = model.and_then(|rest| rest.split_once(": ")).map(|(_, name)| name);
        let load = fs::read_to_string("/proc/loadavg")?;
        let load = load.split_whitespace().next().context("no load average")?;
        Ok(Machine {
            // Not every architecture names its model.
            model: model.unwrap_or(std::env::consts::ARCH).to_owned(),
            cores: thread::available_parallelism()?.get(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            load: load.parse()?,
        })
    }

    /// For people, in one line.
    pub(crate) fn line(&self) -> String {
        let Machine { model, cores, kernel, load } = self;
        format!("{model}, {cores} cores, Linux {kernel}, load {load:.2} before the start")
    }

    /// For machines.
    pub(crate) fn json(&self) -> Value {
        json!({
            "model": self.model,
            "cores": self.cores,
            "kernel": self.kernel,
            "load": self.load,
        })
    }
}

/// Measures one synced write of a small block to a file where etcd's data is; like etcd's log the
/// file has its full length before.
///
/// # Errors
///
/// When the file system refuses.
pub(crate) fn disk_sync(count: usize) -> Result<Figure> {
    let dir = scratch::directory("sync")?;
    let mut file = File::create(dir.path().join("log"))?;
    file.write_all(&BLOCK.repeat(count))?;
    file.sync_all()?;
    file.rewind()?;
    let samples: Result<Vec<Duration>> = (0..count)
        .map(|_| {
            let began = Instant::now();
            file.write_all(&BLOCK)?;
            file.sync_data()?;
            Ok(began.elapsed())
        })
        .collect();
    Ok(Figure::times("disk-sync", "disk: one synced write of 4 KiB", &samples?))
}

/// Measures one write to etcd over its JSON gateway, which includes the gateway's own cost.
///
/// # Errors
///
/// When etcd does not answer.
pub(crate) fn store_write(etcd: &Etcd, count: usize) -> Result<Figure> {
    let mut gateway = Gateway::connect(etcd.address())?;
    let samples: Result<Vec<Duration>> = (0..count)
        .map(|number| {
            let began = Instant::now();
            gateway.put("/bench/write", &number.to_string())?;
            Ok(began.elapsed())
        })
        .collect();
    Ok(Figure::times("store-write", "etcd: one write, over its JSON gateway", &samples?))
}

/// What `conclave config check` says of the store: Conclave's own measurement.
///
/// # Errors
///
/// When the check fails.
pub(crate) fn config_check(etcd: &Etcd) -> Result<String> {
    let node = control_plane_node("check", "check", &[etcd.url()])?;
    let mut command = Command::new(binary::conclave());
    command.args(["config", "check"]).arg(node.write_config()?);
    let output = command.output().context("run conclave config check")?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "conclave config check: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let line = said.lines().find_map(|line| line.strip_prefix("store: "));
    Ok(line.context("conclave config check measured no store")?.to_owned())
}
