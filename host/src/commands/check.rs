//! `conclave config check FILE`: every mistake that a start would report, and whether the store
//! is quick enough for the timings.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use conclave_store::{Latency, StoreError};

use crate::cli::exit;
use crate::commands::{say, say_warnings};
use crate::config::{self, Config, Occasion};
use crate::daemon::stores::{self, OpenError};
use crate::daemon::{BUILT_IN, PolicySet};

/// Compiling may take longer here than at a start: this is where the cache is warmed.
const COMPILE_LIMIT: Duration = Duration::from_secs(120);

/// A store that does not answer a measurement within this does not answer.
const MEASURE_LIMIT: Duration = Duration::from_secs(5);

/// A store that still has more revisions than this, back to its first, is compacted by nobody.
const MANY_REVISIONS: u64 = 10_000;

/// A request timeout of fewer round trips than this makes ordinary delays look like outages.
const ROUND_TRIPS: u32 = 10;

pub(super) fn check(file: &Path) -> Result<u8> {
    let (config, warnings) = config::load(file, &BUILT_IN)?;
    say_warnings(&warnings);
    let config = Arc::new(config);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(check_world(&config));
    runtime.shutdown_background();
    let latency = result?;
    println!("{}: no mistakes", file.display());
    if let Some(latency) = latency {
        judge(&config, latency);
    }
    Ok(exit::SUCCESS)
}

/// Loads the policies, and measures the store.
async fn check_world(config: &Arc<Config>) -> Result<Option<Latency>> {
    let policies = PolicySet::load(Arc::clone(config), Occasion::Start, COMPILE_LIMIT).await?;
    if let Some(reason) = policies.failure() {
        bail!("the policies were not asked: {reason}");
    }
    for election in &config.elections {
        let binding = policies.binding(&election.name);
        if let Some(reason) = binding.as_ref().and_then(|binding| binding.shadow_failure()) {
            say(&format!("warning: the shadow of `{}` cannot be asked: {reason}", election.name));
        }
    }
    let timeout = config.timings.protocol.request_timeout;
    let store = match stores::open_to_read(&config.store, &config.cluster, timeout).await {
        Ok(store) => store,
        Err(OpenError::Store(StoreError::NoStore { path })) => {
            say(&format!(
                "warning: there is no store at {} yet: the first node that starts makes it; check the path, for nodes that look elsewhere are another cluster",
                path.display()
            ));
            return Ok(None);
        }
        Err(error) if error.is_final() => return Err(super::Usage(error.into()).into()),
        Err(error) => return Err(error.into()),
    };
    match store.measure(MEASURE_LIMIT).await {
        Ok(latency) => Ok(Some(latency)),
        Err(error) => {
            let error = anyhow::Error::from(error);
            say(&format!("warning: the store was not measured: {error:#}"));
            Ok(None)
        }
    }
}

fn judge(config: &Config, latency: Latency) {
    let timings = &config.timings.protocol;
    let millis = |span: Duration| format!("{:.1} ms", span.as_secs_f64() * 1e3);
    println!("store: a read takes {}, a write {}", millis(latency.read), millis(latency.write));
    if let Some(revision) = latency.uncompacted.filter(|revision| revision.0 > MANY_REVISIONS) {
        say(&format!(
            "warning: the store keeps all its {revision} revisions and every beat adds one; have etcd compact itself, for instance with --auto-compaction-retention=1h"
        ));
    }
    let wise = latency.write.max(latency.read) * ROUND_TRIPS;
    if timings.request_timeout < wise {
        say(&format!(
            "warning: request_timeout {} is less than {ROUND_TRIPS} round trips to this store; raise it to {} and ttl to {}",
            millis(timings.request_timeout),
            millis(wise),
            millis(wise * 5)
        ));
    } else {
        println!(
            "timings: ttl {} is wise for this store: {} writes fit into one request timeout",
            millis(timings.ttl),
            (timings.request_timeout.as_secs_f64() / latency.write.as_secs_f64().max(1e-6)) as u64
        );
    }
}
