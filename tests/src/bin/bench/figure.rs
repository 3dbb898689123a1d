//! Figures: samples of one kind, what is asked of them, and what they amount to.

use std::time::Duration;

use conclave_tests::quantile::quantile;

/// What a figure counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Milliseconds.
    Milliseconds,
    /// Microseconds.
    Microseconds,
    /// Millions of bytes.
    Megabytes,
    /// Hundredths of one processor core's time.
    PercentOfCore,
    /// Events per second.
    PerSecond,
}

impl Unit {
    /// As it is written after a number.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Unit::Milliseconds => "ms",
            Unit::Microseconds => "us",
            Unit::Megabytes => "MB",
            Unit::PercentOfCore => "%",
            Unit::PerSecond => "/s",
        }
    }

    /// How many milliseconds one of it is, where it is a time.
    pub(crate) fn in_milliseconds(self) -> Option<f64> {
        match self {
            Unit::Milliseconds => Some(1.0),
            Unit::Microseconds => Some(1e-3),
            Unit::Megabytes | Unit::PercentOfCore | Unit::PerSecond => None,
        }
    }
}

/// Which number of a spread is compared with an aim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statistic {
    /// What half of the samples do not exceed.
    Median,
    /// What 99 in a hundred do not exceed.
    P99,
    /// The worst sample.
    Max,
}

impl Statistic {
    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Statistic::Median => "median",
            Statistic::P99 => "p99",
            Statistic::Max => "max",
        }
    }
}

/// What is asked of a figure: a statistic below a bound, in the figure's unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Aim {
    /// Of what.
    pub(crate) of: Statistic,
    /// The bound.
    pub(crate) below: f64,
}

/// Samples of one kind; never none.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Figure {
    /// For machines.
    pub(crate) name: &'static str,
    /// For people.
    pub(crate) what: String,
    /// What the samples count.
    pub(crate) unit: Unit,
    /// In the order in which they were taken.
    pub(crate) samples: Vec<f64>,
    /// What is asked of them.
    pub(crate) aim: Option<Aim>,
    /// What they are made of, by name, in the same unit unless the name says otherwise.
    pub(crate) parts: Vec<(String, f64)>,
}

impl Figure {
    /// A figure without an aim.
    pub(crate) fn new(
        name: &'static str,
        what: impl Into<String>,
        unit: Unit,
        samples: Vec<f64>,
    ) -> Self {
        Figure { name, what: what.into(), unit, samples, aim: None, parts: Vec::new() }
    }

    /// A figure of times, in milliseconds.
    pub(crate) fn times(name: &'static str, what: impl Into<String>, samples: &[Duration]) -> Self {
        let samples = samples.iter().map(|span| span.as_secs_f64() * 1e3).collect();
        Self::new(name, what, Unit::Milliseconds, samples)
    }

    /// The same with an aim.
    pub(crate) fn aiming(self, of: Statistic, below: f64) -> Self {
        Figure { aim: Some(Aim { of, below }), ..self }
    }

    /// The same with what it is made of.
    pub(crate) fn made_of(self, parts: Vec<(String, f64)>) -> Self {
        Figure { parts, ..self }
    }

    /// What this share of the samples, from 0 to 1, does not exceed: always a sample, never a
    /// number between two.
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        quantile(&self.samples, share)
    }

    /// What half of the samples do not exceed.
    pub(crate) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Whether the aim was met, where there is one.
    pub(crate) fn met(&self) -> Option<bool> {
        self.aim.map(|aim| {
            let reached = match aim.of {
                Statistic::Median => self.median(),
                Statistic::P99 => self.quantile(0.99),
                Statistic::Max => self.quantile(1.0),
            };
            reached < aim.below
        })
    }

    /// How many store writes its median takes, where it is a time.
    pub(crate) fn in_writes(&self, write_ms: f64) -> Option<f64> {
        self.unit.in_milliseconds().map(|unit| self.median() * unit / write_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(samples: &[f64]) -> Figure {
        Figure::new("f", "a figure", Unit::Microseconds, samples.to_vec())
    }

    #[test]
    fn an_aim_is_met_below_its_bound() {
        let samples = figure(&[1.0, 2.0, 30.0]);
        for (of, below, met) in [
            (Statistic::Median, 2.5, true),
            (Statistic::Median, 2.0, false),
            (Statistic::P99, 31.0, true),
            (Statistic::Max, 31.0, true),
            (Statistic::Max, 30.0, false),
        ] {
            assert_eq!(samples.clone().aiming(of, below).met(), Some(met), "{of:?} {below}");
        }
        assert_eq!(samples.met(), None);
    }

    #[test]
    fn only_times_are_counted_in_writes() {
        assert_eq!(figure(&[500.0]).in_writes(0.5), Some(1.0));
        assert_eq!(Figure::new("f", "memory", Unit::Megabytes, vec![1.0]).in_writes(0.5), None);
    }
}
