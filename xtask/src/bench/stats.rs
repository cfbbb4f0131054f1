//! The little statistics comparisons need: medians, spreads, and whether a difference is chance.

/// The value below which `share` of the sorted samples lie, interpolated; NaN for none.
pub(crate) fn quantile(samples: &[f64], share: f64) -> f64 {
    let mut sorted: Vec<f64> = samples.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else { return f64::NAN };
    let at = share * last as f64;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to last, a small whole number")]
    let (below, above) = (at.floor() as usize, at.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * at.fract()
}

/// The middle.
pub(crate) fn median(samples: &[f64]) -> f64 {
    quantile(samples, 0.5)
}

/// Distance between the quartiles.
pub(crate) fn iqr(samples: &[f64]) -> f64 {
    quantile(samples, 0.75) - quantile(samples, 0.25)
}

/// How likely pairs at least this one-sided are if neither side is better: Wilcoxon's signed-rank test, two-sided,
/// exact, over the logarithms of the ratios. 1 for fewer than one pair that differs.
pub(crate) fn signed_rank(ratios: &[f64]) -> f64 {
    let mut logs: Vec<f64> = ratios.iter().map(|ratio| ratio.ln()).filter(|l| l.is_finite() && *l != 0.0).collect();
    logs.sort_by(|a, b| a.abs().total_cmp(&b.abs()));
    let count = logs.len();
    if count == 0 {
        return 1.0;
    }
    // Ranks doubled, so that ties (mean ranks) stay whole numbers.
    let mut ranks = vec![0usize; count];
    let mut start = 0;
    while start < count {
        let end = (start..count).find(|&i| logs[i].abs() != logs[start].abs()).unwrap_or(count);
        (start..end).for_each(|i| ranks[i] = start + 1 + end);
        start = end;
    }
    let positive: usize = logs.iter().zip(&ranks).filter(|(l, _)| **l > 0.0).map(|(_, rank)| rank).sum();
    let total: usize = ranks.iter().sum();
    // ways[s]: in how many of the 2^n sign patterns the positive ranks add up to s.
    let mut ways = vec![0f64; total + 1];
    ways[0] = 1.0;
    for &rank in &ranks {
        for sum in (rank..=total).rev() {
            ways[sum] += ways[sum - rank];
        }
    }
    let extreme = positive.min(total - positive);
    let patterns: f64 = ways.iter().sum();
    (2.0 * ways[..=extreme].iter().sum::<f64>() / patterns).min(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[1.0, 2.0, 3.0, 4.0]), 2.5);
        assert_eq!(iqr(&[1.0, 2.0, 3.0, 4.0, 5.0]), 2.0);
        // Between two of four: at 0.75 and 2.25 of 0 to 3.
        assert_eq!(iqr(&[1.0, 2.0, 4.0, 8.0]), 5.0 - 1.75);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn signed_rank_agrees_with_its_tables() {
        // Five pairs, all on one side: 2 of 32 patterns are as extreme.
        assert!((signed_rank(&[1.1, 1.2, 1.3, 1.4, 1.5]) - 2.0 / 32.0).abs() < 1e-12);
        assert!((signed_rank(&[0.9, 0.8, 0.7, 0.6, 0.5]) - 2.0 / 32.0).abs() < 1e-12);
        // A smallest rank on the other side: sums 0 and 1 are as extreme.
        assert!((signed_rank(&[0.99, 1.2, 1.3, 1.4, 1.5]) - 4.0 / 32.0).abs() < 1e-12);
        // Eight pairs whose third smallest is on the other side: 0, 1, 2, 3 and 1 + 2 of 256, the tables' 3 at 5 %.
        let eight = [1.1, 1.2, 1.0 / 1.3, 1.4, 1.5, 1.6, 1.7, 1.8];
        assert!((signed_rank(&eight) - 10.0 / 256.0).abs() < 1e-12);
        // Ties share ranks: 2, 2, 2 and 4, of which one 2 is negative. Sums up to 2: none, or one of three, of 16.
        assert!((signed_rank(&[2.0, 2.0, 0.5, 4.0]) - 8.0 / 16.0).abs() < 1e-12);
        // A pair that does not differ takes no rank.
        assert!((signed_rank(&[1.0, 1.1, 1.2, 1.3, 1.4, 1.5]) - 2.0 / 32.0).abs() < 1e-12);
        assert_eq!(signed_rank(&[]), 1.0);
        assert_eq!(signed_rank(&[1.0, 1.0]), 1.0);
        assert_eq!(signed_rank(&[1.2, 1.0 / 1.2]), 1.0);
    }
}
