//! Keys as bytes: `/conclave/<cluster>/…`, every name percent-encoded between exact separators,
//! so that no name, however odd, reaches into another's keys.

use std::fmt::Write;

use conclave_core::request::leader_suffix;
use conclave_core::{ElectionName, Key, NodeName, SessionId, Token};

/// A token in a key has this many digits, so that keys sort as tokens do.
const TOKEN_DIGITS: usize = 20;

/// The keys of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    prefix: String,
}

/// Keys from `start` up to, and without, `end`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: Vec<u8>,
    pub(crate) end: Vec<u8>,
}

impl Range {
    /// Every key below a directory, whose name ends in `/`.
    fn below(directory: String) -> Self {
        let mut end = directory.clone().into_bytes();
        end.pop();
        end.push(b'/' + 1);
        Range { start: directory.into_bytes(), end }
    }
}

impl Keys {
    /// The keys of the cluster of this name.
    pub fn new(cluster: &str) -> Self {
        Keys { prefix: format!("/conclave/{}/", escape(cluster)) }
    }

    /// What every key of the cluster starts with, the closing slash included.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The prefix for etcd's election recipe: `etcdctl elect -l <this>` shows our leader.
    pub fn leader_prefix(&self, election: &ElectionName) -> String {
        format!("{}elections/{}/leader", self.prefix, escape(election.as_str()))
    }

    /// The bytes of a key.
    pub fn encode(&self, key: &Key) -> Vec<u8> {
        let prefix = &self.prefix;
        let text = match key {
            Key::Session(node) => format!("{prefix}sessions/{}", escape(node.as_str())),
            Key::Candidacy(election, node) => {
                format!(
                    "{prefix}candidates/{}/{}",
                    escape(election.as_str()),
                    escape(node.as_str())
                )
            }
            Key::Leader(election, suffix) => {
                let mut bytes = format!("{}/", self.leader_prefix(election)).into_bytes();
                bytes.extend(unescape(suffix).unwrap_or_else(|| suffix.clone().into_bytes()));
                return bytes;
            }
            Key::Pause(election) => format!("{}pause", self.control(election)),
            Key::Transfer(election) => format!("{}transfer", self.control(election)),
            Key::Cordon(election, node) => {
                format!("{}cordons/{}", self.control(election), escape(node.as_str()))
            }
            Key::History(election, token) => {
                let election = escape(election.as_str());
                format!("{prefix}history/{election}/{:0TOKEN_DIGITS$}", token.0)
            }
        };
        text.into_bytes()
    }

    /// The key that has these bytes; `None` for what is no key of this cluster.
    ///
    /// Whatever lies in a range that transactions compare is some key: below a leader prefix
    /// any suffix counts (bytes other than visible ASCII and `%` itself are percent-encoded in
    /// it), and below an election's history what names no token stands under token 0, which no
    /// term ever has. Elsewhere only the one encoding of a name is accepted.
    pub fn decode(&self, key: &[u8]) -> Option<Key> {
        let rest = key.strip_prefix(self.prefix.as_bytes())?;
        let (room, rest) = split(rest)?;
        match room {
            b"sessions" => Some(Key::Session(NodeName::new(name(rest)?))),
            b"candidates" => {
                let (election, node) = split(rest)?;
                Some(Key::Candidacy(election_name(election)?, NodeName::new(name(node)?)))
            }
            b"elections" => {
                let (election, rest) = split(rest)?;
                decode_election(election_name(election)?, rest)
            }
            b"history" => {
                let (election, digits) = split(rest)?;
                Some(Key::History(election_name(election)?, token(digits).unwrap_or_default()))
            }
            _ => None,
        }
    }

    /// The leader key that stands on a session.
    pub(crate) fn leader(&self, election: &ElectionName, session: SessionId) -> Vec<u8> {
        self.encode(&Key::Leader(election.clone(), leader_suffix(session)))
    }

    /// Every key of the cluster.
    pub(crate) fn all(&self) -> Range {
        Range::below(self.prefix.clone())
    }

    /// An election's leader keys, foreign ones included.
    pub(crate) fn leaders(&self, election: &ElectionName) -> Range {
        Range::below(format!("{}/", self.leader_prefix(election)))
    }

    /// An election's history.
    pub(crate) fn history(&self, election: &ElectionName) -> Range {
        Range::below(format!("{}history/{}/", self.prefix, escape(election.as_str())))
    }

    /// A key that means nothing, for measuring writes.
    pub(crate) fn scratch(&self) -> Vec<u8> {
        format!("{}scratch", self.prefix).into_bytes()
    }

    fn control(&self, election: &ElectionName) -> String {
        format!("{}elections/{}/control/", self.prefix, escape(election.as_str()))
    }
}

fn decode_election(election: ElectionName, rest: &[u8]) -> Option<Key> {
    if let Some(suffix) = rest.strip_prefix(b"leader/") {
        return Some(Key::Leader(election, escape_with(suffix, |byte| byte.is_ascii_graphic())));
    }
    match rest.strip_prefix(b"control/")? {
        b"pause" => Some(Key::Pause(election)),
        b"transfer" => Some(Key::Transfer(election)),
        other => {
            let node = other.strip_prefix(b"cordons/")?;
            Some(Key::Cordon(election, NodeName::new(name(node)?)))
        }
    }
}

fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let slash = bytes.iter().position(|&byte| byte == b'/')?;
    Some((&bytes[..slash], &bytes[slash + 1..]))
}

fn election_name(bytes: &[u8]) -> Option<ElectionName> {
    name(bytes).map(ElectionName::new)
}

/// A name from its one encoding.
fn name(bytes: &[u8]) -> Option<String> {
    let encoded = std::str::from_utf8(bytes).ok()?;
    let name = String::from_utf8(unescape(encoded)?).ok()?;
    (escape(&name) == encoded).then_some(name)
}

fn token(digits: &[u8]) -> Option<Token> {
    let digits = std::str::from_utf8(digits).ok()?;
    let exact = digits.len() == TOKEN_DIGITS && digits.bytes().all(|byte| byte.is_ascii_digit());
    if exact { digits.parse().ok().map(Token) } else { None }
}

/// Percent-encodes everything but the unreserved characters of RFC 3986, section 2.3.
fn escape(name: &str) -> String {
    escape_with(name.as_bytes(), |byte| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
    })
}

fn escape_with(bytes: &[u8], plain: impl Fn(u8) -> bool) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if plain(byte) && byte != b'%' {
            text.push(char::from(byte));
        } else {
            write!(text, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
    text
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        if byte != b'%' {
            bytes.push(byte);
            rest = tail;
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2)?;
        bytes.push(hex(digits[0])? << 4 | hex(digits[1])?);
        rest = tail;
    }
    Some(bytes)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ODD: [&str; 16] = [
        "a", "xy", "xyz", "a/b", "/", "%", "%2F", "..", "a b", "ü", "日本", "\0", "\n", "a+b?c#d",
        "leader", "-._~",
    ];

    fn text(key: Vec<u8>) -> String {
        String::from_utf8(key).expect("these keys are text")
    }

    #[test]
    fn keys_read_as_the_protocol_writes_them() {
        let keys = Keys::new("prod");
        let table = [
            (Key::Session("node-a".into()), "/conclave/prod/sessions/node-a"),
            (Key::Candidacy("e".into(), "n".into()), "/conclave/prod/candidates/e/n"),
            (
                Key::Leader("e".into(), leader_suffix(SessionId(0x694d))),
                "/conclave/prod/elections/e/leader/694d",
            ),
            (Key::Pause("e".into()), "/conclave/prod/elections/e/control/pause"),
            (Key::Transfer("e".into()), "/conclave/prod/elections/e/control/transfer"),
            (Key::Cordon("e".into(), "n".into()), "/conclave/prod/elections/e/control/cordons/n"),
            (Key::History("e".into(), Token(42)), "/conclave/prod/history/e/00000000000000000042"),
            (Key::Session("a/b %".into()), "/conclave/prod/sessions/a%2Fb%20%25"),
        ];
        for (key, expected) in table {
            assert_eq!(text(keys.encode(&key)), expected);
            assert_eq!(keys.decode(expected.as_bytes()), Some(key));
        }
        assert_eq!(keys.leader_prefix(&"e".into()), "/conclave/prod/elections/e/leader");
    }

    #[test]
    fn every_odd_name_comes_back_and_stays_in_its_place() {
        for cluster in ODD {
            let keys = Keys::new(cluster);
            for first in ODD {
                for second in ODD {
                    let every = [
                        Key::Session(second.into()),
                        Key::Candidacy(first.into(), second.into()),
                        Key::Leader(first.into(), leader_suffix(SessionId(7))),
                        Key::Pause(first.into()),
                        Key::Transfer(first.into()),
                        Key::Cordon(first.into(), second.into()),
                        Key::History(first.into(), Token(u64::MAX)),
                    ];
                    for key in every {
                        let bytes = keys.encode(&key);
                        assert_eq!(keys.decode(&bytes), Some(key));
                        let all = keys.all();
                        assert!(all.start <= bytes && bytes < all.end);
                    }
                }
            }
        }
    }

    #[test]
    fn clusters_and_elections_never_reach_into_their_siblings() {
        let (xy, xyz) = (Keys::new("xy"), Keys::new("xyz"));
        assert_eq!(xy.decode(&xyz.encode(&Key::Session("a".into()))), None);
        let keys = Keys::new("c");
        for (narrow, wide) in [("xy", "xyz"), ("xy", "xy/z"), ("xy", "xy0"), ("", "a")] {
            let other = keys.leader(&wide.into(), SessionId(1));
            let range = keys.leaders(&narrow.into());
            assert!(!(range.start <= other && other < range.end), "{narrow} sees {wide}");
            let other = keys.encode(&Key::History(wide.into(), Token(1)));
            let range = keys.history(&narrow.into());
            assert!(!(range.start <= other && other < range.end), "{narrow} sees {wide}");
        }
    }

    #[test]
    fn foreign_leader_keys_are_told_apart_and_found_again() {
        let keys = Keys::new("c");
        let prefix = keys.leader_prefix(&"e".into()).into_bytes();
        let mut seen = std::collections::BTreeSet::new();
        for suffix in [&b"694d"[..], b"", b"a/b", b"%", b"%25", b"\xff", b"%FF", b" ", b"0%"] {
            let bytes = [&prefix[..], b"/", suffix].concat();
            let key = keys.decode(&bytes).expect("every suffix counts");
            assert_eq!(keys.encode(&key), bytes);
            assert!(seen.insert(key));
        }
    }

    #[test]
    fn what_is_no_key_of_ours_is_none() {
        let keys = Keys::new("c");
        for foreign in [
            "/conclave/c/",
            "/conclave/c",
            "/conclave/c/sessions",
            "/conclave/c/sessions/a/b",
            "/conclave/c/sessions/%61",
            "/conclave/c/sessions/%2f",
            "/conclave/c/sessions/%2",
            "/conclave/c/sessions/%FF",
            "/conclave/c/sessions/a b",
            "/conclave/c/candidates/e",
            "/conclave/c/elections/e/leader",
            "/conclave/c/elections/e/control/other",
            "/conclave/c/scratch",
            "/conclave/d/sessions/a",
            "",
        ] {
            assert_eq!(keys.decode(foreign.as_bytes()), None, "{foreign}");
        }
    }

    #[test]
    fn stray_keys_in_history_stand_under_token_zero() {
        let keys = Keys::new("c");
        for stray in ["junk", "42", "000000000000000000042", "99999999999999999999", ""] {
            let bytes = format!("/conclave/c/history/e/{stray}").into_bytes();
            assert_eq!(keys.decode(&bytes), Some(Key::History("e".into(), Token(0))), "{stray}");
        }
    }
}
