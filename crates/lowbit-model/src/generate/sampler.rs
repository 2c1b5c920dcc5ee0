//! Choosing a token from logits.

use crate::Error;
use lowbit_base::SplitMix64;
use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};

/// How a token is chosen. Applied in this order: repetition penalty, presence and frequency penalty, bias, `top_k`, `top_p`, `min_p`,
/// `temperature`; then one token is drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the most likely token, the first of equals.
    pub temperature: f32,
    /// Only so many of the most likely tokens; 0 for all.
    pub top_k: usize,
    /// Only the fewest most likely tokens that have this probability together (arXiv 1904.09751); 1 for all.
    pub top_p: f32,
    /// Only tokens with at least this share of the most likely one's probability (arXiv 2407.01082); 0 for all.
    pub min_p: f32,
    /// Positive logits of tokens in the text so far are divided by it, negative ones multiplied (arXiv 1909.05858); 1 for none.
    pub repetition_penalty: f32,
    /// How many of the last tokens the penalty looks at; `usize::MAX` for all, 0 for none.
    pub repetition_window: usize,
    /// Subtracted from the logits of tokens that the answer holds; 0 for none.
    pub presence_penalty: f32,
    /// Subtracted from the logit of a token for each time the answer holds it; 0 for none.
    pub frequency_penalty: f32,
    /// Added to the logits of tokens, each named once.
    pub bias: Vec<(u32, f32)>,
    /// Seed of the draws: the same request with the same seed has the same answer.
    pub seed: u64,
}

impl Default for Sampling {
    /// Greedy.
    fn default() -> Self {
        Sampling {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
            repetition_window: usize::MAX,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            bias: Vec::new(),
            seed: 0,
        }
    }
}

impl Sampling {
    /// What chats draw by where nothing else is asked for, as llama.cpp does; seed 0.
    pub const fn chat() -> Self {
        Sampling {
            temperature: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repetition_penalty: 1.0,
            repetition_window: 64,
            presence_penalty: 0.0,
            frequency_penalty: 0.0,
            bias: Vec::new(),
            seed: 0,
        }
    }

    /// Whether any token is penalized.
    fn penalizes(&self) -> bool {
        self.repetition_penalty != 1.0 && self.repetition_window > 0
    }

    /// Whether tokens of the answer are counted.
    fn counts(&self) -> bool {
        self.presence_penalty != 0.0 || self.frequency_penalty != 0.0
    }

    /// Refuses values without a meaning.
    ///
    /// # Errors
    /// Names the value.
    pub fn check(&self) -> Result<(), Error> {
        let (presence, frequency) = (self.presence_penalty, self.frequency_penalty);
        let bias = self.bias.iter().map(|(_, bias)| *bias).find(|bias| !bias.is_finite()).unwrap_or(0.0);
        let rules = [
            ("temperature", self.temperature, self.temperature >= 0.0, "0 or more"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "in 0..=1 and not 0"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "in 0..=1"),
            ("repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0.0, "more than 0"),
            ("presence_penalty", presence, true, "a number"),
            ("frequency_penalty", frequency, true, "a number"),
            ("a bias", bias, true, "a number"),
        ];
        match rules.into_iter().find(|(_, value, good, _)| !good || !value.is_finite()) {
            Some((name, value, _, range)) => Err(Error::usage(format!("{name} is {value}; it must be {range}"))),
            None => Ok(()),
        }
    }
}

/// Draws tokens under one [`Sampling`]; keeps its buffers.
pub(crate) struct Sampler {
    sampling: Sampling,
    random: SplitMix64,
    /// Tokens under the penalty, the last at the back; each once where all of the text counts.
    seen: VecDeque<u32>,
    is_seen: Vec<bool>,
    /// How often the answer holds a token, where that is asked for.
    counts: BTreeMap<u32, u32>,
    logits: Vec<f32>,
    /// Logit, then weight, and token.
    candidates: Vec<(f32, u32)>,
}

impl Sampler {
    pub fn new(sampling: Sampling) -> Self {
        let random = SplitMix64::new(sampling.seed);
        let (seen, is_seen, counts) = (VecDeque::new(), Vec::new(), BTreeMap::new());
        Sampler { sampling, random, seen, is_seen, counts, logits: Vec::new(), candidates: Vec::new() }
    }

    /// How many of the largest logits decide, if not all.
    pub fn largest(&self) -> Option<usize> {
        let Sampling { temperature, top_k, .. } = self.sampling;
        let plain = !self.sampling.penalizes() && !self.sampling.counts() && self.sampling.bias.is_empty();
        match (plain, temperature == 0.0) {
            (false, _) => None,
            (true, true) => Some(1),
            (true, false) => Some(top_k).filter(|k| *k > 0),
        }
    }

    /// Notes tokens of the text.
    pub fn observe(&mut self, tokens: &[u32]) {
        let window = self.sampling.repetition_window;
        if !self.sampling.penalizes() {
            return;
        }
        if window < usize::MAX {
            let tokens = &tokens[tokens.len().saturating_sub(window)..];
            self.seen.extend(tokens);
            self.seen.drain(..self.seen.len().saturating_sub(window));
            return;
        }
        for &token in tokens {
            let at = token as usize;
            if self.is_seen.len() <= at {
                self.is_seen.resize(at + 1, false);
            }
            if !std::mem::replace(&mut self.is_seen[at], true) {
                self.seen.push_back(token);
            }
        }
    }

    /// Notes a token of the answer.
    pub fn count(&mut self, token: u32) {
        if self.sampling.counts() {
            *self.counts.entry(token).or_default() += 1;
        }
    }

    /// The next token, given the logits of all, `[vocabulary]`.
    ///
    /// # Errors
    /// When a logit is NaN, or all are minus infinity.
    pub fn pick(&mut self, logits: &[f32]) -> Result<u32, Error> {
        let mut penalized = std::mem::take(&mut self.logits);
        let changes = !self.seen.is_empty() || !self.counts.is_empty() || !self.sampling.bias.is_empty();
        let logits = if changes { self.penalize(logits, &mut penalized) } else { logits };
        let picked = self.choose(logits);
        self.logits = penalized;
        picked
    }

    fn penalize<'a>(&self, logits: &[f32], out: &'a mut Vec<f32>) -> &'a [f32] {
        out.clear();
        out.extend_from_slice(logits);
        let penalty = self.sampling.repetition_penalty;
        for &token in &self.seen {
            if let Some(&logit) = logits.get(token as usize) {
                out[token as usize] = if logit > 0.0 { logit / penalty } else { logit * penalty };
            }
        }
        let Sampling { presence_penalty, frequency_penalty, bias, .. } = &self.sampling;
        let counted =
            self.counts.iter().map(|(token, n)| (*token, -(presence_penalty + frequency_penalty * *n as f32)));
        for (token, change) in counted.chain(bias.iter().copied()) {
            if let Some(logit) = out.get_mut(token as usize) {
                *logit += change;
            }
        }
        out
    }

    fn choose(&mut self, logits: &[f32]) -> Result<u32, Error> {
        let best = best(logits)?;
        if self.sampling.temperature == 0.0 {
            return Ok(best);
        }
        let Sampling { temperature, top_k, top_p, min_p, .. } = self.sampling;
        let top = logits[best as usize];
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend(logits.iter().copied().zip(0..));
        let order = |a: &(f32, u32), b: &(f32, u32)| -> Ordering { b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)) };
        if (1..candidates.len()).contains(&top_k) {
            candidates.select_nth_unstable_by(top_k - 1, order);
            candidates.truncate(top_k);
        }
        let weight = |logit: f32| f64::from(logit - top).exp();
        let mass = f64::from(top_p) * candidates.iter().map(|(logit, _)| weight(*logit)).sum::<f64>();
        candidates.retain(|(logit, _)| weight(*logit) >= f64::from(min_p));
        candidates.sort_unstable_by(order);
        if top_p < 1.0 {
            let mut sum = 0.0;
            let before = |(logit, _): &&(f32, u32)| {
                let below = sum < mass;
                sum += weight(*logit);
                below
            };
            let kept = candidates.iter().take_while(before).count();
            candidates.truncate(kept.max(1));
        }
        for (logit, _) in candidates.iter_mut() {
            *logit = (f64::from(*logit - top) / f64::from(temperature)).exp() as f32;
        }
        let total: f64 = candidates.iter().map(|(weight, _)| f64::from(*weight)).sum();
        let mut left = self.random.unit() * total;
        for (weight, token) in candidates.iter() {
            left -= f64::from(*weight);
            if left < 0.0 {
                return Ok(*token);
            }
        }
        Ok(best)
    }
}

/// The largest logit, the first of equals.
fn best(logits: &[f32]) -> Result<u32, Error> {
    let (mut best, mut top) = (None, f32::NEG_INFINITY);
    let mut finite = true;
    for (i, &logit) in logits.iter().enumerate() {
        finite &= !logit.is_nan() && logit != f32::INFINITY;
        if logit > top {
            (best, top) = (Some(i as u32), logit);
        }
    }
    best.filter(|_| finite).ok_or_else(|| {
        Error::numeric("the model's logits are not finite; its weights are damaged or do not suit the recipe")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Probabilities 1/2, 1/4, 1/8, 1/16, 1/16 of tokens 3, 1, 0, 4, 2.
    const LOGITS: [f32; 5] = [-2.079_441_5, -1.386_294_4, -2.772_588_7, -std::f32::consts::LN_2, -2.772_588_7];

    fn counts(sampling: Sampling, draws: usize) -> [usize; 5] {
        let mut sampler = Sampler::new(Sampling { temperature: 1.0, seed: 11, ..sampling });
        let mut counts = [0; 5];
        for _ in 0..draws {
            counts[sampler.pick(&LOGITS).expect("finite") as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_the_best() {
        let pick = |logits: &[f32]| Sampler::new(Sampling::default()).pick(logits).expect("finite");
        assert_eq!(pick(&LOGITS), 3);
        assert_eq!(pick(&[0.0, 7.0, -1.0, 7.0]), 1);
        assert_eq!(pick(&[f32::NEG_INFINITY, -1e30]), 1);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let n = 100_000;
        for (count, p) in counts(Sampling::default(), n).iter().zip([0.125, 0.25, 0.0625, 0.5, 0.0625]) {
            let limit = 5.0 * (n as f64 * p * (1.0 - p)).sqrt();
            assert!((*count as f64 - n as f64 * p).abs() < limit, "{count} of {n}, expected {p}");
        }
        let mut cold = Sampler::new(Sampling { temperature: 0.5, seed: 2, ..Sampling::default() });
        let hits = (0..n).filter(|_| cold.pick(&LOGITS).expect("finite") == 3).count() as f64 / n as f64;
        // Squares of the probabilities: 1/4 of 1/4 + 1/16 + 1/64 + 2/256.
        assert!((hits - 0.25 / 0.335_937_5).abs() < 0.01, "{hits}");
    }

    #[test]
    fn filters_keep_the_likely_tokens() {
        let kept = |sampling| counts(sampling, 5000).map(|n| n > 0);
        let base = Sampling::default();
        assert_eq!(kept(base.clone()), [true; 5]);
        assert_eq!(kept(Sampling { top_k: 2, ..base.clone() }), [false, true, false, true, false]);
        assert_eq!(kept(Sampling { top_k: 4, ..base.clone() }), [true, true, true, true, false], "the first of equals");
        assert_eq!(kept(Sampling { top_p: 0.5, ..base.clone() }), [false, false, false, true, false]);
        assert_eq!(kept(Sampling { top_p: 0.51, ..base.clone() }), [false, true, false, true, false]);
        assert_eq!(kept(Sampling { top_p: 1e-6, ..base.clone() }), [false, false, false, true, false]);
        assert_eq!(kept(Sampling { min_p: 0.2, ..base.clone() }), [true, true, false, true, false]);
        assert_eq!(kept(Sampling { min_p: 1.0, ..base.clone() }), [false, false, false, true, false]);
        // Of two tokens the best has 2/3.
        assert_eq!(kept(Sampling { top_k: 2, top_p: 0.6, ..base }), [false, false, false, true, false]);
    }

    #[test]
    fn the_seed_decides() {
        let draw = |seed| {
            let mut sampler = Sampler::new(Sampling { temperature: 1.0, seed, ..Sampling::default() });
            (0..40).map(|_| sampler.pick(&LOGITS).expect("finite")).collect::<Vec<_>>()
        };
        assert_eq!(draw(1), draw(1));
        assert_ne!(draw(1), draw(2));
    }

    #[test]
    fn what_decides_is_known() {
        let wanted = |temperature, top_k, repetition_penalty| {
            Sampler::new(Sampling { temperature, top_k, repetition_penalty, ..Sampling::default() }).largest()
        };
        assert_eq!([wanted(0.0, 0, 1.0), wanted(0.0, 9, 1.0), wanted(0.5, 9, 1.0)], [Some(1), Some(1), Some(9)]);
        assert_eq!([wanted(0.5, 0, 1.0), wanted(0.0, 0, 1.1), wanted(0.5, 9, 1.1)], [None; 3]);
    }

    #[test]
    fn what_occurred_is_less_likely() {
        let mut sampler = Sampler::new(Sampling { repetition_penalty: 2.0, ..Sampling::default() });
        assert_eq!(sampler.pick(&[3.0, 2.0, -1.0]).expect("finite"), 0);
        sampler.observe(&[0, 0]);
        assert_eq!(sampler.pick(&[3.0, 2.0, -1.0]).expect("finite"), 1);
        sampler.observe(&[1, 99]);
        assert_eq!(sampler.pick(&[-1.0, -1.1, -1.9]).expect("finite"), 2);
    }

    #[test]
    fn only_what_occurred_lately_is_less_likely() {
        let base = Sampling { repetition_penalty: 2.0, ..Sampling::default() };
        let mut sampler = Sampler::new(Sampling { repetition_window: 2, ..base.clone() });
        sampler.observe(&[0, 1, 1]);
        assert_eq!(sampler.pick(&[3.0, 3.5, 2.0]).expect("finite"), 0, "a token that occurred twice is penalized once");
        sampler.observe(&[0]);
        assert_eq!(sampler.pick(&[3.0, 3.5, 2.0]).expect("finite"), 2);
        sampler.observe(&[2, 2]);
        assert_eq!(sampler.pick(&[3.0, 3.5, 2.0]).expect("finite"), 1);
        let mut none = Sampler::new(Sampling { repetition_window: 0, ..base });
        none.observe(&[0, 0]);
        assert_eq!((none.pick(&[3.0, 2.0]).expect("finite"), none.largest()), (0, Some(1)));
    }

    #[test]
    fn counts_and_bias_change_logits() {
        let base = Sampling::default();
        let mut presence = Sampler::new(Sampling { presence_penalty: 1.5, ..base.clone() });
        assert_eq!((presence.largest(), presence.pick(&[3.0, 2.0, 1.0]).expect("finite")), (None, 0));
        [0, 0, 0].into_iter().for_each(|token| presence.count(token));
        assert_eq!(presence.pick(&[3.0, 2.0, 1.0]).expect("finite"), 1);
        assert_eq!(presence.pick(&[4.0, 2.0, 1.0]).expect("finite"), 0, "once, however often it occurred");
        let mut frequency = Sampler::new(Sampling { frequency_penalty: 0.75, ..base.clone() });
        [0, 0, 1].into_iter().for_each(|token| frequency.count(token));
        assert_eq!(frequency.pick(&[3.5, 2.5, 1.0]).expect("finite"), 0);
        frequency.count(0);
        assert_eq!(frequency.pick(&[3.5, 2.5, 1.0]).expect("finite"), 1);
        let bias = Sampling { bias: vec![(2, 3.0), (0, -100.0), (9, 50.0)], ..base };
        assert_eq!((Sampler::new(bias.clone()).largest(), Sampler::new(bias).pick(&[3.0, 2.0, 1.0])), (None, Ok(2)));
    }

    #[test]
    fn nonsense_is_refused() {
        for logits in [&[0.0, f32::NAN][..], &[f32::NEG_INFINITY], &[f32::INFINITY, 0.0], &[]] {
            let error = Sampler::new(Sampling::default()).pick(logits).expect_err("refused");
            assert!(error.to_string().contains("not finite"), "{error}");
        }
        let base = Sampling::default();
        for (sampling, word) in [
            (Sampling { temperature: -1.0, ..base.clone() }, "temperature is -1"),
            (Sampling { temperature: f32::NAN, ..base.clone() }, "temperature is NaN"),
            (Sampling { top_p: 0.0, ..base.clone() }, "top_p is 0"),
            (Sampling { min_p: 1.5, ..base.clone() }, "min_p is 1.5"),
            (Sampling { repetition_penalty: 0.0, ..base.clone() }, "repetition_penalty is 0"),
            (Sampling { repetition_penalty: f32::INFINITY, ..base.clone() }, "repetition_penalty is inf"),
            (Sampling { presence_penalty: f32::NAN, ..base.clone() }, "presence_penalty is NaN"),
            (Sampling { frequency_penalty: f32::INFINITY, ..base.clone() }, "frequency_penalty is inf"),
            (Sampling { bias: vec![(1, 0.0), (2, f32::NAN)], ..base }, "a bias is NaN"),
        ] {
            let error = sampling.check().expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
