//! TLS for those who open the port beyond this machine. Certificate and key are read again when their files
//! change: a connection keeps those that it was made with.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use crate::config::HttpTls;

/// How long a caller may take to agree on a key.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Callers that have agreed on a key and wait to be answered.
const WAITING: usize = 64;

/// How often the files are looked at, at most.
const LOOK: Duration = Duration::from_secs(1);

type Caller = (TlsStream<TcpStream>, SocketAddr);

/// Accepts connections, each of which has agreed on a key.
pub(super) struct TlsListener {
    address: SocketAddr,
    callers: Receiver<Caller>,
}

impl TlsListener {
    /// Begins to accept, on the runtime that calls.
    ///
    /// # Errors
    /// When the certificate or its key cannot be used.
    pub(super) fn start(listener: TcpListener, files: HttpTls) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let identity = Identity::read(files)?;
        let (accepted, callers) = channel(WAITING);
        tokio::spawn(accept(listener, identity, accepted));
        Ok(TlsListener { address, callers })
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> Caller {
        match self.callers.recv().await {
            Some(caller) => caller,
            // Whoever accepts goes on for as long as the runtime, and then this does not either.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }
}

async fn accept(listener: TcpListener, mut identity: Identity, accepted: Sender<Caller>) {
    loop {
        let (stream, from) = match listener.accept().await {
            Ok(caller) => caller,
            Err(error) => {
                // Too many open files, say.
                debug!(%error, "cannot accept a connection");
                tokio::time::sleep(LOOK).await;
                continue;
            }
        };
        let (acceptor, accepted) = (identity.acceptor(), accepted.clone());
        tokio::spawn(async move {
            match timeout(HANDSHAKE, acceptor.accept(stream)).await {
                // The server has ended.
                Ok(Ok(stream)) => drop(accepted.send((stream, from)).await),
                Ok(Err(error)) => debug!(%from, %error, "no TLS with a caller"),
                Err(_) => debug!(%from, "a caller took too long to agree on a key"),
            }
        });
    }
}

/// The certificate and the key, as they were read last.
struct Identity {
    files: HttpTls,
    read: [Option<SystemTime>; 2],
    looked: Instant,
    config: Arc<ServerConfig>,
}

impl Identity {
    fn read(files: HttpTls) -> io::Result<Self> {
        let config = Arc::new(server_config(&files)?);
        Ok(Identity { read: changed(&files), looked: Instant::now(), files, config })
    }

    fn acceptor(&mut self) -> TlsAcceptor {
        if self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            let now = changed(&self.files);
            if now != self.read {
                self.read = now;
                match server_config(&self.files) {
                    Ok(config) => self.config = Arc::new(config),
                    Err(error) => {
                        warn!(%error, "the renewed certificate cannot be used; the one before goes on");
                    }
                }
            }
        }
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

fn changed(files: &HttpTls) -> [Option<SystemTime>; 2] {
    let changed =
        |file| std::fs::metadata(file).and_then(|it: std::fs::Metadata| it.modified()).ok();
    [changed(&files.certificate), changed(&files.key)]
}

fn server_config(files: &HttpTls) -> io::Result<ServerConfig> {
    let named = |file: &std::path::Path, error: &dyn std::fmt::Display| {
        io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", file.display()))
    };
    let certificates = CertificateDer::pem_file_iter(&files.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| named(&files.certificate, &error))?;
    let key =
        PrivateKeyDer::from_pem_file(&files.key).map_err(|error| named(&files.key, &error))?;
    ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_no_client_auth())
        .and_then(|builder| builder.with_single_cert(certificates, key))
        .map_err(|error| named(&files.certificate, &error))
}
