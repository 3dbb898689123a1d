//! Files for TLS, read again every now and then: certificates are renewed under a running
//! daemon, and a connection keeps the ones that it was made with.

use std::fs;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use etcd_client::{Certificate, Identity, TlsOptions};

use super::TlsFiles;
use super::member::{Member, Setup};
use crate::error::StoreError;

/// What the files said.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Material {
    files: TlsFiles,
    authority: Vec<u8>,
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Material {
    /// Reads the files, beside the runtime's own work.
    pub(super) async fn read(files: TlsFiles) -> Result<Self, StoreError> {
        let place = files.authority.display().to_string();
        let read = tokio::task::spawn_blocking(move || Self::read_now(files)).await;
        read.unwrap_or(Err(StoreError::Closed { place }))
    }

    fn read_now(files: TlsFiles) -> Result<Self, StoreError> {
        let authority = read(&files.authority)?;
        let identity = match &files.identity {
            Some((certificate, key)) => Some((read(certificate)?, read(key)?)),
            None => None,
        };
        Ok(Material { files, authority, identity })
    }

    pub(super) fn options(&self) -> TlsOptions {
        let mut options = TlsOptions::new().ca_certificate(Certificate::from_pem(&self.authority));
        if let Some((certificate, key)) = &self.identity {
            options = options.identity(Identity::from_pem(certificate, key));
        }
        match &self.files.server_name {
            Some(name) => options.domain_name(name),
            None => options,
        }
    }
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").field("files", &self.files).finish_non_exhaustive()
    }
}

fn read(path: &Path) -> Result<Vec<u8>, StoreError> {
    let failed = |source| StoreError::File { action: "read", path: path.to_owned(), source };
    let bytes = fs::read(path).map_err(failed)?;
    let begins = bytes.windows(PEM.len()).any(|window| window == PEM);
    if begins {
        Ok(bytes)
    } else {
        let what = format!("{} holds no PEM block (-----BEGIN …-----)", path.display());
        Err(StoreError::Config { what })
    }
}

/// What every PEM block begins with.
const PEM: &[u8] = b"-----BEGIN ";

/// Reads the files again every `period`; when they have changed, makes every connection anew.
/// One that cannot be made with the new files stays as it is and is tried again next time: they
/// may be half written, or the server may not know the new ones yet.
pub(super) async fn rotate(period: Duration, setup: Arc<Setup>, members: Vec<Arc<Member>>) {
    let Some(material) = &setup.tls else { return };
    let mut outdated = false;
    loop {
        tokio::time::sleep(period).await;
        let known = material.read().unwrap_or_else(PoisonError::into_inner).clone();
        match Material::read(known.files.clone()).await {
            Ok(read) if read != known => {
                *material.write().unwrap_or_else(PoisonError::into_inner) = read;
                outdated = true;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot read the files for TLS again; the old ones stay");
                continue;
            }
        }
        if outdated {
            outdated = !renew(&members, setup.request_timeout).await;
        }
    }
}

/// Makes every standing connection anew; whether all were.
async fn renew(members: &[Arc<Member>], limit: Duration) -> bool {
    let mut all = true;
    for member in members.iter().filter(|member| member.current().is_some()) {
        match member.renew(limit).await {
            Ok(_) => {
                tracing::info!(endpoint = member.endpoint(), "connected with renewed TLS files");
            }
            Err(error) => {
                tracing::warn!(%error, "cannot connect with the renewed TLS files yet");
                all = false;
            }
        }
    }
    all
}
