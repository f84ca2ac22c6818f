//! Exact shares.

/// Sets `quotas` to the shares of `rows` by weight: each gets its exact share rounded down, and what is left goes, one
/// row each, to the largest remainders (the method of Hare and Hamilton); among equal ones to those that come first.
/// The sum is `rows`. At least one weight is not 0, or `rows` is 0.
pub(super) fn apportion(rows: u32, weights: impl ExactSizeIterator<Item = u64> + Clone, quotas: &mut Vec<u32>) {
    quotas.clear();
    let sum: u128 = weights.clone().map(u128::from).sum();
    if sum == 0 {
        quotas.resize(weights.len(), 0);
        return;
    }
    let share = |weight: u64| u128::from(rows) * u128::from(weight);
    quotas.extend(weights.clone().map(|weight| (share(weight) / sum) as u32));
    let left = rows - quotas.iter().sum::<u32>();
    if left == 0 {
        return;
    }
    let mut remainders: Vec<(u128, usize)> =
        weights.enumerate().map(|(index, weight)| (sum - share(weight) % sum, index)).collect();
    remainders.sort_unstable();
    for (_, index) in &remainders[..left as usize] {
        quotas[*index] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quotas(rows: u32, weights: &[u64]) -> Vec<u32> {
        let mut quotas = Vec::new();
        apportion(rows, weights.iter().copied(), &mut quotas);
        quotas
    }

    #[test]
    fn equal_weights_leave_the_rest_to_the_first() {
        assert_eq!(quotas(1024, &[1; 10]), [103, 103, 103, 103, 102, 102, 102, 102, 102, 102]);
    }

    #[test]
    fn the_largest_remainder_gets_the_row_that_is_left() {
        // Exact: 292.57, 438.86, 292.57.
        assert_eq!(quotas(1024, &[2, 3, 2]), [293, 439, 292]);
    }

    #[test]
    fn weight_zero_gets_nothing_and_no_overflow_at_the_largest() {
        assert_eq!(quotas(1024, &[0, 5, 0]), [0, 1024, 0]);
        assert_eq!(quotas(65_536, &[u64::MAX, u64::MAX]), [32_768, 32_768]);
        assert_eq!(quotas(0, &[]), Vec::<u32>::new());
    }
}
