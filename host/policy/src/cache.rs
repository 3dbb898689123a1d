//! Compiled components on disk, so that a start does not wait for a compiler.
//!
//! An entry is named after the component's digest and wasmtime's compatibility hash, which covers
//! its version, its settings and the processor, and holds the digest of its content before the
//! content. Whatever does not fit is compiled again. Compiled code is trusted code: it lies in a
//! directory that only this user may enter, and never comes from the plugin directory.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::digest::Digest;

/// How many entries are kept; the oldest go.
const ENTRIES: usize = 64;

pub(crate) struct Cache {
    directory: PathBuf,
    compatibility: u64,
}

impl Cache {
    /// Makes the directory private, and creates it if need be.
    pub(crate) fn open(directory: &Path, engine: &Engine) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
        let metadata = fs::symlink_metadata(directory)?;
        if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(io::Error::other("it is not a directory of this user's"));
        }
        if metadata.mode() & 0o077 != 0 {
            fs::set_permissions(directory, Permissions::from_mode(0o700))?;
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Cache { directory: directory.to_owned(), compatibility: hasher.finish() })
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.directory.join(format!("{digest}-{:016x}.compiled", self.compatibility))
    }

    /// The compiled component, if a whole and untouched entry of ours has it.
    pub(crate) fn get(&self, engine: &Engine, digest: Digest) -> Option<Component> {
        let compiled = read_own(&self.path(digest)).ok()?;
        let (sum, code) = compiled.split_at_checked(32)?;
        if Digest::of(code).bytes() != sum {
            return None;
        }
        deserialize(engine, code)
    }

    /// Keeps a compiled component. Readers never see half an entry.
    pub(crate) fn put(&self, digest: Digest, component: &Component) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let code = component.serialize().map_err(io::Error::other)?;
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let temporary = self.directory.join(format!(".{}-{count}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .and_then(|mut file| {
                file.write_all(Digest::of(&code).bytes())?;
                file.write_all(&code)
            })
            .and_then(|()| fs::rename(&temporary, self.path(digest)));
        if written.is_err() {
            // What was written of it is of no use; that it is gone already is no error.
            let _ = fs::remove_file(&temporary);
        }
        written.and_then(|()| self.prune())
    }

    fn prune(&self) -> io::Result<()> {
        let mut entries: Vec<(SystemTime, PathBuf)> = fs::read_dir(&self.directory)?
            .filter_map(|entry| {
                let entry = entry.ok()?;
                Some((entry.metadata().ok()?.modified().ok()?, entry.path()))
            })
            .collect();
        entries.sort_unstable_by(|a, b| b.cmp(a));
        for (_, path) in entries.into_iter().skip(ENTRIES) {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Reads a file if it is a regular one of ours that nobody else may write to.
fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
    let mut file: File = OpenOptions::new().read(true).custom_flags(nofollow).open(path)?;
    let metadata = file.metadata()?;
    let ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if !metadata.is_file() || !ours || metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("not a file of this user's alone"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `None` where wasmtime finds the code to be of another version or other settings.
#[expect(
    unsafe_code,
    reason = "wasmtime cannot check compiled code. It is sound because the bytes are ones that \
              this program wrote: they come from a file of ours that only we may write to, in a \
              directory that only we may enter, and match the digest that was written with them. \
              Whoever can forge all that runs as this user already."
)]
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Component> {
    // SAFETY: see the reason above.
    unsafe { Component::deserialize(engine, code) }.ok()
}
