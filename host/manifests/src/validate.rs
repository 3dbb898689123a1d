//! What counts as a manifest: YAML or JSON whose every document names its `apiVersion` and `kind`.
//!
//! Nothing more is checked: what a pod may say is the kubelet's to know. But a file that is cut
//! short, empty or something else altogether must never replace a good one.

use conclave_yaml::{MOST_OPEN, MOST_REPEATED, too_many_open, too_much_repeated};
use serde::Deserialize;

/// The largest manifest, in bytes. The kubelet mirrors a static pod into the API server's etcd,
/// which by default takes no request above 1.5 MiB; so nothing larger can run.
pub const MAX_MANIFEST_BYTES: u64 = 1536 * 1024;

/// Why a text is not a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidManifest {
    /// It does not parse.
    #[error("line {line}, column {column}: {message}")]
    Syntax {
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// What the parser says.
        message: String,
    },
    /// A document lacks a field that every manifest has.
    #[error("document {document} has no {field}")]
    MissingField {
        /// Which document, from 1.
        document: usize,
        /// The field.
        field: &'static str,
    },
    /// A document is a list, a number or a word.
    #[error("document {document} is not a mapping: {message}")]
    NotAMapping {
        /// Which document, from 1.
        document: usize,
        /// What the parser says.
        message: String,
    },
    /// There is no document.
    #[error("it is empty")]
    Empty,
}

/// The only fields that are looked at.
#[derive(Deserialize)]
struct Header {
    #[serde(rename = "apiVersion")]
    api_version: Option<serde_yaml::Value>,
    kind: Option<serde_yaml::Value>,
}

impl Header {
    fn check(&self, document: usize) -> Result<(), InvalidManifest> {
        for (field, value) in [("apiVersion", &self.api_version), ("kind", &self.kind)] {
            let named = value.as_ref().and_then(|value| value.as_str());
            if named.is_none_or(str::is_empty) {
                return Err(InvalidManifest::MissingField { document, field });
            }
        }
        Ok(())
    }
}

/// Whether `text` is a manifest. Documents without content, as a closing `---` makes them, are
/// passed over.
pub fn validate(text: &str) -> Result<(), InvalidManifest> {
    if text.trim_start().starts_with('{') {
        return validate_json(text);
    }
    if let Some((line, column)) = too_many_open(text) {
        let message = format!("more than {MOST_OPEN} brackets are open here");
        return Err(InvalidManifest::Syntax { line, column, message });
    }
    if let Some((line, column)) = too_much_repeated(text) {
        let message = format!("the aliases up to here stand for more than {MOST_REPEATED} values");
        return Err(InvalidManifest::Syntax { line, column, message });
    }
    let mut any = false;
    for (at, document) in serde_yaml::Deserializer::from_str(text).enumerate() {
        let value = serde_yaml::Value::deserialize(document).map_err(|error| {
            let at = error.location();
            InvalidManifest::Syntax {
                line: at.as_ref().map_or(1, |at| at.line()),
                column: at.as_ref().map_or(1, |at| at.column()),
                message: without_location(&error.to_string()),
            }
        })?;
        if value.is_null() {
            continue;
        }
        any = true;
        serde_yaml::from_value::<Header>(value)
            .map_err(|error| InvalidManifest::NotAMapping {
                document: at + 1,
                message: error.to_string(),
            })?
            .check(at + 1)?;
    }
    if any { Ok(()) } else { Err(InvalidManifest::Empty) }
}

/// JSON is parsed as such: a YAML parser takes more than the kubelet would, and its messages
/// mislead.
fn validate_json(text: &str) -> Result<(), InvalidManifest> {
    let header: Header = serde_json::from_str(text).map_err(|error| InvalidManifest::Syntax {
        line: error.line(),
        column: error.column(),
        message: without_location(&error.to_string()),
    })?;
    header.check(1)
}

/// The parsers append where they stopped; it is reported apart.
fn without_location(message: &str) -> String {
    message.split(" at line ").next().unwrap_or(message).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: &str = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n";

    #[test]
    fn takes_manifests() {
        for text in [
            POD.to_owned(),
            format!("---\n{POD}"),
            format!("# a comment\n---\n---\n{POD}---\n"),
            format!("{POD}---\n{POD}"),
            "{\"apiVersion\": \"v1\", \"kind\": \"Pod\"}".to_owned(),
            "{\n\t\"apiVersion\": \"v1\",\n\t\"kind\": \"Pod\"\n}\n".to_owned(),
            "a: &a 1\nb: *a\napiVersion: v1\nkind: Pod\n".to_owned(),
            "apiVersion: v1\r\nkind: Pod\r\n".to_owned(),
        ] {
            assert_eq!(validate(&text), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        let missing = |document, field| InvalidManifest::MissingField { document, field };
        for (text, expected) in [
            ("", InvalidManifest::Empty),
            ("\n\n# nothing\n", InvalidManifest::Empty),
            ("---\n---\n", InvalidManifest::Empty),
            ("kind: Pod\n", missing(1, "apiVersion")),
            ("apiVersion: v1\n", missing(1, "kind")),
            ("apiVersion: v1\nkind:\n", missing(1, "kind")),
            ("apiVersion: v1\nkind: ''\n", missing(1, "kind")),
            ("apiVersion: 1\nkind: Pod\n", missing(1, "apiVersion")),
            ("apiVersion: v1\nkind: Pod\n---\nkind: Pod\n", missing(2, "apiVersion")),
            ("{\"kind\": \"Pod\"}", missing(1, "apiVersion")),
        ] {
            assert_eq!(validate(text), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn says_where_the_syntax_breaks() {
        for (text, at) in [
            ("apiVersion: v1\nkind: Pod\nmetadata:\n  name: 'a\n", (5, 1)),
            ("apiVersion: v1\n\tkind: Pod\n", (2, 1)),
            ("{\"apiVersion\": \"v1\",\n \"kind\": }", (2, 10)),
            ("{\"apiVersion\": \"v1\", \"ki", (1, 24)),
        ] {
            match validate(text) {
                Err(InvalidManifest::Syntax { line, column, message }) => {
                    assert_eq!((line, column), at, "{text:?}: {message}");
                    assert!(!message.contains(" line "), "{message}");
                }
                other => panic!("{text:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn refuses_what_is_not_a_mapping() {
        for text in ["just words", "- a\n- b\n", "42"] {
            let answer = validate(text);
            assert!(
                matches!(answer, Err(InvalidManifest::NotAMapping { document: 1, .. })),
                "{text:?}: {answer:?}"
            );
        }
    }

    #[test]
    fn refuses_aliases_that_make_much_of_little() {
        let (many, more) = ("x, ".repeat(1_000), "*a, ".repeat(100));
        let text = format!("apiVersion: v1\nkind: Pod\na: &a [{many}]\nb: [{more}]\n");
        let Err(InvalidManifest::Syntax { line: 4, message, .. }) = validate(&text) else {
            panic!("it passes")
        };
        assert_eq!(message, "the aliases up to here stand for more than 20000 values");
    }

    #[test]
    fn survives_brackets_without_end() {
        let braces = "{a: ".repeat(300_000);
        for text in [braces.clone(), format!("a: 1\nb: {braces}"), "[".repeat(1_000_000)] {
            assert!(matches!(validate(&text), Err(InvalidManifest::Syntax { .. })));
        }
        let deep = validate(&format!("a: 1\nb: {braces}"));
        let Err(InvalidManifest::Syntax { line: 2, column, message }) = deep else {
            panic!("{deep:?}")
        };
        assert_eq!((column, &*message), (40_004, "more than 10000 brackets are open here"));
    }

    #[test]
    fn survives_aliases_that_multiply() {
        let mut text =
            String::from("apiVersion: v1\nkind: Pod\na0: &a0 [x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}", level - 1);
            text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 9].join(", ")));
        }
        assert!(matches!(validate(&text), Err(InvalidManifest::Syntax { .. })));
    }
}
