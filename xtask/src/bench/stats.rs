//! Medians, and how sure they are: 95 % intervals by the percentile bootstrap over rounds.
//!
//! Rounds are drawn as wholes: in a ratio both rows come from the same rounds, so that a slow minute of the machine
//! does not count against one of them. The generator is fixed: the same figures give the same intervals.

/// How often the rounds are drawn anew.
const DRAWS: usize = 4000;

/// A median and its interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

/// The middle value, or the mean of the two; none without values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some((sorted[middle - 1] + sorted[middle]) / 2.0),
    }
}

/// The median of the values.
pub fn estimate(values: &[f64]) -> Option<Estimate> {
    let rounds: Vec<usize> = (0..values.len()).collect();
    interval(&rounds, |drawn| median(&drawn.iter().map(|round| values[*round]).collect::<Vec<_>>()))
}

/// The ratio of two medians, from the rounds in which both have a value.
pub fn ratio(above: &[Option<f64>], below: &[Option<f64>]) -> Option<Estimate> {
    let both: Vec<(f64, f64)> = above.iter().zip(below).filter_map(|(a, b)| Some(((*a)?, (*b)?))).collect();
    let rounds: Vec<usize> = (0..both.len()).collect();
    interval(&rounds, |drawn| {
        let (a, b): (Vec<f64>, Vec<f64>) = drawn.iter().map(|round| both[*round]).unzip();
        Some(median(&a)? / median(&b)?).filter(|ratio| ratio.is_finite())
    })
}

fn interval(rounds: &[usize], of: impl Fn(&[usize]) -> Option<f64>) -> Option<Estimate> {
    let median = of(rounds)?;
    let mut chance = 0x9e37_79b9_7f4a_7c15;
    let mut drawn: Vec<f64> = (0..DRAWS)
        .filter_map(|_| {
            of(&rounds.iter().map(|_| rounds[next(&mut chance) as usize % rounds.len()]).collect::<Vec<_>>())
        })
        .collect();
    drawn.sort_by(f64::total_cmp);
    let at = |share: f64| drawn.get((share * (drawn.len().saturating_sub(1)) as f64).round() as usize).copied();
    Some(Estimate { median, low: at(0.025)?, high: at(0.975)? })
}

/// splitmix64 (public domain, Sebastiano Vigna).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_median_lies_within_its_interval_and_the_interval_within_the_values() {
        let seen = estimate(&[5.0, 1.0, 4.0, 2.0, 100.0]).unwrap();
        assert_eq!(seen.median, 4.0);
        assert!((1.0..=4.0).contains(&seen.low) && (4.0..=100.0).contains(&seen.high), "{seen:?}");
        assert_eq!(estimate(&[7.0]).unwrap(), Estimate { median: 7.0, low: 7.0, high: 7.0 });
        assert_eq!(median(&[1.0, 2.0]), Some(1.5));
        assert_eq!(estimate(&[]), None);
    }

    #[test]
    fn what_slows_both_rows_does_not_widen_their_ratio() {
        let below: Vec<_> = [100.0, 50.0, 200.0, 80.0, 120.0].map(Some).into();
        let above: Vec<_> = below.iter().map(|v| v.map(|v: f64| v * 1.5)).collect();
        assert_eq!(ratio(&above, &below).unwrap(), Estimate { median: 1.5, low: 1.5, high: 1.5 });
        assert_eq!(ratio(&above, &[None, None]), None);
        assert_eq!(ratio(&[Some(1.0)], &[Some(0.0)]), None);
    }
}
