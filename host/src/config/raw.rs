//! The configuration file's fields, as they are written.
//!
//! Every field is optional here, so that what is missing is reported together with everything
//! else that is wrong, by the modules that give the fields their meaning.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "the fields `cluster`, `node`, `store`, `elections` and so on"
)]
pub(super) struct Root {
    pub(super) cluster: Option<String>,
    pub(super) node: Option<Node>,
    pub(super) store: Option<Store>,
    pub(super) timings: Option<Timings>,
    pub(super) policies: Option<Policies>,
    pub(super) state_directory: Option<String>,
    pub(super) elections: Option<Vec<Election>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the fields `name`, `labels` and `variables`")]
pub(super) struct Node {
    pub(super) name: Option<String>,
    pub(super) labels: Option<BTreeMap<String, String>>,
    pub(super) variables: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "either `etcd` or `embedded`")]
pub(super) struct Store {
    pub(super) etcd: Option<Etcd>,
    pub(super) embedded: Option<Embedded>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the fields `endpoints`, `tls`, `user` and so on")]
pub(super) struct Etcd {
    pub(super) endpoints: Option<Vec<String>>,
    pub(super) tls: Option<Tls>,
    pub(super) user: Option<String>,
    pub(super) password: Option<String>,
    pub(super) password_file: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the fields `ca`, `certificate`, `key` and `server_name`")]
pub(super) struct Tls {
    pub(super) ca: Option<String>,
    pub(super) certificate: Option<String>,
    pub(super) key: Option<String>,
    pub(super) server_name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the field `path`")]
pub(super) struct Embedded {
    pub(super) path: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the fields `ttl`, `beat`, `margin` and so on")]
pub(super) struct Timings {
    pub(super) ttl: Option<Span>,
    pub(super) allow_short_ttl: Option<bool>,
    pub(super) beat: Option<Span>,
    pub(super) margin: Option<Span>,
    pub(super) request_timeout: Option<Span>,
    pub(super) clock_rate_error: Option<RateError>,
    pub(super) stagger: Option<Span>,
    pub(super) minimum_term: Option<Span>,
    pub(super) relist: Option<Span>,
    pub(super) rescan: Option<Span>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "the fields `directory`, `digests` and `limits`")]
pub(super) struct Policies {
    pub(super) directory: Option<String>,
    pub(super) digests: Option<BTreeMap<String, String>>,
    pub(super) limits: Option<Limits>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "the fields `time`, `fuel`, `memory_mib`, `answer_kib` and `log_kib`"
)]
pub(super) struct Limits {
    pub(super) time: Option<Span>,
    pub(super) fuel: Option<u64>,
    pub(super) memory_mib: Option<u32>,
    pub(super) answer_kib: Option<u32>,
    pub(super) log_kib: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an election: the fields `name`, `policy`, `manifests` and so on"
)]
pub(super) struct Election {
    pub(super) name: Option<String>,
    pub(super) policy: Option<String>,
    pub(super) policy_config: Option<serde_json::Value>,
    pub(super) on_policy_failure: Option<OnPolicyFailure>,
    pub(super) manifests: Option<Vec<Manifest>>,
    pub(super) manifest_directory: Option<Directory>,
    pub(super) fitness: Option<Vec<FitnessCheck>>,
    pub(super) stop_check: Option<StopCheck>,
    pub(super) takeover_delay: Option<Span>,
    pub(super) overlap: Option<Overlap>,
    pub(super) role_file: Option<String>,
    pub(super) on_stuck: Option<Vec<String>>,
}

/// What decides while an election's policy fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnPolicyFailure {
    /// The built-in ranking stands in, loudly.
    #[default]
    Builtin,
    /// An incumbent stays and nobody new is elected.
    Hold,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Overlap {
    Accepted,
}

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "a manifest: the fields `source` and `destination`, and perhaps `name`, `exclusive`, `render` and `adopt`"
)]
pub(super) struct Manifest {
    pub(super) name: Option<String>,
    pub(super) source: Option<String>,
    pub(super) destination: Option<String>,
    pub(super) exclusive: Option<bool>,
    pub(super) render: Option<bool>,
    pub(super) adopt: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "the fields `source` and `destination`, and perhaps `exclusive`, `render` and `adopt`"
)]
pub(super) struct Directory {
    pub(super) source: Option<String>,
    pub(super) destination: Option<String>,
    pub(super) exclusive: Option<bool>,
    pub(super) render: Option<bool>,
    pub(super) adopt: Option<bool>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a check: one of `command`, `tcp`, `http` and `file`")]
pub(super) struct FitnessCheck {
    pub(super) name: Option<String>,
    pub(super) command: Option<Vec<String>>,
    pub(super) tcp: Option<String>,
    pub(super) http: Option<String>,
    pub(super) file: Option<String>,
    pub(super) interval: Option<Span>,
    pub(super) timeout: Option<Span>,
    pub(super) rise: Option<u32>,
    pub(super) fall: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a check: one of `command`, `tcp`, `http` and `file`")]
pub(super) struct StopCheck {
    pub(super) command: Option<Vec<String>>,
    pub(super) tcp: Option<String>,
    pub(super) http: Option<String>,
    pub(super) file: Option<String>,
    pub(super) interval: Option<Span>,
    pub(super) timeout: Option<Span>,
    pub(super) within: Option<Span>,
}

/// No duration is longer: what is added to a time must stay one.
const LONGEST_SPAN: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A duration such as `10s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span(pub(super) Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct SpanVisitor;

        impl Visitor<'_> for SpanVisitor {
            type Value = Span;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a duration with its unit, such as `10s`, `500ms` or `1m 30s`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Span, E> {
                let span = humantime::parse_duration(text)
                    .map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))?;
                if span > LONGEST_SPAN {
                    let expected = &"a duration of a hundred years at most";
                    return Err(E::invalid_value(de::Unexpected::Str(text), expected));
                }
                Ok(Span(span))
            }
        }

        deserializer.deserialize_any(SpanVisitor)
    }
}

/// The bound on a clock's rate error, in parts per million.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RateError(pub(super) u32);

impl RateError {
    fn parse(text: &str) -> Option<Self> {
        let (number, scale) = match text.strip_suffix('%') {
            Some(number) => (number, 10_000.0),
            None => (text.strip_suffix("ppm")?, 1.0),
        };
        let ppm = number.trim().parse::<f64>().ok()? * scale;
        // More than a million is nonsense here and keeps the conversion exact.
        (0.0..=1_000_000.0).contains(&ppm).then_some(RateError(ppm.round() as u32))
    }
}

impl<'de> Deserialize<'de> for RateError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct RateVisitor;

        impl Visitor<'_> for RateVisitor {
            type Value = RateError;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share such as `0.1%` or `500ppm`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<RateError, E> {
                RateError::parse(text)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(RateVisitor)
    }
}
