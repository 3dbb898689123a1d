//! The durations: defaults that follow from the TTL, and what must hold between them.

use std::time::Duration;

use conclave_core::Timings;

use super::raw;

/// Below this a TTL is taken only at the operator's word.
const SHORT_TTL: Duration = Duration::from_millis(500);

/// Above this a TTL is a slip of the pen.
const LONG_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// A session that beats more often than this keeps the store and its disk busy for nothing, and a
/// request that may take no longer than this fails at every hiccup of a network.
const SHORTEST_BEAT: Duration = Duration::from_millis(10);

/// A clock that is worse than this, in parts per million, is broken.
const WORST_CLOCK_PPM: u32 = 100_000;

/// The durations of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimingsConfig {
    /// Those of the protocol.
    pub protocol: Timings,
    /// How often manifests are compared with their sources although no change was reported.
    pub rescan: Duration,
    /// Whether the operator wants a TTL below half a second.
    pub allow_short_ttl: bool,
}

impl TimingsConfig {
    /// Reading directories more often than this keeps a processor busy.
    pub const SHORTEST_RESCAN: Duration = Duration::from_millis(100);

    /// The protocol's defaults for a TTL.
    pub fn for_ttl(ttl: Duration) -> Self {
        TimingsConfig {
            protocol: Timings::for_ttl(ttl),
            rescan: Duration::from_secs(5),
            allow_short_ttl: false,
        }
    }

    /// What does not fit together.
    pub fn mistakes(&self) -> Vec<TimingMistake> {
        let Timings { ttl, margin, .. } = self.protocol;
        let mut mistakes = self.nonsense();
        if ttl < SHORT_TTL && !self.allow_short_ttl {
            mistakes.push(TimingMistake {
                field: "ttl",
                message: format!(
                    "ttl {} is shorter than {}: ordinary pauses of a machine or its store would end terms",
                    text(ttl),
                    text(SHORT_TTL)
                ),
                help: "raise it, or add `allow_short_ttl: true` if you measured that your store and machines are quick enough".to_owned(),
            });
        }
        if margin >= ttl {
            mistakes.push(TimingMistake {
                field: "margin",
                message: format!("margin {} leaves nothing of ttl {}", text(margin), text(ttl)),
                help: format!(
                    "the default margin for this ttl is {}",
                    text(Timings::for_ttl(ttl).margin)
                ),
            });
        } else {
            mistakes.extend(self.misfits());
        }
        mistakes
    }

    /// Values that are wrong by themselves.
    fn nonsense(&self) -> Vec<TimingMistake> {
        let Timings { ttl, margin, beat, request_timeout, clock_rate_error_ppm, .. } =
            self.protocol;
        let mut mistakes = Vec::new();
        let mut wrong = |field, message: String, help: &str| {
            mistakes.push(TimingMistake { field, message, help: help.to_owned() });
        };
        let nonzero = [
            ("ttl", ttl),
            ("beat", beat),
            ("margin", margin),
            ("request_timeout", request_timeout),
        ];
        for (field, _) in nonzero.iter().filter(|(_, span)| span.is_zero()) {
            wrong(
                field,
                format!("{field} must be longer than nothing"),
                "leave it out to get a default that fits the ttl",
            );
        }
        for (field, span) in [("beat", beat), ("request_timeout", request_timeout)] {
            if span < SHORTEST_BEAT && !span.is_zero() {
                wrong(
                    field,
                    format!("{field} {} is shorter than {}", text(span), text(SHORTEST_BEAT)),
                    "leave it out to get a fifth of the ttl",
                );
            }
        }
        if ttl.subsec_nanos() % 1_000_000 != 0 {
            wrong(
                "ttl",
                format!("ttl {} is not a whole number of milliseconds", text(ttl)),
                "round it",
            );
        }
        if ttl > LONG_TTL {
            wrong(
                "ttl",
                format!(
                    "ttl {} is longer than {}: nobody would replace a crashed leader for that long",
                    text(ttl),
                    text(LONG_TTL)
                ),
                "a TTL is usually some seconds",
            );
        }
        if clock_rate_error_ppm > WORST_CLOCK_PPM {
            wrong(
                "clock_rate_error",
                format!(
                    "clock_rate_error {} is more than {}",
                    percent(clock_rate_error_ppm),
                    percent(WORST_CLOCK_PPM)
                ),
                "the default of 0.1% is generous for working hardware",
            );
        }
        if self.rescan < Self::SHORTEST_RESCAN {
            wrong(
                "rescan",
                format!(
                    "rescan {} is shorter than {}",
                    text(self.rescan),
                    text(Self::SHORTEST_RESCAN)
                ),
                "changes are noticed at once anyway; this is only the second look",
            );
        }
        mistakes
    }

    /// Values that do not fit together, the margin being within the TTL.
    fn misfits(&self) -> Vec<TimingMistake> {
        let Timings { ttl, margin, beat, request_timeout, stagger, relist, .. } = self.protocol;
        let ppm = self.protocol.clock_rate_error_ppm;
        let mut mistakes = Vec::new();
        let mut wrong = |field, message: String, help: String| {
            mistakes.push(TimingMistake { field, message, help });
        };
        let room = ttl.saturating_sub(margin);
        if beat.saturating_add(request_timeout) > room {
            wrong(
                if beat >= request_timeout { "beat" } else { "request_timeout" },
                format!(
                    "beat {} and request_timeout {} together exceed ttl {} less margin {}: one slow beat would end the session",
                    text(beat),
                    text(request_timeout),
                    text(ttl),
                    text(margin)
                ),
                format!("for this ttl both are {} by default", text(ttl / 5)),
            );
        }
        let drift = ttl.mul_f64(f64::from(ppm) / 1e6);
        if margin < drift && ppm <= WORST_CLOCK_PPM {
            wrong(
                "margin",
                format!(
                    "margin {} does not cover what a clock with clock_rate_error {} is off by after ttl {}, which is {}",
                    text(margin),
                    percent(ppm),
                    text(ttl),
                    text(drift)
                ),
                "widen the margin".to_owned(),
            );
        }
        if stagger > ttl {
            wrong(
                "stagger",
                format!("stagger {} is longer than ttl {}", text(stagger), text(ttl)),
                "it only has to let one candidate's write arrive before the next one's; the default is 50ms".to_owned(),
            );
        }
        if relist < request_timeout {
            wrong(
                "relist",
                format!(
                    "relist {} is shorter than request_timeout {}",
                    text(relist),
                    text(request_timeout)
                ),
                "changes are watched anyway; this is only the second look".to_owned(),
            );
        }
        mistakes
    }
}

/// Two durations that do not fit together, or one that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimingMistake {
    /// The field to point at.
    pub field: &'static str,
    /// What is wrong, with all values that have a part in it.
    pub message: String,
    /// What to do.
    pub help: String,
}

/// The protocol's defaults for the TTL that is written, and over them what else is written.
pub(super) fn from_raw(raw: &raw::Timings) -> TimingsConfig {
    let mut timings = TimingsConfig::for_ttl(raw.ttl.map_or(Timings::default().ttl, |span| span.0));
    let protocol = &mut timings.protocol;
    let fields = [
        (&mut protocol.beat, raw.beat),
        (&mut protocol.margin, raw.margin),
        (&mut protocol.request_timeout, raw.request_timeout),
        (&mut protocol.stagger, raw.stagger),
        (&mut protocol.minimum_term, raw.minimum_term),
        (&mut protocol.relist, raw.relist),
        (&mut timings.rescan, raw.rescan),
    ];
    for (field, written) in fields {
        if let Some(span) = written {
            *field = span.0;
        }
    }
    protocol.stagger_cap = protocol.stagger_cap.max(protocol.stagger);
    if let Some(error) = raw.clock_rate_error {
        protocol.clock_rate_error_ppm = error.0;
    }
    timings.allow_short_ttl = raw.allow_short_ttl.unwrap_or(false);
    timings
}

/// A duration as an operator would write it.
pub(super) fn text(span: Duration) -> String {
    humantime::format_duration(span).to_string()
}

fn percent(ppm: u32) -> String {
    format!("{}%", f64::from(ppm) / 10_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(change: impl FnOnce(&mut TimingsConfig)) -> Vec<(&'static str, String)> {
        let mut timings = TimingsConfig::for_ttl(Duration::from_secs(10));
        change(&mut timings);
        timings.mistakes().into_iter().map(|mistake| (mistake.field, mistake.message)).collect()
    }

    #[test]
    fn defaults_fit_any_ttl_from_half_a_second_to_a_day() {
        for ms in [500, 501, 999, 1_000, 2_000, 9_999, 10_000, 30_000, 3_600_000, 86_400_000] {
            let timings = TimingsConfig::for_ttl(Duration::from_millis(ms));
            assert_eq!(timings.mistakes(), [], "ttl of {ms} ms");
        }
    }

    #[test]
    fn a_short_ttl_needs_the_operators_word() {
        let short = |allow| {
            let timings = TimingsConfig {
                allow_short_ttl: allow,
                ..TimingsConfig::for_ttl(Duration::from_millis(300))
            };
            timings.mistakes().len()
        };
        assert_eq!(short(false), 1);
        assert_eq!(short(true), 0);
    }

    #[test]
    fn a_refusal_names_both_values() {
        let s = Duration::from_secs;
        type Change = Box<dyn FnOnce(&mut TimingsConfig)>;
        let table: Vec<(Change, &str, &str)> = vec![
            (
                Box::new(move |t| t.protocol.margin = s(10)),
                "margin",
                "margin 10s leaves nothing of ttl 10s",
            ),
            (
                Box::new(move |t| t.protocol.beat = s(8)),
                "beat",
                "beat 8s and request_timeout 2s together exceed ttl 10s less margin 1s: one slow beat would end the session",
            ),
            (
                Box::new(move |t| t.protocol.request_timeout = s(9)),
                "request_timeout",
                "beat 2s and request_timeout 9s together exceed ttl 10s less margin 1s: one slow beat would end the session",
            ),
            (
                Box::new(|t| t.protocol.margin = Duration::from_millis(9)),
                "margin",
                "margin 9ms does not cover what a clock with clock_rate_error 0.1% is off by after ttl 10s, which is 10ms",
            ),
            (
                Box::new(move |t| t.protocol.stagger = s(11)),
                "stagger",
                "stagger 11s is longer than ttl 10s",
            ),
            (
                Box::new(move |t| t.protocol.relist = s(1)),
                "relist",
                "relist 1s is shorter than request_timeout 2s",
            ),
            (
                Box::new(|t| t.rescan = Duration::from_millis(1)),
                "rescan",
                "rescan 1ms is shorter than 100ms",
            ),
            (
                Box::new(|t| t.protocol.clock_rate_error_ppm = 200_000),
                "clock_rate_error",
                "clock_rate_error 20% is more than 10%",
            ),
            (
                Box::new(|t| t.protocol.beat = Duration::from_micros(1)),
                "beat",
                "beat 1us is shorter than 10ms",
            ),
            (
                Box::new(|t| t.protocol.request_timeout = Duration::from_millis(9)),
                "request_timeout",
                "request_timeout 9ms is shorter than 10ms",
            ),
            (
                Box::new(|t| t.protocol.beat = Duration::ZERO),
                "beat",
                "beat must be longer than nothing",
            ),
        ];
        for (change, field, message) in table {
            assert_eq!(mistakes(change), [(field, message.to_owned())]);
        }
    }

    #[test]
    fn a_ttl_is_whole_milliseconds_because_the_record_says_it_in_milliseconds() {
        let timings = TimingsConfig::for_ttl(Duration::from_micros(1_000_500));
        assert_eq!(
            timings.mistakes()[0].message,
            "ttl 1s 500us is not a whole number of milliseconds"
        );
    }
}
