//! The guard's few log lines, in the form of the daemon's.
//!
//! A thread of its own writes them (`lines`): the guard must wait for nobody.

use std::fmt::{Display, Write as _};
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::lines::{Lines, LinesEnd};

/// Lines that wait to be written.
const BACKLOG: usize = 64;

/// How log lines are written, by guard and daemon alike: `CONCLAVE_LOG_FORMAT`, read once at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object on each line, for programs.
    Json,
}

impl LogFormat {
    /// What the environment wants: `json`, or else text.
    pub fn from_env() -> Self {
        match std::env::var_os("CONCLAVE_LOG_FORMAT") {
            Some(format) if format == "json" => LogFormat::Json,
            _ => LogFormat::Text,
        }
    }
}

/// Where the lines go.
pub(crate) struct Log {
    lines: Lines,
    format: LogFormat,
    quiet: bool,
    /// Waits for the last ones.
    _end: LinesEnd,
}

impl Log {
    pub(crate) fn start(quiet: bool) -> io::Result<Self> {
        let (lines, end) = Lines::to_stderr(BACKLOG)?;
        Ok(Log { lines, format: LogFormat::from_env(), quiet, _end: end })
    }

    pub(crate) fn info(&self, message: &str, fields: impl Display) {
        if !self.quiet {
            self.line(" INFO", message, &fields);
        }
    }

    pub(crate) fn warn(&self, message: &str, fields: impl Display) {
        self.line(" WARN", message, &fields);
    }

    pub(crate) fn error(&self, message: &str, fields: impl Display) {
        self.line("ERROR", message, &fields);
    }

    /// Waits a little for the lines so far to be written.
    pub(crate) fn flush(&self) {
        self.lines.flush();
    }

    fn line(&self, level: &str, message: &str, fields: &dyn Display) {
        let time = timestamp(SystemTime::now());
        let line = match self.format {
            LogFormat::Text => format!("{time} {level} conclave::guard: {message} {fields}\n"),
            LogFormat::Json => object(&[
                ("timestamp", &time),
                ("level", level.trim_start()),
                ("message", message),
                ("details", &fields.to_string()),
                ("target", "conclave::guard"),
            ]),
        };
        self.lines.put(line.into_bytes());
    }
}

/// Texts as a line of JSON.
fn object(members: &[(&str, &str)]) -> String {
    let mut line = String::from("{");
    for (at, (name, text)) in members.iter().enumerate() {
        line.push_str(if at == 0 { "\"" } else { ",\"" });
        line.push_str(name);
        line.push_str("\":\"");
        for c in text.chars() {
            match c {
                '"' | '\\' => line.extend(['\\', c]),
                // Writing to a string cannot fail.
                c if c.is_control() => drop(write!(line, "\\u{:04x}", c as u32)),
                c => line.push(c),
            }
        }
        line.push('"');
    }
    line + "}\n"
}

/// RFC 3339 in UTC with microseconds.
fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    let micros = since.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// The Gregorian date of a day counted from 1970-01-01. Years are counted from March here, so
/// that the leap day is a year's last and the months' lengths follow one formula.
fn date(day: u64) -> (u64, u64, u64) {
    let day = day + 719_468; // from 0000-03-01
    let (era, day) = (day / 146_097, day % 146_097); // 400 years each
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn whatever_is_told_is_one_line_of_json() {
        for (text, expected) in [
            ("plain", r#"{"message":"plain","details":"plain"}"#),
            (
                "say \"no\" \\ \n\u{7f}",
                r#"{"message":"say \"no\" \\ \u000a\u007f","details":"say \"no\" \\ \u000a\u007f"}"#,
            ),
        ] {
            assert_eq!(object(&[("message", text), ("details", text)]), format!("{expected}\n"));
        }
    }

    #[test]
    fn timestamps_read_as_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_399, "2000-02-28T23:59:59.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (951_868_800, "2000-03-01T00:00:00.000000Z"),
            (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
            (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
        ] {
            assert_eq!(timestamp(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
