//! A stand-in for a node's kubelet: a process for every manifest in a directory, ended when the
//! manifest goes. It notices at once where a kubelet takes its time.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::census::{Census, What};
use super::stand_in;

/// How often the directory is read; the demo's figures are as exact as this.
const GLANCE: Duration = Duration::from_millis(2);

/// Where a stand-in kubelet works.
#[derive(Clone, Debug)]
pub(super) struct Post {
    pub(super) node: &'static str,
    /// The directory whose files are manifests.
    pub(super) manifests: PathBuf,
    /// A file that is there as long as a pod runs or is about to: what the node's stop check
    /// looks at.
    pub(super) running: PathBuf,
}

/// A stand-in kubelet at work; dropping it is cutting its power: its pods end at once.
#[derive(Debug)]
pub(super) struct Kubelet {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Kubelet {
    /// Starts one. What it runs is `program` as a stand-in pod.
    pub(super) fn start(post: Post, program: PathBuf, census: Arc<Census>) -> io::Result<Self> {
        // A mark of an earlier life says nothing: a machine that boots runs no pods.
        let _ = fs::remove_file(&post.running);
        let stop = Arc::new(AtomicBool::new(false));
        let work = {
            let stop = Arc::clone(&stop);
            move || {
                let mut pods = Pods { post, program, census, running: BTreeMap::new() };
                while !stop.load(Ordering::Relaxed) {
                    pods.follow();
                    thread::sleep(GLANCE);
                }
            }
        };
        let thread = thread::Builder::new().name("kubelet".to_owned()).spawn(work)?;
        Ok(Kubelet { stop, thread: Some(thread) })
    }
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed; its pods have ended with it.
            let _ = thread.join();
        }
    }
}

/// The pods of one node.
struct Pods {
    post: Post,
    program: PathBuf,
    census: Arc<Census>,
    running: BTreeMap<OsString, (String, Child)>,
}

impl Pods {
    /// Makes what runs what the directory says.
    fn follow(&mut self) {
        let Ok(found) = manifests(&self.post.manifests) else { return };
        let gone: Vec<OsString> =
            self.running.keys().filter(|file| !found.contains_key(*file)).cloned().collect();
        for file in gone {
            if let Some((pod, child)) = self.running.remove(&file) {
                self.census.note(self.post.node, &pod, What::Removed);
                end(child);
                self.census.note(self.post.node, &pod, What::Stopped);
            }
        }
        for (file, pod) in found {
            if !self.running.contains_key(&file) {
                self.start(file, pod);
            }
        }
        if self.running.is_empty() {
            let _ = fs::remove_file(&self.post.running);
        }
    }

    fn start(&mut self, file: OsString, pod: String) {
        self.census.note(self.post.node, &pod, What::Placed);
        // The mark comes first and the manifest is looked at again: whoever removes it and then
        // finds no mark can be sure that nothing will start.
        let marked = fs::write(&self.post.running, b"");
        if marked.is_err() || !self.post.manifests.join(&file).exists() {
            self.census.note(self.post.node, &pod, What::Removed);
            return;
        }
        self.census.note(self.post.node, &pod, What::Started);
        let child = Command::new(&self.program)
            .args(stand_in::POD)
            .arg(&pod)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        match child {
            Ok(child) => {
                self.running.insert(file, (pod, child));
            }
            Err(_) => self.census.note(self.post.node, &pod, What::Stopped),
        }
    }
}

impl Drop for Pods {
    fn drop(&mut self) {
        for (pod, child) in std::mem::take(&mut self.running).into_values() {
            end(child);
            self.census.note(self.post.node, &pod, What::Stopped);
        }
        let _ = fs::remove_file(&self.post.running);
    }
}

/// Ends a pod and waits until it has.
fn end(mut child: Child) {
    // It fails only for a child that has ended.
    let _ = child.kill();
    let _ = child.wait();
}

/// The manifests in a directory: file names, and the pods they are of.
fn manifests(directory: &Path) -> io::Result<BTreeMap<OsString, String>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy().into_owned();
        // Kubelets skip names that begin with a dot; `.conclave/` is such a one.
        if let Some(pod) = text.strip_suffix(".yaml")
            && !text.starts_with('.')
        {
            found.insert(name, pod.to_owned());
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_visible_manifests_count() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["scheduler.yaml", ".hidden.yaml", "notes.txt"] {
            fs::write(directory.path().join(name), "").unwrap();
        }
        fs::create_dir(directory.path().join(".conclave")).unwrap();
        let found = manifests(directory.path()).unwrap();
        assert_eq!(found.into_values().collect::<Vec<_>>(), ["scheduler"]);
    }
}
