//! From bytes to policies: compiling, the cache, and what a component may import.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use wasmtime::Module;
use wasmtime::component::Component;
use wasmtime::component::types::ComponentItem;

use crate::cache::Cache;
use crate::digest::Digest;
use crate::error::{HostError, LoadError};
use crate::limits::{self, Limits};
use crate::policy::Policy;
use crate::sandbox::Sandbox;
use crate::text::phrase;
use crate::wasi;

/// Loads policies and runs them in one sandbox. A process needs one.
pub struct PolicyHost {
    sandbox: Arc<Sandbox>,
    cache: Option<Cache>,
}

impl PolicyHost {
    /// Sets the sandbox up. Compiled components are kept in `cache`, which becomes a directory
    /// that only this user may enter; a cache that cannot be used is reported in the log and done
    /// without.
    pub fn new(limits: Limits, cache: Option<PathBuf>) -> Result<Self, HostError> {
        Self::with_limits_of_their_own(limits, BTreeMap::new(), cache)
    }

    /// As [`new`](Self::new), with other limits for some policies, by name. How many calls run at
    /// once is one number for all.
    pub fn with_limits_of_their_own(
        limits: Limits,
        own: BTreeMap<String, Limits>,
        cache: Option<PathBuf>,
    ) -> Result<Self, HostError> {
        let sandbox = Sandbox::new(limits, own)?;
        let cache = cache.and_then(|directory| {
            Cache::open(&directory, &sandbox.engine)
                .inspect_err(|error| {
                    let directory = directory.display();
                    tracing::warn!(%directory, %error, "cannot use the cache of compiled policies");
                })
                .ok()
        });
        Ok(PolicyHost { sandbox: Arc::new(sandbox), cache })
    }

    /// Makes a policy of a component's bytes. Compiles it unless the cache has it: about a second
    /// for a small component, a minute for an interpreted language's.
    pub fn load(&self, name: &str, bytes: &[u8]) -> Result<Policy, LoadError> {
        let digest = Digest::of(bytes);
        let component = self.compiled(name, digest, bytes)?;
        let engine = &self.sandbox.engine;
        for (import, item) in component.component_type().imports(engine) {
            // An instance of nothing but types gives a guest nothing to call.
            let only_types = matches!(&item.ty, ComponentItem::ComponentInstance(instance)
                if instance.exports(engine).all(|(_, e)| matches!(e.ty, ComponentItem::Type(_))));
            if !only_types && !is_logging(import) && !wasi::is_allowed(import) {
                return Err(LoadError::Import { import: import.to_owned() });
            }
        }
        let pre = self
            .sandbox
            .linker
            .instantiate_pre(&component)
            .map_err(|error| LoadError::Link(error.into()))?;
        Policy::new(name, digest, bytes.len(), Arc::clone(&self.sandbox), pre)
    }

    fn compiled(&self, name: &str, digest: Digest, bytes: &[u8]) -> Result<Component, LoadError> {
        let engine = &self.sandbox.engine;
        if let Some(component) = self.cache.as_ref().and_then(|cache| cache.get(engine, digest)) {
            return Ok(component);
        }
        self.kind(bytes)?;
        let (policy, short) = (name, digest.short());
        tracing::info!(policy, digest = short, bytes = bytes.len(), "compiling policy");
        let start = Instant::now();
        let component = Component::from_binary(engine, bytes)
            .map_err(|error| LoadError::Compile(error.into()))?;
        tracing::info!(policy, digest = short, took = ?start.elapsed(), "compiled policy");
        if let Some(Err(error)) = self.cache.as_ref().map(|cache| cache.put(digest, &component)) {
            tracing::warn!(policy = name, %error, "cannot keep the compiled policy");
        }
        Ok(component)
    }

    /// Tells a component from a core module, which authors confuse, and from anything else.
    fn kind(&self, bytes: &[u8]) -> Result<(), LoadError> {
        match bytes.get(..8) {
            Some([b'\0', b'a', b's', b'm', 1, 0, 0, 0]) => {
                Err(LoadError::CoreModule { exports: self.module_exports(bytes) })
            }
            Some([b'\0', b'a', b's', b'm', ..]) => Ok(()),
            _ => Err(LoadError::NotWasm),
        }
    }

    /// What a core module exports, so that authors see whether it would be a policy. Of
    /// `interface#function` the interface.
    fn module_exports(&self, bytes: &[u8]) -> Vec<String> {
        /// More than this nobody reads.
        const MOST: usize = 8;
        let Ok(module) = Module::from_binary(&self.sandbox.engine, bytes) else {
            return Vec::new();
        };
        let names = module.exports().map(|export| export.name().split('#').next().unwrap_or(""));
        let distinct: BTreeSet<String> =
            names.map(|name| phrase(name.to_owned(), limits::REASON)).collect();
        distinct.into_iter().take(MOST).collect()
    }
}

fn is_logging(import: &str) -> bool {
    import.starts_with("conclave:policy/logging@0.1.")
}
