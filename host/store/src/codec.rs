//! Records as JSON. What is no record of ours is [`Value::Garbage`], never an error: a foreign
//! or damaged value must neither crash nor stall anyone.

use conclave_core::{Key, Value};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StoreError;

/// The largest value that is written or understood, in bytes. Two of them, a term's end and the
/// next term, must fit into one etcd request, whose default limit is 1.5 MiB.
pub const MAX_VALUE_BYTES: usize = 512 * 1024;

/// A record's bytes; refused when it is larger than a reader would accept.
pub(crate) fn encode<T: Serialize>(key: &[u8], record: &T) -> Result<Vec<u8>, StoreError> {
    let name = || String::from_utf8_lossy(key).into_owned();
    let bytes = serde_json::to_vec(record)
        .map_err(|source| StoreError::Encoding { key: name(), source })?;
    if bytes.len() > MAX_VALUE_BYTES {
        return Err(StoreError::TooLarge { key: name(), size: bytes.len() });
    }
    Ok(bytes)
}

/// What the bytes under a key say.
pub(crate) fn decode(key: &Key, bytes: &[u8]) -> Value {
    match key {
        Key::Session(_) => parse(bytes, Value::Session),
        Key::Candidacy(..) => parse(bytes, Value::Candidacy),
        Key::Leader(..) => parse(bytes, Value::Leader),
        Key::Pause(_) | Key::Cordon(..) => parse(bytes, Value::Mark),
        Key::Transfer(_) => parse(bytes, Value::Transfer),
        Key::History(..) => parse(bytes, Value::History),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8], wrap: fn(T) -> Value) -> Value {
    // Serde would also take an array for a record, field by field.
    let is_object = bytes.trim_ascii_start().starts_with(b"{");
    if !is_object || bytes.len() > MAX_VALUE_BYTES {
        return Value::Garbage;
    }
    // In what it skips, serde would not mind bytes that are no text.
    let Ok(text) = std::str::from_utf8(bytes) else { return Value::Garbage };
    serde_json::from_str(text).map_or(Value::Garbage, wrap)
}

#[cfg(test)]
mod tests {
    use conclave_core::record::MarkRecord;

    use super::*;

    fn pause() -> Key {
        Key::Pause("e".into())
    }

    #[test]
    fn what_is_no_record_is_garbage() {
        let too_long = format!("{{\"note\":\"{}\"}}", "x".repeat(MAX_VALUE_BYTES));
        let too_deep = "[".repeat(100_000);
        for bytes in [
            &b""[..],
            b"null",
            b"[]",
            b"[\"a note\", 7]",
            b"host-a",
            b"\xff\xfe",
            b"{\"note\":\"a\",\"later\":\"\xff\"}",
            b"{\"note\":7}",
            b"{\"note\":\"a\"} trailing",
            too_long.as_bytes(),
            too_deep.as_bytes(),
        ] {
            assert_eq!(decode(&pause(), bytes), Value::Garbage);
        }
        let session = Key::Session("a".into());
        assert_eq!(decode(&session, b"{\"nonce\":\"n\"}"), Value::Garbage, "a field is missing");
    }

    #[test]
    fn unknown_fields_are_ignored() {
        let mark = MarkRecord { note: "why".into(), since_unix_ms: 7, for_ms: None };
        let bytes = br#"{"note":"why","since_unix_ms":7,"later":{"x":[1]}}"#;
        assert_eq!(decode(&pause(), bytes), Value::Mark(mark));
    }

    #[test]
    fn what_nobody_would_read_is_not_written() {
        let mark = MarkRecord { note: "x".repeat(MAX_VALUE_BYTES), since_unix_ms: 0, for_ms: None };
        let error = encode(b"/conclave/c/p", &mark).unwrap_err();
        assert!(matches!(error, StoreError::TooLarge { ref key, .. } if key == "/conclave/c/p"));
    }
}
