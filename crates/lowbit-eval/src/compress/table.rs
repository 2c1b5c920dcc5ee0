//! Probabilities of the next byte as integers, which encoder and decoder have alike.

use constriction::stream::model::{DecoderModel, EncoderModel, EntropyModel};
use std::borrow::Borrow;
use std::num::NonZeroU32;

/// Values of a byte.
pub(crate) const BYTES: usize = 256;
/// Bits of a probability.
pub(crate) const PRECISION: usize = 24;
/// What probabilities sum to.
const TOTAL: u32 = 1 << PRECISION;
/// What is shared out by the network: each byte has one more, so that none is impossible.
const SHARED: f32 = (TOTAL - BYTES as u32) as f32;

/// What a byte takes of the whole, in units of `2^-24`: the sum of the probabilities of lower bytes, and its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Interval {
    below: u32,
    count: NonZeroU32,
}

impl Default for Interval {
    /// One unit of the whole, as no byte takes it.
    fn default() -> Self {
        Interval { below: 0, count: NonZeroU32::MIN }
    }
}

impl Interval {
    /// Minus the binary logarithm of the probability.
    pub(crate) fn bits(&self) -> f64 {
        PRECISION as f64 - f64::from(self.count.get()).log2()
    }
}

impl EntropyModel<PRECISION> for Interval {
    type Symbol = ();
    type Probability = u32;
}

impl EncoderModel<PRECISION> for Interval {
    fn left_cumulative_and_probability(&self, _: impl Borrow<()>) -> Option<(u32, NonZeroU32)> {
        Some((self.below, self.count))
    }
}

/// How likely each byte is, in units of `2^-24`: at least one each, and 2^24 in all.
#[derive(Clone)]
pub(crate) struct Table {
    /// Sums of the probabilities of lower bytes, and of all.
    below: [u32; BYTES + 1],
}

impl Table {
    /// Of shares `[256]` that sum to about 1: `1 + floor(share * (2^24 - 256))`, the most likely byte takes what is left over or was
    /// too much. One rounded product each, so that equal bits give equal integers on every machine.
    pub(crate) fn of(shares: &[f32]) -> Self {
        let mut counts = [0u32; BYTES];
        for (count, share) in counts.iter_mut().zip(shares) {
            *count = 1 + (share * SHARED) as u32;
        }
        let top = (0..BYTES).rev().max_by_key(|byte| counts[*byte]).expect("bytes");
        let sum: u32 = counts.iter().sum();
        counts[top] = counts[top].wrapping_add(TOTAL).wrapping_sub(sum);
        let mut below = [0; BYTES + 1];
        for (byte, count) in counts.iter().enumerate() {
            below[byte + 1] = below[byte] + count;
        }
        Table { below }
    }

    /// What a byte takes.
    pub(crate) fn interval(&self, byte: u8) -> Interval {
        Interval { below: self.below[usize::from(byte)], count: self.count(byte.into()) }
    }

    fn count(&self, byte: usize) -> NonZeroU32 {
        NonZeroU32::new(self.below[byte + 1] - self.below[byte]).expect("no byte is impossible")
    }
}

impl Default for Table {
    /// Every byte is as likely.
    fn default() -> Self {
        Table::of(&[1.0 / BYTES as f32; BYTES])
    }
}

impl EntropyModel<PRECISION> for Table {
    type Symbol = u8;
    type Probability = u32;
}

impl EncoderModel<PRECISION> for Table {
    fn left_cumulative_and_probability(&self, symbol: impl Borrow<u8>) -> Option<(u32, NonZeroU32)> {
        let byte = usize::from(*symbol.borrow());
        Some((self.below[byte], self.count(byte)))
    }
}

impl DecoderModel<PRECISION> for Table {
    fn quantile_function(&self, quantile: u32) -> (u8, u32, NonZeroU32) {
        let byte = self.below.partition_point(|below| *below <= quantile).clamp(1, BYTES) - 1;
        (byte as u8, self.below[byte], self.count(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_possible_and_all_sum_to_one() {
        let mut peak = [0.0; BYTES];
        peak[77] = 1.0;
        let mut over = [1.00001 / 256.0; BYTES];
        over[3] = 0.5;
        let under = [1e-9; BYTES];
        for shares in [peak, over, under, [1.0 / 256.0; BYTES]] {
            // What is too much is taken from the most likely byte.
            let whole: f32 = shares.iter().sum();
            let shares = shares.map(|share| if whole > 1.1 { share / whole * 1.000_001 } else { share });
            let table = Table::of(&shares);
            assert_eq!(table.below[BYTES], TOTAL);
            for byte in 0..=255u8 {
                let (below, count) = table.left_cumulative_and_probability(byte).unwrap();
                for quantile in [below, below + count.get() - 1] {
                    assert_eq!(table.quantile_function(quantile), (byte, below, count));
                }
                let exact = f64::from(shares[usize::from(byte)]) * f64::from(TOTAL);
                let found = f64::from(count.get());
                assert!((found - exact).abs() <= 1.0 + exact * 2e-5 || shares[usize::from(byte)] < 1e-8 || found > 1e5);
            }
        }
    }
}
