//! A certificate authority for one test: server and client certificates, as files.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};
use tempfile::TempDir;

use crate::scratch;

/// Signs certificates; its files are removed on drop.
pub struct Authority {
    dir: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate and its private key, as PEM files.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes a new authority with a key of its own.
    ///
    /// # Errors
    ///
    /// When its files cannot be written.
    pub fn new() -> Result<Self> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Conclave test authority");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let dir = scratch::directory("tls")?;
        fs::write(dir.path().join("ca.pem"), issuer.pem())?;
        Ok(Authority { dir, issuer })
    }

    /// The authority's own certificate, which both sides trust.
    pub fn certificate(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// An identity for a server on `ip`, or for a client where there is none.
    ///
    /// # Errors
    ///
    /// When its files cannot be written.
    pub fn issue(&self, name: &str, ip: Option<IpAddr>) -> Result<Identity> {
        self.issue_until(None, name, ip)
    }

    /// The same, valid until then.
    ///
    /// # Errors
    ///
    /// As [`Authority::issue`].
    pub fn issue_until(
        &self,
        end: Option<SystemTime>,
        name: &str,
        ip: Option<IpAddr>,
    ) -> Result<Identity> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = ip.map(SanType::IpAddress).into_iter().collect();
        if let Some(end) = end {
            params.not_after = end.into();
        }
        // An etcd server also is its own client, for its gateway.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let identity = Identity {
            certificate: self.path(&format!("{name}.pem")),
            key: self.path(&format!("{name}.key")),
        };
        fs::write(&identity.certificate, certificate.pem())?;
        fs::write(&identity.key, key.serialize_pem())?;
        Ok(identity)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the files are.
    pub fn directory(&self) -> &Path {
        self.dir.path()
    }
}
