//! Figures as a table for people and as JSON for machines.

use serde_json::{Value, json};

use crate::figure::Figure;

/// The table's first line.
pub(crate) fn heading() -> String {
    format!(
        "{:<53}{:>5}{:>11}{:>11}{:>11}  {:>8}   aim",
        "", "n", "median", "p99", "max", "x write"
    )
}

/// A figure's line, and one for each of its parts; `write_ms` is the store's median write.
pub(crate) fn lines(figure: &Figure, write_ms: f64) -> String {
    let number = |value: f64| format!("{} {}", digits(value), figure.unit.symbol());
    let writes = figure.in_writes(write_ms).map_or(String::new(), digits);
    let mut text = format!(
        "{:<53}{:>5}{:>11}{:>11}{:>11}  {writes:>8}   {}",
        figure.what,
        figure.samples.len(),
        number(figure.median()),
        number(figure.quantile(0.99)),
        number(figure.quantile(1.0)),
        verdict(figure),
    );
    for (part, value) in &figure.parts {
        text.push_str(&format!("\n  {part:<51}{:>16}", number(*value)));
    }
    text.trim_end().to_owned()
}

fn verdict(figure: &Figure) -> String {
    let (Some(aim), Some(met)) = (figure.aim, figure.met()) else { return String::new() };
    // Of a single sample there is nothing to choose from.
    let of = if figure.samples.len() == 1 { "" } else { aim.of.name() };
    let met = if met { "met" } else { "MISSED" };
    format!("{of} < {} {}: {met}", aim.below, figure.unit.symbol()).trim_start().to_owned()
}

/// Three digits that count.
fn digits(value: f64) -> String {
    match value.abs() {
        0.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A figure for machines; `write_ms` is the store's median write.
pub(crate) fn json(figure: &Figure, write_ms: f64) -> Value {
    let parts: serde_json::Map<String, Value> =
        figure.parts.iter().map(|(part, value)| (part.clone(), json!(value))).collect();
    json!({
        "name": figure.name,
        "what": figure.what.trim(),
        "unit": figure.unit.symbol(),
        "count": figure.samples.len(),
        "median": figure.median(),
        "p99": figure.quantile(0.99),
        "max": figure.quantile(1.0),
        "store_writes": figure.in_writes(write_ms),
        "aim": figure.aim.map(|aim| json!({ "of": aim.of.name(), "below": aim.below })),
        "met": figure.met(),
        "parts": parts,
        "samples": figure.samples,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::{Statistic, Unit};

    fn figure() -> Figure {
        let samples = vec![4.0, 2.0, 12.3];
        Figure::new("f", "a figure", Unit::Milliseconds, samples).aiming(Statistic::Median, 3.0)
    }

    #[test]
    fn a_line_says_all_that_was_asked() {
        let line = lines(&figure(), 2.0);
        let words: Vec<&str> = line.split_whitespace().collect();
        let expected = "a figure 3 4.00 ms 12.3 ms 12.3 ms 2.00 median < 3 ms: MISSED";
        assert_eq!(words.join(" "), expected);
    }

    #[test]
    fn a_single_sample_has_no_median_to_speak_of() {
        let single = Figure { samples: vec![1.0], ..figure() };
        assert!(lines(&single, 2.0).ends_with("   < 3 ms: met"), "{}", lines(&single, 2.0));
    }

    #[test]
    fn json_has_spread_aim_and_samples() {
        let json = json(&figure(), 2.0);
        assert_eq!(json["median"], 4.0);
        assert_eq!(json["max"], 12.3);
        assert_eq!(json["store_writes"], 2.0);
        assert_eq!(json["aim"]["below"], 3.0);
        assert_eq!(json["met"], false);
        assert_eq!(json["samples"][1], 2.0);
    }
}
