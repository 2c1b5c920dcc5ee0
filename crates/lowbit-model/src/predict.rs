//! Answering rows with a model directory: classes by their logits, or values.

use crate::arch::OutputKind;
use crate::exec::Batch;
use crate::input::Scaling;
use crate::{Checkpoint, CpuExec, Error, Inputs, Model, ModelConfig, PairTokens, Param, Tokenizer, text};
use lowbit_base::memory::Footprint;
use lowbit_kernels::{Cpu, Pool};
use std::sync::{Arc, OnceLock};

/// Tokens of one forward pass, about: bounds the memory for activations.
const BATCH_TOKENS: usize = 4096;
/// Rows of text that all threads encode together.
const ENCODED: usize = 256;
/// Bytes of the activations of a pass over images, about.
const BATCH_BYTES: u64 = 64 << 20;

/// How a row becomes what a network reads.
#[derive(Clone)]
pub enum Encoder {
    /// Tokens of a text.
    Text {
        /// The tokenizer.
        tokenizer: Tokenizer,
        /// Longest sequence, tokens.
        max_length: usize,
    },
    /// Numbers, scaled.
    Features(Scaling),
}

impl Encoder {
    /// That of a checkpoint.
    ///
    /// # Errors
    /// When the tokenizer is missing or wrong.
    pub fn of(checkpoint: &Checkpoint) -> Result<Self, Error> {
        let model_config = checkpoint.model_config();
        Ok(match &model_config.input_scaling {
            Some(scaling) => Encoder::Features(scaling.clone()),
            None => Encoder::Text { tokenizer: checkpoint.tokenizer()?, max_length: model_config.max_length },
        })
    }

    /// The tokenizer, where texts are read.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        match self {
            Encoder::Text { tokenizer, .. } => Some(tokenizer),
            Encoder::Features(_) => None,
        }
    }

    /// Whether a row of text has more tokens than the network sees.
    ///
    /// # Errors
    /// When the tokenizer cannot encode the text.
    pub fn truncates(&self, inputs: &Inputs, row: usize) -> Result<bool, Error> {
        let (Encoder::Text { tokenizer, max_length }, Some(text)) = (self, inputs.texts().get(row)) else {
            return Ok(false);
        };
        let most = max_length.saturating_add(1);
        let pair = inputs.pair(row).map(|pair| tokenizer.encode_pair(pair, most)).transpose()?.flatten();
        Ok(match pair {
            Some(pair) => pair.ids.len() > *max_length,
            None => tokenizer.encode(text, most)?.len() > *max_length,
        })
    }

    /// Adds a row to a batch.
    ///
    /// # Errors
    /// When the row is of another kind or width, or the tokenizer cannot encode it; names its index.
    pub fn push(&self, inputs: &Inputs, row: usize, batch: &mut Batch) -> Result<(), Error> {
        match (self, inputs) {
            (Encoder::Text { .. }, Inputs::Texts(_) | Inputs::Pairs { .. }) => {
                add(&self.tokens(inputs, row)?, batch);
                Ok(())
            }
            (Encoder::Features(scaling), Inputs::Features { width, .. }) if *width == scaling.width() => {
                batch.push_features(scaling.scaled(inputs.features(row)));
                Ok(())
            }
            (Encoder::Features(scaling), Inputs::Features { width, .. }) => {
                let reads = scaling.width();
                Err(Error::usage(format!(
                    "rows of {width} numbers, and the model reads {reads}: use the data it was trained on"
                )))
            }
            (Encoder::Text { .. }, Inputs::Features { .. } | Inputs::Bytes(_)) => {
                Err(Error::usage("rows of numbers, and the model reads texts"))
            }
            (Encoder::Features(_), _) => Err(Error::usage("texts, and the model reads rows of numbers")),
        }
    }

    /// The tokens of a row of text, without segments where it is no pair.
    fn tokens(&self, inputs: &Inputs, row: usize) -> Result<PairTokens, Error> {
        let Encoder::Text { tokenizer, max_length } = self else { return Ok(PairTokens::default()) };
        let named = |e: Error| Error { message: format!("text {row}: {}", e.message), ..e };
        let pair = inputs.pair(row).map(|pair| tokenizer.encode_pair(pair, *max_length));
        match pair.transpose().map_err(named)?.flatten() {
            Some(pair) => Ok(pair),
            None => {
                let ids = text::tokens(tokenizer, &inputs.texts()[row], *max_length).map_err(named)?;
                Ok(PairTokens { ids, types: Vec::new() })
            }
        }
    }

    /// The tokens of rows of text, by all threads; nothing where numbers are read.
    fn tokens_of(&self, inputs: &Inputs, rows: &[usize], pool: &Pool) -> Vec<Result<PairTokens, Error>> {
        let (Encoder::Text { .. }, Inputs::Texts(_) | Inputs::Pairs { .. }) = (self, inputs) else { return Vec::new() };
        let found: Vec<OnceLock<_>> = rows.iter().map(|_| OnceLock::new()).collect();
        pool.run(rows.len(), &|at| drop(found[at].set(self.tokens(inputs, rows[at]))));
        found.into_iter().filter_map(OnceLock::into_inner).collect()
    }
}

/// Adds the tokens of a row to a batch.
fn add(row: &PairTokens, batch: &mut Batch) {
    match row.types.is_empty() {
        true => batch.push(&row.ids),
        false => batch.push_types(&row.ids, &row.types),
    }
}

/// A network that answers rows: encoder, parameters, and the interpreter that runs it.
pub struct Predictor {
    model: Arc<Model<Param>>,
    encoder: Encoder,
    exec: CpuExec,
    output: OutputKind,
    image: Option<[usize; 3]>,
    labels: Vec<String>,
    target: Option<Scaling>,
    /// Tokens, or images, of one forward pass.
    at_once: usize,
}

impl Predictor {
    /// The predictor of a checkpoint.
    ///
    /// # Errors
    /// When the model is a language model or its data are corrupt, or the tokenizer has more entries than the model.
    pub fn of(checkpoint: &Checkpoint, cpu: Cpu) -> Result<Self, Error> {
        refuse_language_model(checkpoint)?;
        Self::new(checkpoint, Arc::new(checkpoint.model()?), cpu)
    }

    /// A predictor of a network already made from a checkpoint.
    ///
    /// # Errors
    /// When the model is a language model, or its tokenizer is missing or wrong.
    pub fn new(checkpoint: &Checkpoint, model: Arc<Model<Param>>, cpu: Cpu) -> Result<Self, Error> {
        refuse_language_model(checkpoint)?;
        let ModelConfig { config, labels, target_scaling, .. } = checkpoint.model_config();
        let numbered = || (0..config.classes().unwrap_or(0)).map(|class| class.to_string()).collect();
        let labels = if labels.is_empty() { numbered() } else { labels.clone() };
        Ok(Predictor {
            model,
            encoder: Encoder::of(checkpoint)?,
            exec: CpuExec::new(cpu),
            output: config.output(),
            image: config.image(),
            labels,
            target: target_scaling.clone(),
            at_once: at_once(checkpoint),
        })
    }

    /// Memory that answering takes beside the weights: the activations of a pass.
    pub fn with_pass(need: Footprint, checkpoint: &Checkpoint) -> Footprint {
        let tokens = at_once(checkpoint) + checkpoint.model_config().max_length.min(BATCH_TOKENS);
        need.and("activations", checkpoint.parameters().pass_bytes(tokens, tokens))
    }

    /// The same with buffers of its own, of which nothing is used yet.
    pub fn fresh(&self) -> Self {
        Predictor {
            model: self.model.clone(),
            encoder: self.encoder.clone(),
            exec: CpuExec::new(self.exec.cpu().clone()),
            output: self.output,
            labels: self.labels.clone(),
            target: self.target.clone(),
            at_once: self.at_once,
            image: self.image,
        }
    }

    /// What the network answers with.
    pub fn output(&self) -> OutputKind {
        self.output
    }

    /// Height, width and colours of the images that the network reads; none where it reads no images.
    pub fn image(&self) -> Option<[usize; 3]> {
        self.image
    }

    /// Names of the classes, in the order of the logits, their numbers where the model has none; none where it answers with a value.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// How rows are encoded.
    pub fn encoder(&self) -> &Encoder {
        &self.encoder
    }

    /// The vector of each row, `[rows, width]`, of length 1 where the model says so. Rows of like length share passes.
    ///
    /// # Errors
    /// As [`Encoder::push`], and when the model answers with something else.
    pub fn embeddings(&mut self, inputs: &Inputs) -> Result<Vec<f32>, Error> {
        self.embeddings_and_tokens(inputs).map(|(vectors, _)| vectors)
    }

    /// The same, and how many tokens of each row the network saw, `[rows]`.
    ///
    /// # Errors
    /// As [`Predictor::embeddings`].
    pub fn embeddings_and_tokens(&mut self, inputs: &Inputs) -> Result<(Vec<f32>, Vec<usize>), Error> {
        let OutputKind::Embedding { width, normalize } = self.output else {
            let text = format!("the model is {}; vectors are given by an embedding model", self.output.noun());
            return Err(Error::usage(text));
        };
        let mut order: Vec<usize> = (0..inputs.len()).collect();
        order.sort_by_key(|row| inputs.texts().get(*row).map_or(0, String::len));
        let (vectors, seen) = self.outputs_and_tokens(inputs, order.iter().copied())?;
        let (mut out, mut tokens) = (vec![0.0; vectors.len()], vec![0; seen.len()]);
        for ((vector, seen), row) in vectors.chunks_exact(width).zip(seen).zip(order) {
            let out = &mut out[row * width..][..width];
            out.copy_from_slice(vector);
            if normalize {
                to_unit(out);
            }
            tokens[row] = seen;
        }
        Ok((out, tokens))
    }

    /// What the network answers to rows: logits `[rows, classes]`, scaled values `[rows, 1]`, or vectors `[rows, width]` as
    /// they are.
    ///
    /// # Errors
    /// As [`Encoder::push`].
    pub fn outputs(&mut self, inputs: &Inputs, rows: impl IntoIterator<Item = usize>) -> Result<Vec<f32>, Error> {
        self.outputs_and_tokens(inputs, rows).map(|(outputs, _)| outputs)
    }

    /// The same, and how many tokens of each row the network saw, `[rows]`: 0 where it reads numbers.
    ///
    /// # Errors
    /// As [`Encoder::push`].
    pub fn outputs_and_tokens(
        &mut self,
        inputs: &Inputs,
        rows: impl IntoIterator<Item = usize>,
    ) -> Result<(Vec<f32>, Vec<usize>), Error> {
        let rows: Vec<usize> = rows.into_iter().collect();
        let (mut outputs, mut seen, mut batch) = (Vec::new(), Vec::with_capacity(rows.len()), Batch::default());
        for some in rows.chunks(ENCODED) {
            let mut encoded = self.encoder.tokens_of(inputs, some, &self.exec.cpu().pool).into_iter();
            for row in some {
                match encoded.next().transpose()? {
                    Some(tokens) => {
                        add(&tokens, &mut batch);
                        seen.push(tokens.ids.len());
                    }
                    None => {
                        self.encoder.push(inputs, *row, &mut batch)?;
                        seen.push(0);
                    }
                }
                if batch.tokens.len() >= self.at_once {
                    self.exec.forward(&self.model, &batch)?.append_to(&mut outputs);
                    batch.refill([]);
                }
            }
        }
        if batch.sequences() > 0 {
            self.exec.forward(&self.model, &batch)?.append_to(&mut outputs);
        }
        Ok((outputs, seen))
    }

    /// The values that scaled ones of [`Predictor::outputs`] stand for, in units of the data.
    pub fn values(&self, outputs: &[f32]) -> Vec<f64> {
        let restored =
            |value: &f32| self.target.as_ref().map_or(f64::from(*value), |target| target.restored(0, *value));
        outputs.iter().map(restored).collect()
    }

    /// Outputs of a batch that is encoded already.
    ///
    /// # Errors
    /// When a sequence is empty or a token is outside the vocabulary.
    pub fn outputs_of_batch(&mut self, batch: &Batch) -> Result<Vec<f32>, Error> {
        Ok(self.exec.forward(&self.model, batch)?.to_vec())
    }
}

/// Tokens of one forward pass; fewer where each is an image.
fn at_once(checkpoint: &Checkpoint) -> usize {
    match checkpoint.model_config().config.image() {
        Some(_) => BATCH_TOKENS.min((BATCH_BYTES / checkpoint.parameters().pass_bytes(1, 1).max(1)) as usize).max(1),
        None => BATCH_TOKENS,
    }
}

fn refuse_language_model(checkpoint: &Checkpoint) -> Result<(), Error> {
    match checkpoint.model_config().config.output() {
        OutputKind::Classes(_) | OutputKind::Value | OutputKind::Embedding { .. } => Ok(()),
        OutputKind::Tokens => {
            let text = format!("{}: a language model; it has no classes", checkpoint.directory().display());
            Err(Error::usage(text))
        }
    }
}

/// Gives a vector the length 1, as sentence-transformers does: one of zeros stays one.
pub fn to_unit(vector: &mut [f32]) {
    let length = vector.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    let factor = 1.0 / length.max(1e-12);
    vector.iter_mut().for_each(|v| *v = (f64::from(*v) * factor) as f32);
}

/// The most likely class by its logits, `[classes]`; of equal ones the first.
pub fn best(logits: &[f32]) -> usize {
    (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a))).unwrap_or(0)
}

/// Probabilities of finite logits, `[classes]`.
pub fn softmax(logits: &[f32]) -> Vec<f64> {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let powers: Vec<f64> = logits.iter().map(|v| (f64::from(*v) - f64::from(most)).exp()).collect();
    let sum: f64 = powers.iter().sum();
    powers.iter().map(|v| v / sum).collect()
}

#[cfg(test)]
mod tests {
    use super::softmax;

    #[test]
    fn probabilities_as_scipy() {
        // scipy.special.softmax([1.0, -2.0, 0.5, 0.25])
        let got = softmax(&[1.0, -2.0, 0.5, 0.25]);
        let expected = [0.469_773_75, 0.023_388_66, 0.284_932_18, 0.221_905_41];
        assert!(got.iter().zip(expected).all(|(a, b): (&f64, f64)| (a - b).abs() < 1e-7), "{got:?}");
        assert_eq!(softmax(&[1000.0, -1000.0]), [1.0, 0.0]);
    }
}
