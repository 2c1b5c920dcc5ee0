//! Random numbers from counters: every value depends only on a seed and an index, never on what was drawn before.

use lowbit_base::{SplitMix64, mix};

/// A seed for one purpose out of several numbers.
pub(crate) fn hash(parts: &[u64]) -> u64 {
    parts
        .iter()
        .fold(0, |h, &p| mix(h.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ mix(p.wrapping_add(0xd1b5_4a32_d192_ed03))))
}

/// Uniform in `0..1`.
pub(crate) fn uniform(random: &mut SplitMix64) -> f32 {
    (random.bits() >> 40) as f32 / (1u64 << 24) as f32
}

/// Standard normal, as the sum of twelve uniform numbers (Irwin-Hall): exact arithmetic, the same on every machine.
pub(crate) fn normal(random: &mut SplitMix64) -> f32 {
    let mut sum = 0;
    for _ in 0..3 {
        let x = random.bits();
        sum += (x & 0xffff) + (x >> 16 & 0xffff) + (x >> 32 & 0xffff) + (x >> 48);
    }
    (sum as f32 + 6.0) / 65_536.0 - 6.0
}

/// A permutation of `0..n` (Fisher-Yates).
pub(crate) fn permutation(n: usize, seed: u64) -> Vec<usize> {
    let mut random = SplitMix64::new(seed);
    let mut order: Vec<usize> = (0..n).collect();
    for i in (1..n).rev() {
        order.swap(i, random.below(i as u64 + 1) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_has_mean_zero_and_variance_one() {
        let mut random = SplitMix64::new(7);
        let draws: Vec<f64> = (0..100_000).map(|_| normal(&mut random) as f64).collect();
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let variance = draws.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / draws.len() as f64;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02, "mean {mean}, variance {variance}");
    }

    #[test]
    fn a_permutation_holds_each_index_once() {
        let order = permutation(100, 3);
        assert_ne!(order, (0..100).collect::<Vec<_>>());
        assert_ne!(order, permutation(100, 4));
        let mut sorted = order;
        sorted.sort();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
    }
}
