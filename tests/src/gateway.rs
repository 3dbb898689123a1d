//! etcd's JSON gateway over one kept connection: for looks at the store that are too quick and
//! too many for a process each.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::base64;

/// A key as it stands in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Vec<u8>,
    /// The revision that created the key.
    pub created: u64,
    /// The revision that wrote it last.
    pub modified: u64,
}

/// A connection to one server.
pub struct Gateway {
    stream: BufReader<TcpStream>,
    host: SocketAddr,
}

impl Gateway {
    /// Connects.
    ///
    /// # Errors
    ///
    /// When nothing listens.
    pub fn connect(host: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(crate::PATIENCE))?;
        Ok(Gateway { stream: BufReader::new(stream), host })
    }

    /// Whether the server is its cluster's leader.
    ///
    /// # Errors
    ///
    /// When the server does not answer.
    pub fn leads(&mut self) -> Result<bool> {
        let status = self.call("/v3/maintenance/status", &json!({}))?;
        Ok(status["leader"].is_string() && status["leader"] == status["header"]["member_id"])
    }

    /// Writes a key.
    ///
    /// # Errors
    ///
    /// When the server does not do it.
    pub fn put(&mut self, key: &str, value: &str) -> Result<()> {
        let (key, value) = (base64::encode(key.as_bytes()), base64::encode(value.as_bytes()));
        self.call("/v3/kv/put", &json!({ "key": key, "value": value })).map(drop)
    }

    /// Reads every key that begins with `prefix`, which must not be empty.
    ///
    /// # Errors
    ///
    /// When the server does not answer, or not as etcd does.
    pub fn list(&mut self, prefix: &str) -> Result<Vec<Entry>> {
        let mut end = prefix.as_bytes().to_vec();
        *end.last_mut().context("a prefix")? += 1;
        let range = json!({
            "key": base64::encode(prefix.as_bytes()),
            "range_end": base64::encode(&end),
        });
        let answer = self.call("/v3/kv/range", &range)?;
        let entries = answer["kvs"].as_array().map_or(&[][..], Vec::as_slice);
        entries.iter().map(entry).collect()
    }

    fn call(&mut self, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        write!(
            self.stream.get_mut(),
            "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            self.host,
            body.len()
        )?;
        let status = self.line()?;
        let mut length = None;
        while let Some((name, value)) = self.line()?.split_once(':') {
            if name.eq_ignore_ascii_case("content-length") {
                length = Some(value.trim().parse()?);
            }
        }
        let answer = match length {
            Some(length) => self.bytes(length)?,
            None => self.chunks().with_context(|| format!("after {status:?}"))?,
        };
        ensure!(status.contains(" 200 "), "{path}: {}", String::from_utf8_lossy(&answer));
        Ok(serde_json::from_slice(&answer)?)
    }
}

impl Gateway {
    /// A line, without its end.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "{} closed the connection", self.host);
        line.truncate(line.trim_end().len());
        Ok(line)
    }

    fn bytes(&mut self, length: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// A body in pieces, as a server sends one whose length it did not know when it began.
    fn chunks(&mut self) -> Result<Vec<u8>> {
        let mut whole = Vec::new();
        loop {
            let line = self.line()?;
            let length = usize::from_str_radix(&line, 16).with_context(|| line.clone())?;
            whole.extend(self.bytes(length)?);
            self.line()?;
            if length == 0 {
                return Ok(whole);
            }
        }
    }
}

/// The gateway writes 64-bit numbers as text, and leaves out what is zero or empty.
fn entry(json: &Value) -> Result<Entry> {
    let bytes = |field: &str| base64::decode(json[field].as_str().unwrap_or_default());
    let number = |field: &str| -> Result<u64> {
        json[field].as_str().with_context(|| format!("no {field}"))?.parse().map_err(Into::into)
    };
    Ok(Entry {
        key: String::from_utf8(bytes("key")?)?,
        value: bytes("value")?,
        created: number("create_revision")?,
        modified: number("mod_revision")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::{Etcd, Version};

    #[test]
    fn writes_and_lists() {
        for version in Version::ALL {
            let etcd = Etcd::start(version).unwrap();
            let mut gateway = Gateway::connect(etcd.address()).unwrap();
            assert_eq!(gateway.list("a/").unwrap(), []);
            gateway.put("a/1", "one").unwrap();
            gateway.put("a/1", "two").unwrap();
            gateway.put("b/1", "other").unwrap();
            let listed = gateway.list("a/").unwrap();
            assert_eq!(listed.len(), 1);
            assert_eq!((listed[0].key.as_str(), listed[0].value.as_slice()), ("a/1", &b"two"[..]));
            assert_eq!(listed[0].modified, listed[0].created + 1);
            // Longer than what fits into one piece of an answer.
            let long = "x".repeat(5000);
            gateway.put("c/1", &long).unwrap();
            assert_eq!(gateway.list("c/").unwrap()[0].value, long.as_bytes());
            assert_eq!(gateway.list("b/").unwrap().len(), 1, "the connection is still in step");
        }
    }
}
