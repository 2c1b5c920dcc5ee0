//! Batches of a step: rows in order, checked, with tokens left out where asked.

use crate::Error;
use crate::config::TrainConfig;
use crate::data::{BatchTargets, Data, Order};
use crate::random::{hash, uniform};
use lowbit_base::SplitMix64;
use lowbit_model::exec::Batch;
use std::ops::Range;

/// Sets the seeds of token dropout apart from other seeds of the run.
const TOKENS: u64 = 2;
/// Sets the seeds of changed images apart.
const IMAGES: u64 = 3;

/// One forward pass of a step.
#[derive(Default)]
pub(crate) struct Part {
    pub(crate) batch: Batch,
    pub(crate) targets: BatchTargets,
}

/// What a network can read.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// Entries of its token table.
    pub vocabulary: usize,
    /// Numbers of a row; 0 for tokens.
    pub features: usize,
    /// Longest sequence, tokens; any if none.
    pub positions: Option<usize>,
    /// Height, width and channels of an image; none where none is read.
    pub image: Option<[usize; 3]>,
}

/// The source of batches.
pub(crate) struct Feed<'a> {
    data: &'a dyn Data,
    config: &'a TrainConfig,
    limits: Limits,
    order: Order,
    rows: Vec<usize>,
    /// The place of the first batch among those of an update.
    first: usize,
    parts: Vec<Part>,
    /// An image before it is changed.
    before: Vec<f32>,
}

impl<'a> Feed<'a> {
    /// Some of the batches of each update, for a network.
    pub(crate) fn new(
        data: &'a dyn Data,
        config: &'a TrainConfig,
        limits: Limits,
        share: Range<usize>,
    ) -> Result<Self, Error> {
        if data.is_empty() {
            return Err(Error::data("the training data are empty"));
        }
        if limits.features > 0 && config.token_dropout > 0.0 {
            return Err(Error::usage(
                "train: `token_dropout` leaves out tokens, and this network reads numbers; set it to 0",
            ));
        }
        config.augment.as_ref().map_or(Ok(()), |augment| augment.check(limits.image))?;
        let (first, parts) = (share.start, share.map(|_| Part::default()).collect());
        let order = Order::new(config.seed, data.len());
        Ok(Feed { data, config, limits, order, rows: Vec::new(), first, parts, before: Vec::new() })
    }

    /// The parts of a step that begins at a position of the order.
    pub(crate) fn step(&mut self, position: u64) -> Result<&[Part], Error> {
        for (i, part) in self.parts.iter_mut().enumerate() {
            let start = position as usize + (self.first + i) * self.config.batch_size;
            self.order.rows(start, self.config.batch_size, &mut self.rows);
            self.data.fill(&self.rows, &mut part.batch, &mut part.targets);
            check(&self.rows, part, self.limits)?;
            if matches!(part.targets, BatchTargets::Values(_)) && self.config.label_smoothing > 0.0 {
                return Err(Error::usage(
                    "train: `label_smoothing` is for classes, and these targets are values; set it to 0",
                ));
            }
            if self.config.token_dropout > 0.0 {
                drop_tokens(part, self.config.token_dropout, hash(&[self.config.seed, TOKENS, start as u64]))?;
            }
            if let (Some(augment), Some(image)) = (&self.config.augment, self.limits.image) {
                let images = part.batch.features.chunks_exact_mut(self.limits.features.max(1));
                for (i, x) in images.enumerate() {
                    let seed = hash(&[self.config.seed, IMAGES, (start + i) as u64]);
                    augment.apply(image, x, seed, &mut self.before);
                }
            }
        }
        Ok(&self.parts)
    }
}

fn check(rows: &[usize], part: &Part, limits: Limits) -> Result<(), Error> {
    let Limits { vocabulary, features, positions, .. } = limits;
    let Part { batch, targets } = part;
    let (tokens, sequences) = (batch.tokens.len(), batch.sequences());
    let types = batch.types.is_empty() || batch.types.len() == tokens;
    if sequences != rows.len()
        || batch.cu_seqlens.first() != Some(&0)
        || batch.cu_seqlens.last() != Some(&tokens)
        || !types
    {
        return Err(Error::data(format!("{} rows became a batch of {sequences} sequences", rows.len())));
    }
    if targets.len() != sequences && targets.len() != tokens {
        let text = format!("{} targets for {sequences} sequences of {tokens} tokens", targets.len());
        return Err(Error::data(format!("{text}; there must be one per sequence or one per token")));
    }
    if batch.features.len() != tokens * features {
        let found = batch.features.len() / tokens.max(1);
        return Err(Error::data(format!("rows of {found} numbers for a network that reads {features}")));
    }
    for (row, span) in rows.iter().zip(batch.cu_seqlens.windows(2)) {
        if span[0] >= span[1] {
            return Err(Error::data(format!("row {row} has no tokens; leave it out")));
        }
        if let Some(longest) = positions.filter(|longest| span[1] - span[0] > *longest) {
            let text = format!("row {row} has {} tokens, but the network has {longest} positions", span[1] - span[0]);
            return Err(Error::data(format!("{text}; lower `max_length`")));
        }
        if let Some(token) = batch.tokens[span[0]..span[1]].iter().find(|&&t| t as usize >= vocabulary) {
            return Err(Error::data(format!("row {row} holds token {token}, but the vocabulary has {vocabulary}")));
        }
    }
    Ok(())
}

/// Leaves out each token with probability `p`; a sequence keeps at least one.
fn drop_tokens(part: &mut Part, p: f32, seed: u64) -> Result<(), Error> {
    let Part { batch, targets } = part;
    if targets.len() != batch.sequences() {
        let message = "train: `token_dropout` needs one target per sequence; set it to 0 for language models";
        return Err(Error::usage(message));
    }
    let (mut random, mut kept) = (SplitMix64::new(seed), 0);
    for i in 0..batch.sequences() {
        let (start, end) = (batch.cu_seqlens[i], batch.cu_seqlens[i + 1]);
        let survivor = start + random.below((end - start) as u64) as usize;
        batch.cu_seqlens[i] = kept;
        for token in start..end {
            if uniform(&mut random) >= p || token == survivor {
                batch.tokens[kept] = batch.tokens[token];
                if !batch.types.is_empty() {
                    batch.types[kept] = batch.types[token];
                }
                kept += 1;
            }
        }
    }
    batch.tokens.truncate(kept);
    batch.types.truncate(kept);
    *batch.cu_seqlens.last_mut().expect("starts hold the end") = kept;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(vocabulary: usize, features: usize) -> Limits {
        Limits { vocabulary, features, positions: None, image: None }
    }

    #[test]
    fn dropping_tokens_keeps_order_and_one_of_each_sequence() {
        let tokens: Vec<u32> = (0..400).collect();
        let sequences = [&tokens[..1], &tokens[1..300], &tokens[300..400]];
        let mut part = Part { batch: Batch::new(sequences), targets: BatchTargets::Classes(vec![0, 1, 2]) };
        drop_tokens(&mut part, 0.3, 7).unwrap();
        let batch = &part.batch;
        assert_eq!(batch.cu_seqlens.len(), 4);
        assert_eq!(batch.tokens[0], 0);
        for (sequence, span) in sequences.iter().zip(batch.cu_seqlens.windows(2)) {
            let left = &batch.tokens[span[0]..span[1]];
            assert!(left.is_sorted() && left.iter().all(|t| sequence.contains(t)) && !left.is_empty());
        }
        assert!((250..310).contains(&batch.tokens.len()), "{}", batch.tokens.len());
        let mut part = Part { batch: Batch::new(sequences), targets: BatchTargets::Classes(vec![0; 400]) };
        assert_eq!(drop_tokens(&mut part, 0.3, 7).unwrap_err().kind, crate::Kind::Usage);
    }

    #[test]
    fn bad_batches_are_refused() {
        let batch = || Batch::new([&[1u32, 2][..], &[9][..]]);
        let part = |classes| Part { batch: batch(), targets: BatchTargets::Classes(classes) };
        assert!(check(&[4, 5], &part(vec![0, 0]), limits(10, 0)).is_ok());
        assert!(check(&[4, 5], &part(vec![0, 0, 0]), limits(10, 0)).is_ok());
        let message = |result: Result<(), Error>| result.unwrap_err().message;
        assert!(message(check(&[4, 5], &part(vec![0, 0]), limits(9, 0))).contains("row 5 holds token 9"));
        assert!(message(check(&[4, 5], &part(vec![0]), limits(10, 0))).contains("1 targets"));
        assert!(message(check(&[4], &part(vec![0]), limits(10, 0))).contains("2 sequences"));
        let two = BatchTargets::Classes(vec![0, 0]);
        let empty = Part { batch: Batch::new([&[1u32][..], &[]]), targets: two };
        assert!(message(check(&[4, 5], &empty, limits(10, 0))).contains("row 5 has no tokens"));
        let mut numbers = Part::default();
        numbers.targets.values().extend([1.0, 2.0]);
        [[1.0, 2.0], [3.0, 4.0]].into_iter().for_each(|row| numbers.batch.push_features(row));
        assert!(check(&[4, 5], &numbers, limits(usize::MAX, 2)).is_ok());
        assert!(
            message(check(&[4, 5], &numbers, limits(usize::MAX, 3)))
                .contains("rows of 2 numbers for a network that reads 3")
        );
    }
}
