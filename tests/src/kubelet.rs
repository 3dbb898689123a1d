//! A stand-in for a node's kubelet, which takes its time as a real one does: it looks at its directory every now and
//! then, starts what a manifest names, and ends what has none any more, with a grace period.
//!
//! Real processes run for the pods, and a census that all kubelets share counts how many of a name ran at once.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use rustix::process::{Signal, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

use crate::process::Process;
use crate::scratch;

/// How many pods of each name run, and ran at once at most, over all nodes.
#[derive(Debug, Default)]
pub struct Census(Mutex<BTreeMap<String, (usize, usize)>>);

impl Census {
    /// How many of a name run now.
    pub fn running(&self, name: &str) -> usize {
        self.count(name).0
    }

    /// How many of a name ran at once at most.
    pub fn most(&self, name: &str) -> usize {
        self.count(name).1
    }

    /// From now on only what runs now has run at once.
    pub fn begin_anew(&self) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.values_mut().for_each(|(now, most)| *most = *now);
    }

    fn count(&self, name: &str) -> (usize, usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied().unwrap_or_default()
    }

    fn change(&self, name: &str, started: bool) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (now, most) = counts.entry(name.to_owned()).or_default();
        *now = if started { *now + 1 } else { *now - 1 };
        *most = (*most).max(*now);
    }
}

/// How a kubelet works.
#[derive(Clone)]
pub struct Habits {
    /// How often it looks at its directory.
    pub every: Duration,
    /// How long a pod gets to end; a manifest's own word counts more.
    pub grace: Duration,
    /// What runs for a manifest.
    pub run: Arc<dyn Fn(&Value) -> Command + Send + Sync>,
}

/// A kubelet at work. Dropping it is cutting its power: its pods end at once.
pub struct Kubelet {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kubelet {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// When there is no room for its pods' logs.
    pub fn start(manifests: &Path, habits: Habits, census: &Arc<Census>) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let mut pods = Pods {
            manifests: manifests.to_owned(),
            habits,
            census: Arc::clone(census),
            running: BTreeMap::new(),
            logs: scratch::directory("kubelet")?,
        };
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut next = Instant::now();
            while !stopped.load(Ordering::Relaxed) {
                if Instant::now() >= next {
                    next = Instant::now() + pods.habits.every;
                    pods.look();
                }
                pods.end_and_reap();
                thread::sleep(Duration::from_millis(5));
            }
            pods.cut_power();
        });
        Ok(Kubelet { stop, thread: Some(thread) })
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // One that panicked has told so.
            let _ = thread.join();
        }
    }
}

struct Pods {
    manifests: PathBuf,
    habits: Habits,
    census: Arc<Census>,
    running: BTreeMap<PathBuf, Pod>,
    logs: TempDir,
}

struct Pod {
    name: String,
    text: String,
    process: Process,
    grace: Duration,
    /// When it is killed, once it was asked to end.
    kill_at: Option<Instant>,
}

impl Pods {
    /// Starts what is new, and asks what is gone or changed to end.
    fn look(&mut self) {
        let mut there = BTreeMap::new();
        for entry in fs::read_dir(&self.manifests).into_iter().flatten().flatten() {
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if !hidden && let Ok(text) = fs::read_to_string(entry.path()) {
                there.insert(entry.path(), text);
            }
        }
        for (path, pod) in &mut self.running {
            if there.get(path) != Some(&pod.text) && pod.kill_at.is_none() {
                pod.signal(Signal::TERM);
                pod.kill_at = Some(Instant::now() + pod.grace);
            }
        }
        for (path, text) in there {
            if !self.running.contains_key(&path)
                && let Some(pod) = self.start(text)
            {
                self.running.insert(path, pod);
            }
        }
    }

    fn start(&self, text: String) -> Option<Pod> {
        let manifest: Value = serde_yaml::from_str(&text).ok()?;
        let name = manifest["metadata"]["name"].as_str()?.to_owned();
        let grace = manifest["spec"]["terminationGracePeriodSeconds"].as_u64();
        let grace = grace.map_or(self.habits.grace, Duration::from_secs);
        let command = (self.habits.run)(&manifest);
        let process = Process::start(&name, self.logs.path(), command).ok()?;
        self.census.change(&name, true);
        Some(Pod { name, text, process, grace, kill_at: None })
    }

    fn end_and_reap(&mut self) {
        let census = &self.census;
        self.running.retain(|_, pod| {
            if pod.kill_at.is_some_and(|at| Instant::now() >= at) {
                pod.signal(Signal::KILL);
            }
            let runs = matches!(pod.process.ended(), Ok(None));
            if !runs {
                census.change(&pod.name, false);
            }
            runs
        });
    }

    fn cut_power(&mut self) {
        for pod in self.running.values_mut() {
            // Everything that it started, whichever group that is in by now.
            if let Err(error) = pod.process.kill_family() {
                eprintln!("{}: {error:#}", pod.name);
            }
            self.census.change(&pod.name, false);
        }
        self.running.clear();
    }
}

impl Pod {
    fn signal(&self, signal: Signal) {
        // It fails only for one that has ended, whose leader is not reaped yet.
        let _ = kill_process_group(self.process.pid(), signal);
    }
}

/// The command of a manifest's first container, to be run on this machine itself.
pub fn first_container(manifest: &Value) -> Command {
    let words = manifest["spec"]["containers"][0]["command"].as_array();
    let mut words = words.into_iter().flatten().filter_map(Value::as_str);
    let mut command = Command::new(words.next().unwrap_or("false"));
    command.args(words);
    command
}
