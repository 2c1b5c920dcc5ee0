//! Log-probabilities of tokens, as the model gives them: before penalties, bias and temperature.

/// What the model gave to a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprob {
    /// The token.
    pub token: u32,
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The most likely tokens with theirs, the most likely first; of equal ones the first.
    pub top: Vec<(u32, f32)>,
}

impl Logprob {
    /// That of a token and the `top` most likely ones, by the logits of all, `[vocabulary]`.
    pub(crate) fn of(logits: &[f32], token: u32, top: usize) -> Self {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - most).exp()).sum();
        let log = |logit: f32| (f64::from(logit - most) - sum.ln()) as f32;
        let mut order: Vec<u32> = (0..logits.len() as u32).collect();
        let of = |token: u32| logits[token as usize];
        let by = |a: &u32, b: &u32| of(*b).total_cmp(&of(*a)).then(a.cmp(b));
        let top = top.min(order.len());
        if (1..order.len()).contains(&top) {
            order.select_nth_unstable_by(top - 1, by);
        }
        order.truncate(top);
        order.sort_unstable_by(by);
        let own = logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        Logprob { token, logprob: log(own), top: order.into_iter().map(|token| (token, log(of(token)))).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::Logprob;

    #[test]
    fn log_probabilities_as_scipy() {
        // scipy.special.log_softmax([1.0, -2.0, 0.5, 0.5])
        let expected = [-0.816_624_37, -3.816_624_4, -1.316_624_4, -1.316_624_4];
        for (token, expected) in expected.into_iter().enumerate() {
            let got = Logprob::of(&[1.0, -2.0, 0.5, 0.5], token as u32, 3);
            assert!((got.logprob - expected).abs() < 1e-6, "{got:?}");
            assert_eq!(got.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [0, 2, 3]);
            assert!((got.top[2].1 + 1.316_624_4).abs() < 1e-6, "{got:?}");
        }
        assert_eq!(Logprob::of(&[0.0, 1.0], 0, 0).top, []);
        assert_eq!(Logprob::of(&[0.0, 1.0], 0, 9).top.len(), 2);
    }
}
