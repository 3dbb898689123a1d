//! Quantiles of measured samples.

/// What this share of the samples, from 0 to 1, does not exceed: always a sample, never a number
/// between two. There must be at least one.
pub fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_samples() {
        for (samples, median, p99, max) in [
            (&[7.0][..], 7.0, 7.0, 7.0),
            (&[3.0, 1.0], 1.0, 3.0, 3.0),
            (&[3.0, 1.0, 2.0], 2.0, 3.0, 3.0),
            (&[4.0, 1.0, 3.0, 2.0], 2.0, 4.0, 4.0),
        ] {
            assert_eq!(quantile(samples, 0.5), median, "{samples:?}");
            assert_eq!(quantile(samples, 0.99), p99, "{samples:?}");
            assert_eq!(quantile(samples, 1.0), max, "{samples:?}");
        }
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.99), 99.0);
    }
}
