//! A stream of tokens as training examples: windows of one length, each token's target being the next one.

use crate::{BatchTargets, Data, Error, Network};
use lowbit_model::exec::Batch;
use lowbit_model::language;
use sha2::{Digest, Sha256};

/// Windows behind [`Windows::bits`].
pub const WATCHED: usize = 32;
/// Windows of one forward pass of it.
const WATCHED_AT_ONCE: usize = 8;

/// A stream of tokens cut into windows of `context` tokens that lie end to end; the rest that fills no window is left out.
pub struct Windows {
    tokens: Vec<u32>,
    context: usize,
    fingerprint: String,
}

impl Windows {
    /// Cuts a stream of tokens; the last target needs one token more than the windows hold.
    ///
    /// # Errors
    /// Of kind usage when `context` is 0, of kind input when the stream is shorter than one window and its last target.
    pub fn new(tokens: Vec<u32>, context: usize) -> Result<Self, Error> {
        if context == 0 {
            return Err(crate::config::out_of_range("context", 0, "at least 1"));
        }
        if tokens.len() <= context {
            let text =
                format!("a text of {} tokens is too short for a window of {context} and its target", tokens.len());
            return Err(Error::data(format!("{text}: give more text, or a smaller `context`")));
        }
        let mut hash = Sha256::new();
        hash.update((context as u64).to_le_bytes());
        for part in tokens.chunks(1 << 16) {
            hash.update(part.iter().flat_map(|token| token.to_le_bytes()).collect::<Vec<u8>>());
        }
        let fingerprint = lowbit_base::hex(hash.finalize());
        Ok(Windows { tokens, context, fingerprint })
    }

    /// Tokens of a window.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The whole stream.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Mean bits that a network needs per token of at most `WATCHED` windows, spread evenly over the stream.
    pub fn bits(&self, network: &mut Network) -> f64 {
        let count = self.len().min(WATCHED);
        let rows: Vec<usize> = (0..count).map(|i| i * self.len() / count).collect();
        let (mut batch, mut targets) = (Batch::default(), BatchTargets::default());
        let (mut nats, mut tokens) = (0.0, 0);
        for rows in rows.chunks(WATCHED_AT_ONCE) {
            self.fill(rows, &mut batch, &mut targets);
            let (logits, width) = network.logits(&batch);
            let BatchTargets::Classes(targets) = &targets else { unreachable!("tokens are classes") };
            let rows = logits.chunks_exact(width).zip(targets);
            nats += rows.map(|(row, target)| language::predict(row, *target as usize).nats).sum::<f64>();
            tokens += targets.len();
        }
        nats / std::f64::consts::LN_2 / tokens as f64
    }
}

impl Data for Windows {
    fn len(&self) -> usize {
        (self.tokens.len() - 1) / self.context
    }

    fn tokens(&self) -> Option<u64> {
        Some((self.len() * self.context) as u64)
    }

    fn fill(&self, rows: &[usize], batch: &mut Batch, targets: &mut BatchTargets) {
        batch.refill([]);
        let targets = targets.classes();
        for &row in rows {
            let (start, end) = (row * self.context, (row + 1) * self.context);
            batch.push(&self.tokens[start..end]);
            targets.extend_from_slice(&self.tokens[start + 1..end + 1]);
        }
    }

    fn fingerprint(&self) -> String {
        self.fingerprint.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn windows_lie_end_to_end_and_targets_are_the_next_token() {
        let windows = Windows::new((0..11).collect(), 3).unwrap();
        assert_eq!(windows.len(), 3);
        let (mut batch, mut targets) = (Batch::default(), BatchTargets::Classes(vec![9]));
        windows.fill(&[2, 0], &mut batch, &mut targets);
        assert_eq!((&batch.tokens[..], &batch.cu_seqlens[..]), (&[6, 7, 8, 0, 1, 2][..], &[0, 3, 6][..]));
        assert_eq!(targets, BatchTargets::Classes(vec![7, 8, 9, 1, 2, 3]));
        assert_eq!(Windows::new((0..4).collect(), 3).unwrap().len(), 1);
    }

    #[test]
    fn too_short_a_stream_is_refused_and_content_shows_in_the_fingerprint() {
        let kind = |tokens: &[u32], context| Windows::new(tokens.to_vec(), context).err().map(|e| e.kind);
        assert_eq!(kind(&[1, 2, 3], 3), Some(Kind::Input));
        assert_eq!(kind(&[1, 2, 3], 0), Some(Kind::Usage));
        let print = |tokens: &[u32], context| Windows::new(tokens.to_vec(), context).unwrap().fingerprint();
        let whole = print(&[1, 2, 3], 2);
        assert_ne!(whole, print(&[1, 2, 4], 2));
        assert_ne!(whole, print(&[1, 2, 3], 1));
    }
}
