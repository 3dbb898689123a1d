//! The store's section: one of two kinds, and for etcd how to reach and to trust it.

use std::path::PathBuf;
use std::sync::Arc;

use conclave_yaml::{Path, Resolver};

use crate::check::HttpTarget;

use super::paths::{canonical, readable_file};
use super::raw;
use super::{EtcdConfig, Login, Password, StoreConfig, TlsConfig};

pub(super) fn resolve(
    r: &mut Resolver<'_>,
    written: Option<raw::Store>,
    top: &Path,
) -> Option<StoreConfig> {
    const HELP: &str = "write `store: {etcd: {endpoints: [\"http://10.0.0.1:2379\"]}}`, or `store: {embedded: {path: …}}` for several daemons on one machine";
    let written = r.required(top, "store", written, HELP)?;
    let path = top.key("store");
    match (written.etcd, written.embedded) {
        (Some(etcd), None) => self::etcd(r, etcd, &path.key("etcd")).map(StoreConfig::Etcd),
        (None, Some(embedded)) => self::embedded(r, embedded, &path.key("embedded")),
        (Some(_), Some(_)) => {
            r.wrong_field(
                &path,
                "store has both `etcd` and `embedded`",
                "keep the one that all nodes use",
            );
            None
        }
        (None, None) => {
            if !r.is_faulty(&path) {
                r.wrong_field(&path, "store has neither `etcd` nor `embedded`", HELP);
            }
            None
        }
    }
}

fn embedded(r: &mut Resolver<'_>, written: raw::Embedded, at: &Path) -> Option<StoreConfig> {
    let text = r.required(
        at,
        "path",
        written.path,
        "name a file on a local disk; it is made if it is missing",
    )?;
    let path = at.key("path");
    let file = canonical(&r.file(&path, &text));
    if file.is_dir() {
        r.wrong(&path, format!("{} is a directory", file.display()), "name a file in it");
    } else if !file.parent().is_some_and(std::path::Path::is_dir) {
        r.wrong(
            &path,
            format!("the directory of {} does not exist", file.display()),
            "make it first",
        );
    }
    Some(StoreConfig::Embedded { path: file })
}

fn etcd(r: &mut Resolver<'_>, written: raw::Etcd, path: &Path) -> Option<EtcdConfig> {
    const ENDPOINTS: &str =
        "list the members' client URLs, for instance `endpoints: [\"http://10.0.0.1:2379\"]`";
    let list = path.key("endpoints");
    let written_tls = written.tls.is_some() || r.is_faulty(&path.key("tls"));
    let tls = written.tls.and_then(|tls| self::tls(r, tls, &path.key("tls")));
    let login = login(r, written.user, written.password, written.password_file, path);
    let endpoints = r.required(path, "endpoints", written.endpoints, ENDPOINTS)?;
    if endpoints.is_empty() && !r.is_faulty(&list) {
        r.wrong(&list, "the list of endpoints is empty", ENDPOINTS);
    }
    for (endpoint, at) in endpoints.iter().zip(r.items(&list, endpoints.len())) {
        if let Err((message, help)) = check_endpoint(endpoint, written_tls) {
            r.wrong(&at, message, help);
        }
    }
    Some(EtcdConfig { endpoints, tls, login })
}

/// What is wrong with an endpoint, and what to do.
pub(crate) fn check_endpoint(endpoint: &str, tls: bool) -> Result<(), (String, String)> {
    let refuse = |message: String, help: &str| Err((message, help.to_owned()));
    let (scheme, rest) = match endpoint.split_once("://") {
        Some(parts) => parts,
        None => {
            return refuse(
                format!("the endpoint `{endpoint}` does not say how to connect"),
                "begin it with `http://` or `https://`",
            );
        }
    };
    let address = rest.trim_end_matches('/');
    let plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']' | '%');
    // A port is not needed, but has to be one.
    let is_address = format!("http://{address}").parse::<HttpTarget>().is_ok();
    if !is_address || !address.chars().all(plain) {
        return refuse(
            format!("the endpoint `{endpoint}` is not a URL of host and port"),
            "write it like `http://10.0.0.1:2379`; user and password have fields of their own",
        );
    }
    match (scheme, tls) {
        ("http", false) | ("https", true) => Ok(()),
        ("https", false) => refuse(
            format!("the endpoint `{endpoint}` wants TLS, and nothing says whom to trust"),
            "name the CA's certificate: `tls: {ca: /path/to/ca.pem}`",
        ),
        ("http", true) => refuse(
            format!("the endpoint `{endpoint}` is plain HTTP although `tls` is set"),
            "begin it with `https://`, or remove `tls`",
        ),
        _ => refuse(
            format!("`{scheme}` in the endpoint `{endpoint}` is not spoken by etcd"),
            "begin it with `http://` or `https://`",
        ),
    }
}

fn tls(r: &mut Resolver<'_>, written: raw::Tls, path: &Path) -> Option<TlsConfig> {
    let mut file = |field: &str, text: String| -> PathBuf {
        let at = path.key(field);
        let file = r.file(&at, &text);
        if let Err(error) = readable_file(&file) {
            r.wrong(&at, error.to_string(), "name a PEM file that this user may read");
        }
        file
    };
    let ca = written.ca.map(|text| file("ca", text));
    let certificate = written.certificate.map(|text| file("certificate", text));
    let key = written.key.map(|text| file("key", text));
    let identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) => {
            r.missing(path, "key", "a client certificate works only together with its private key");
            None
        }
        (None, Some(_)) => {
            r.missing(
                path,
                "certificate",
                "a private key works only together with its certificate",
            );
            None
        }
    };
    let ca = r.required(
        path,
        "ca",
        ca,
        "name the certificate of the CA that signed the servers' certificates",
    )?;
    Some(TlsConfig { ca, identity, server_name: written.server_name })
}

fn login(
    r: &mut Resolver<'_>,
    user: Option<String>,
    password: Option<String>,
    password_file: Option<String>,
    path: &Path,
) -> Option<Login> {
    let password = match (password, password_file) {
        (Some(_), Some(_)) => {
            r.wrong(
                &path.key("password_file"),
                "both `password` and `password_file` are given",
                "keep `password_file`: configuration is easily shown around",
            );
            return None;
        }
        (Some(text), None) => Some(Password::Text(Arc::from(text))),
        (None, Some(text)) => {
            let at = path.key("password_file");
            let file = r.file(&at, &text);
            if let Err(error) = readable_file(&file) {
                r.wrong(
                    &at,
                    error.to_string(),
                    "name a file that holds the password and that this user may read",
                );
            }
            Some(Password::File(file))
        }
        (None, None) => None,
    };
    match (user, password) {
        (Some(user), Some(password)) => Some(Login { user, password }),
        (Some(_), None) => {
            let faulty = r.is_faulty(&path.key("password"));
            if !faulty {
                r.missing(
                    path,
                    "password_file",
                    "etcd's users have passwords: name a file that holds this one's",
                );
            }
            None
        }
        (None, Some(_)) => {
            r.missing(path, "user", "say whose password it is");
            None
        }
        (None, None) => None,
    }
}
