//! A cluster as commands reach it: its store, read and told what an operator wants.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use conclave_core::Revision;
use conclave_core::record::FORMAT;
use conclave_store::{Control, Store, StoreError};

use crate::cli::StoreArguments;
use crate::commands::say_warnings;
use crate::config::{self, Config, EtcdConfig, StoreConfig};
use crate::daemon::{BUILT_IN, stores};
pub(super) use crate::reading::Reading;
use crate::reading::newer_format;
use crate::reading::news::{self, News, State};

/// How long one request to the store may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(5);

/// A cluster whose store is open.
pub(super) struct Cluster {
    store: Arc<dyn Store>,
    /// Its name.
    pub(super) name: String,
    /// The configuration that named it, if one did.
    pub(super) config: Option<Arc<Config>>,
}

impl Cluster {
    /// Opens the store that was named; where there is no embedded one, none is made.
    pub(super) async fn open(arguments: &StoreArguments) -> Result<Self> {
        let (store, name, config) = place(arguments)?;
        let store = match stores::open_to_read(&store, &name, REQUEST_LIMIT).await {
            Ok(store) => store,
            Err(error) if error.is_final() => return Err(super::Usage(error.into()).into()),
            Err(error) => return Err(error.into()),
        };
        Ok(Cluster { store, name, config })
    }

    /// Reads everything.
    pub(super) async fn read(&self) -> Result<Reading> {
        let read = Reading::of(&*self.store, REQUEST_LIMIT).await;
        let read = read.context("cannot read the store")?;
        let read = read.context("the store answered a reading with something else")?;
        match newer_format(&read.entries) {
            None => Ok(read),
            Some((node, format)) => bail!(super::Usage(anyhow::anyhow!(
                "node {node} writes records of format {format}, and this program reads {FORMAT}: use the version that runs there"
            ))),
        }
    }

    /// As [`read`](Self::read), of a cluster that is there: a misspelt name is another cluster,
    /// about which nothing is to be said.
    pub(super) async fn read_known(&self) -> Result<Reading> {
        let reading = self.read().await?;
        if reading.listing.elections().next().is_none() && reading.listing.nodes().next().is_none()
        {
            bail!("the store has nothing of a cluster `{}`; is that its name?", self.name);
        }
        Ok(reading)
    }

    /// Writes an operator's intent, or clears it.
    pub(super) async fn tell(&self, control: Control) -> Result<()> {
        self.store.control(control, REQUEST_LIMIT).await.map(drop).context("cannot tell the store")
    }

    /// Tells what changes after a reading, until `tell` wants no more.
    pub(super) async fn follow(
        &self,
        after: Revision,
        state: &mut State,
        tell: impl FnMut(Result<Vec<News>, StoreError>) -> bool,
    ) {
        news::follow(&*self.store, REQUEST_LIMIT, after, state, tell).await;
    }
}

/// The store that was named, its cluster, and the configuration that named them.
fn place(arguments: &StoreArguments) -> Result<(StoreConfig, String, Option<Arc<Config>>)> {
    let text = match &arguments.config {
        Some(file) => config::read(file)?,
        None => String::new(),
    };
    place_of(arguments, &text)
}

/// As [`place`], by the text of the configuration that was read already.
pub(super) fn place_of(
    arguments: &StoreArguments,
    text: &str,
) -> Result<(StoreConfig, String, Option<Arc<Config>>)> {
    if let Some(file) = &arguments.config {
        let (config, warnings) = config::parse_again(file, text, &BUILT_IN)?;
        say_warnings(&warnings);
        return Ok((config.store.clone(), config.cluster.clone(), Some(Arc::new(config))));
    }
    let cluster = arguments.cluster.clone().context("name the cluster with --cluster")?;
    let store = match &arguments.embedded {
        Some(path) => StoreConfig::Embedded { path: path.clone() },
        None => StoreConfig::Etcd(EtcdConfig {
            endpoints: arguments.endpoints.clone(),
            tls: None,
            login: None,
        }),
    };
    Ok((store, cluster, None))
}

/// Runs what a command does with the store.
pub(super) fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(work);
    // A store that hangs must not keep the process.
    runtime.shutdown_background();
    result
}
