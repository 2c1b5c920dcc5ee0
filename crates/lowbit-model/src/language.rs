//! Scoring a language model on a text: what it gave to each token that came.

use crate::exec::Batch;
use crate::parameter_list::ParameterList;
use crate::{CpuExec, Error, Model, Param};
use lowbit_base::memory::Footprint;
use lowbit_kernels::Cpu;
use std::sync::Arc;

/// Tokens of one forward pass, about: bounds the memory for activations.
const BATCH_TOKENS: usize = 4096;
/// Logits of one forward pass, about.
const BATCH_LOGITS: usize = 1 << 24;

/// What a model gave to a token before it saw it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Prediction {
    /// Minus the natural logarithm of its probability.
    pub nats: f64,
    /// Whether it was the most probable token.
    pub top: bool,
}

/// Takes the logits before a token, those of a model beside, and the token.
pub type EachToken<'a> = dyn FnMut(&[f32], Option<&[f32]>, u32) + 'a;

/// Scores tokens in windows that overlap: a window moves on by `stride` tokens, and each token is scored once, in the
/// first window that holds it. So every token beyond the first window has at least `context - stride` tokens before it.
pub struct Scorer {
    model: Arc<Model<Param>>,
    exec: CpuExec,
    context: usize,
    stride: usize,
}

impl Scorer {
    /// A scorer of windows of `context` tokens.
    ///
    /// # Errors
    /// Of kind usage when `stride` is not in `1..=context`.
    pub fn new(model: Arc<Model<Param>>, cpu: Cpu, context: usize, stride: usize) -> Result<Self, Error> {
        if !(1..=context).contains(&stride) {
            return Err(Error::usage(format!("stride {stride} must lie in 1..={context}, the tokens of a window")));
        }
        Ok(Scorer { model, exec: CpuExec::new(cpu), context, stride })
    }

    /// Memory that scoring takes beside the weights: logits of a pass, and their copy, of windows of `context` tokens.
    pub fn with_pass(need: Footprint, parameters: &ParameterList, context: usize) -> Footprint {
        let classes = parameters.pass_bytes(0, 1) / 4;
        let at_once = BATCH_TOKENS.min(BATCH_LOGITS / (classes as usize).max(1)).max(context);
        need.and("activations", parameters.pass_bytes(at_once, at_once.saturating_mul(2)))
    }

    /// One prediction for each token but the first.
    ///
    /// # Errors
    /// As [`Scorer::score_all`].
    pub fn score(&mut self, tokens: &[u32]) -> Result<Vec<Prediction>, Error> {
        self.score_all(&[tokens])
    }

    /// One prediction for each token of each text but its first, in order; texts know nothing of one another.
    ///
    /// # Errors
    /// When a text has fewer than two tokens, one is outside the vocabulary, or the model is not a language model.
    pub fn score_all(&mut self, texts: &[&[u32]]) -> Result<Vec<Prediction>, Error> {
        let mut out = Vec::with_capacity(texts.iter().map(|tokens| tokens.len().saturating_sub(1)).sum());
        self.each(texts, None, &mut |row, _, token| out.push(predict(row, token as usize)))?;
        Ok(out)
    }

    /// Calls `each` with the logits before every token but the first of each text, `[vocabulary]`, those of another model that
    /// reads the same windows, and the token; in order. No more than the logits of one pass of each are kept.
    ///
    /// # Errors
    /// As [`Scorer::score_all`], and when the models have vocabularies of different sizes.
    pub fn each(
        &mut self,
        texts: &[&[u32]],
        mut beside: Option<&mut Scorer>,
        each: &mut EachToken,
    ) -> Result<(), Error> {
        if texts.iter().any(|tokens| tokens.len() < 2) {
            return Err(Error::usage("the text is too short: there is no token to predict"));
        }
        let of_text = |tokens: &&'_ [u32]| windows(tokens.len() - 1, self.context, self.stride);
        let all = texts.iter().flat_map(|tokens| of_text(tokens).into_iter().map(move |window| (*tokens, window)));
        let mut all = all.peekable();
        let (mut batch, mut scored, mut room) = (Batch::default(), Vec::new(), 0);
        while let Some((tokens, (start, first, end))) = all.next() {
            batch.push(&tokens[start..end]);
            scored.push((tokens, first - start, first, end));
            let next = all.peek().map(|(_, (start, _, end))| end - start);
            if next.is_some_and(|next| batch.tokens.len() + next <= room) {
                continue;
            }
            let logits = self.exec.forward(&self.model, &batch)?;
            let width = logits.width();
            if logits.rows() != batch.tokens.len() {
                return Err(Error::usage("this model is a classifier; it does not predict the next token"));
            }
            let logits = logits.to_vec();
            let theirs =
                beside.as_mut().map(|other| other.exec.forward(&other.model, &batch).map(|rows| rows.to_vec()));
            let theirs = theirs.transpose()?;
            if let Some(theirs) = theirs.as_ref().filter(|theirs| theirs.len() != logits.len()) {
                let (own, other) = (width, theirs.len() / batch.tokens.len());
                return Err(Error::usage(format!("{own} logits a token beside {other}: the vocabularies differ")));
            }
            for (span, (tokens, skip, first, end)) in batch.cu_seqlens.windows(2).zip(scored.drain(..)) {
                let scored = (span[0] + skip) * width..span[1] * width;
                let mut beside = theirs.as_ref().map(|rows| rows[scored.clone()].chunks_exact(width));
                for (row, token) in logits[scored].chunks_exact(width).zip(&tokens[first + 1..=end]) {
                    each(row, beside.as_mut().and_then(Iterator::next), *token);
                }
            }
            room = BATCH_TOKENS.min(BATCH_LOGITS / width);
            batch.refill([]);
        }
        Ok(())
    }
}

/// Windows over inputs `0..len`: begin, first input whose prediction counts, and end.
fn windows(len: usize, context: usize, stride: usize) -> Vec<(usize, usize, usize)> {
    let mut windows = vec![(0, 0, context.min(len))];
    while let Some(&(_, _, done)) = windows.last().filter(|w| w.2 < len) {
        let end = (done + stride).min(len);
        windows.push((end - context, done, end));
    }
    windows
}

/// Of a row of logits and the token that came; a token outside the row has no probability.
pub fn predict(logits: &[f32], token: usize) -> Prediction {
    let Some(&own) = logits.get(token) else { return Prediction { nats: f64::INFINITY, top: false } };
    let top = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|l| f64::from(l - top).exp()).sum();
    let first = logits.iter().position(|l| *l == top);
    Prediction { nats: sum.ln() - f64::from(own - top), top: first == Some(token) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_input_counts_once_and_windows_are_full() {
        for (context, stride) in [(8, 8), (8, 4), (8, 1), (5, 3)] {
            for len in 1..40 {
                let windows = windows(len, context, stride);
                let counted: Vec<usize> = windows.iter().flat_map(|w| w.1..w.2).collect();
                assert_eq!(counted, (0..len).collect::<Vec<_>>(), "{context} {stride} {len}");
                assert!(windows.iter().all(|w| w.2 - w.0 == context.min(len)));
                assert!(windows[1..].iter().all(|w| w.1 - w.0 >= context - stride));
            }
        }
    }

    #[test]
    fn a_prediction_is_the_softmax() {
        let p = predict(&[0.0, 3f32.ln(), f32::NEG_INFINITY], 1);
        assert!((p.nats - (4f64 / 3.0).ln()).abs() < 1e-6 && p.top);
        let p = predict(&[1.0, 1.0], 1);
        assert!((p.nats - 2f64.ln()).abs() < 1e-12 && !p.top);
        assert!(predict(&[f32::NAN, 1.0], 1).nats.is_nan());
        assert_eq!(predict(&[0.0], 5).nats, f64::INFINITY);
    }
}
