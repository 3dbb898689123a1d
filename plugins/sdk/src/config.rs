//! Reading the configuration, with messages that say where a mistake is.

use serde::de::DeserializeOwned;

use crate::Problem;

/// A policy's configuration: `()` for none, or a type of your own that implements `Deserialize`,
/// and `impl Config for Settings {}` beside it.
///
/// Give that type `#[serde(deny_unknown_fields)]`, so that misspelt settings are not ignored,
/// and `#[serde(default)]` on whatever may be left out.
pub trait Config: DeserializeOwned {
    /// Parses a JSON object. An error says where the first mistake is.
    fn parse(json: &str) -> Result<Self, Problem> {
        let mut reader = serde_json::Deserializer::from_str(json);
        serde_path_to_error::deserialize(&mut reader).map_err(|error| Problem {
            path: pointer(error.path()),
            message: without_position(&error.inner().to_string()),
        })
    }
}

/// Nothing but an empty object.
impl Config for () {
    fn parse(json: &str) -> Result<(), Problem> {
        let inner = json.trim().strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        match inner {
            Some(inner) if inner.trim().is_empty() => Ok(()),
            _ => Err(Problem {
                path: String::new(),
                message: "this policy takes no configuration; remove `policy_config`".into(),
            }),
        }
    }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;

    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer += &format!("/{index}"),
            Segment::Map { key } => pointer += &format!("/{}", escape(key)),
            Segment::Enum { variant } => pointer += &format!("/{}", escape(variant)),
            Segment::Unknown => {}
        }
    }
    pointer
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

/// The position in the compact JSON means nothing to somebody who wrote YAML.
fn without_position(message: &str) -> String {
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code, reason = "only parsed")]
    struct Settings {
        #[serde(default)]
        weights: std::collections::BTreeMap<String, u8>,
    }

    impl Config for Settings {}

    #[test]
    fn mistakes_are_located() {
        for (json, path, message) in [
            (r#"{"wieghts": {}}"#, "/wieghts", "unknown field `wieghts`, expected `weights`"),
            (
                r#"{"weights": {"a/b": "x"}}"#,
                "/weights/a~1b",
                "invalid type: string \"x\", expected u8",
            ),
            ("7", "", "invalid type: integer `7`, expected struct Settings"),
        ] {
            let problem = Settings::parse(json).map(|_| ()).expect_err(json);
            assert_eq!((problem.path.as_str(), problem.message.as_str()), (path, message));
        }
    }

    #[test]
    fn no_configuration_means_an_empty_object() {
        assert_eq!(<()>::parse(" { } "), Ok(()));
        assert!(<()>::parse(r#"{"a": 1}"#).is_err());
        assert!(<()>::parse("").is_err());
    }
}
