//! Asking a node over HTTP.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(10);

trait Stream: Read + Write + Send {}

impl<T: Read + Write + Send> Stream for T {}

/// How to ask.
#[derive(Debug, Clone, Copy)]
pub struct Caller<'a> {
    /// Whom.
    pub at: SocketAddr,
    /// Speaks TLS with who has a certificate of this authority.
    pub authority: Option<&'a Path>,
    /// The token to show.
    pub token: Option<&'a str>,
}

impl Caller<'_> {
    /// Asks once, on a connection of its own; returns the status and the body.
    ///
    /// # Errors
    ///
    /// When nobody answers, or not as HTTP does.
    pub fn ask(&self, method: &str, path: &str) -> Result<(u16, String)> {
        let (status, mut body) = self.call(method, path)?;
        let mut text = String::new();
        match body.read_to_string(&mut text) {
            Ok(_) => {}
            // Over TLS a server that says when it is done is a courtesy; the length was told.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {}
            Err(error) => return Err(error.into()),
        }
        Ok((status, text))
    }

    /// Asks for events; returns their lines, as they come.
    ///
    /// # Errors
    ///
    /// When they are refused.
    pub fn listen(&self, path: &str) -> Result<impl Iterator<Item = String> + Send + use<>> {
        let (status, body) = self.call("GET", path)?;
        if status != 200 {
            bail!("{path} was answered with {status}");
        }
        Ok(body.lines().map_while(Result::ok))
    }

    fn call(&self, method: &str, path: &str) -> Result<(u16, BufReader<Box<dyn Stream>>)> {
        let mut stream = self.connect()?;
        let token = self.token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let token = token.unwrap_or_default();
        let host = self.at;
        // Of HTTP's first version, so that no answer comes in chunks.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {host}\r\n{token}Connection: close\r\n\r\n"
        )?;
        stream.flush()?;
        let mut answer = BufReader::new(stream);
        let mut line = String::new();
        answer.read_line(&mut line)?;
        let status = line.split(' ').nth(1).context("a status line")?.parse()?;
        while !line.trim_end().is_empty() {
            line.clear();
            if answer.read_line(&mut line)? == 0 {
                bail!("the answer ends in its head");
            }
        }
        Ok((status, answer))
    }

    fn connect(&self) -> Result<Box<dyn Stream>> {
        let stream = TcpStream::connect_timeout(&self.at, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        let Some(authority) = self.authority else { return Ok(Box::new(stream)) };
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(authority)?)?;
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = ClientConnection::new(Arc::new(config), self.at.ip().into())?;
        Ok(Box::new(StreamOwned::new(client, stream)))
    }
}

/// Asks once, in the clear.
///
/// # Errors
///
/// As [`Caller::ask`].
pub fn ask(at: SocketAddr, method: &str, path: &str) -> Result<(u16, String)> {
    Caller { at, authority: None, token: None }.ask(method, path)
}
