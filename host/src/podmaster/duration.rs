//! Durations as Go writes them: `5s`, `1h2m3.5s`, `100ms`.

use std::time::Duration;

/// What Go holds a duration in: a signed number of nanoseconds.
const LONGEST: u128 = i64::MAX as u128;

/// Why a text is no duration that can be waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DurationError {
    #[error("it is not a duration")]
    Malformed,
    #[error("it has no unit")]
    NoUnit,
    #[error("its unit is none of ns, us, ms, s, m and h")]
    UnknownUnit,
    #[error("it is negative")]
    Negative,
    #[error("it is longer than Go can express, which is about 292 years")]
    TooLong,
}

/// Reads a duration as `time.ParseDuration` does, save that negative ones are refused.
pub(super) fn parse(text: &str) -> Result<Duration, DurationError> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    // A bare zero is the only number that needs no unit.
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(DurationError::Malformed);
    }
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let (part, after) = part(rest)?;
        nanos = nanos.saturating_add(part);
        rest = after;
    }
    match nanos {
        0 => Ok(Duration::ZERO),
        _ if negative => Err(DurationError::Negative),
        1..=LONGEST => Ok(Duration::from_nanos_u128(nanos)),
        _ => Err(DurationError::TooLong),
    }
}

/// One number and its unit, in nanoseconds, and what follows them.
fn part(text: &str) -> Result<(u128, &str), DurationError> {
    let (whole, rest) = digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Malformed);
    }
    let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    let unit: u128 = match name {
        "ns" => 1,
        // Both the micro sign and the Greek letter, as Go takes them.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "" => return Err(DurationError::NoUnit),
        _ => return Err(DurationError::UnknownUnit),
    };
    let whole = match whole {
        "" => 0,
        digits => digits.parse::<u64>().map_err(|_| DurationError::TooLong)?,
    };
    Ok((u128::from(whole) * unit + share(fraction, unit), rest))
}

/// The digits at the start, and the rest.
fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A decimal fraction of a unit, rounded down to nanoseconds.
fn share(fraction: &str, unit: u128) -> u128 {
    // An hour has thirteen digits of nanoseconds: what stands further behind is less than one.
    let (value, scale) = fraction
        .bytes()
        .take(18)
        .fold((0, 1), |(value, scale), digit| (value * 10 + u128::from(digit - b'0'), scale * 10));
    value * unit / scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_go_accepts() {
        let table = [
            ("0", 0),
            ("+0", 0),
            ("-0s", 0),
            ("5s", 5_000_000_000),
            ("+5s", 5_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("1h2m3.5s", 3_723_500_000_000),
            ("100ms", 100_000_000),
            ("1us", 1_000),
            ("1\u{b5}s", 1_000),
            ("1\u{3bc}s", 1_000),
            ("7ns", 7),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("0.000000001s", 1),
            ("0.0000000019s", 1),
            ("0.3333333333333333333h", 1_200_000_000_000 - 1),
            ("3m3m", 360_000_000_000),
            ("9223372036854775807ns", 9_223_372_036_854_775_807),
            ("0.100000000000000000000h", 360_000_000_000),
        ];
        for (text, nanos) in table {
            assert_eq!(parse(text), Ok(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_waited_for() {
        let table = [
            ("", DurationError::Malformed),
            ("-", DurationError::Malformed),
            ("s", DurationError::Malformed),
            (".s", DurationError::Malformed),
            ("+-5s", DurationError::Malformed),
            ("5s ", DurationError::UnknownUnit),
            ("5", DurationError::NoUnit),
            ("5s5", DurationError::NoUnit),
            ("1h0", DurationError::NoUnit),
            ("00", DurationError::NoUnit),
            ("5d", DurationError::UnknownUnit),
            ("5S", DurationError::UnknownUnit),
            ("-5s", DurationError::Negative),
            ("9223372036854775808ns", DurationError::TooLong),
            ("99999999999999999999s", DurationError::TooLong),
            ("3000000h", DurationError::TooLong),
        ];
        for (text, error) in table {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
    }
}
