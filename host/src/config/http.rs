//! Where a node answers over HTTP, and whom.

use std::net::SocketAddr;

use conclave_yaml::{Path, Resolver};

use super::{DEFAULT_LISTEN, HttpConfig, HttpTls, raw, readable_file};

pub(super) fn resolve(r: &mut Resolver<'_>, written: raw::Http, path: &Path) -> Option<HttpConfig> {
    let text = written.listen.as_deref().unwrap_or(DEFAULT_LISTEN);
    let at = path.key("listen");
    let listen = text.parse::<SocketAddr>();
    if listen.is_err() {
        r.wrong(
            &at,
            format!("`{text}` is not an address and a port"),
            format!("write it like `{DEFAULT_LISTEN}`, or `[::1]:8437`"),
        );
    }
    let tls = written.tls.map(|written| tls(r, written, &path.key("tls")));
    let token_file = written.token_file.map(|text| {
        let at = path.key("token_file");
        let file = r.file(&at, &text);
        if let Err(error) = readable_file(&file) {
            let help = "name a file that holds the token and that this user may read";
            r.wrong(&at, error.to_string(), help);
        }
        file
    });
    let (listen, tls) = (listen.ok()?, tls.map_or(Some(None), |tls| tls.map(Some))?);
    if !listen.ip().is_loopback() {
        match (&token_file, &tls) {
            (None, _) => r.warn(
                &at,
                format!("whoever reaches {listen} can read names, labels, facts and roles there"),
                "nothing can be changed that way; demand a token (`token_file`, with `tls`), or listen on an address that only those reach who may read it",
            ),
            (Some(_), None) => r.warn(
                &at,
                format!("whoever sees what goes to {listen} can read the token"),
                "give it a certificate: `tls: {certificate: …, key: …}`",
            ),
            (Some(_), Some(_)) => {}
        }
    }
    Some(HttpConfig { listen, tls, token_file })
}

fn tls(r: &mut Resolver<'_>, written: raw::HttpTls, path: &Path) -> Option<HttpTls> {
    let mut file = |field: &str, text: Option<String>, help: &str| {
        let text = r.required(path, field, text, help)?;
        let at = path.key(field);
        let file = r.file(&at, &text);
        if let Err(error) = readable_file(&file) {
            r.wrong(&at, error.to_string(), "name a PEM file that this user may read");
        }
        Some(file)
    };
    let help = "name the PEM file of the certificate by which this node shows who it is";
    let certificate = file("certificate", written.certificate, help);
    let key = file("key", written.key, "name the PEM file of the certificate's private key");
    Some(HttpTls { certificate: certificate?, key: key? })
}
