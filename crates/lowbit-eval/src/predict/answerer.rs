//! What answers rows: a network with an answer per row, or a language model that writes.

use super::generate::{Generation, Generator, Written};
use super::output::Writer;
use super::{ROWS, Summary};
use crate::Error;
use crate::read::Source;
use crate::read::images::ImageSize;
use lowbit_kernels::Cpu;
use lowbit_model::arch::OutputKind;
use lowbit_model::{Checkpoint, Encoder, Inputs, Predictor};
use serde_json::Value;

/// A model that answers rows.
pub enum Answerer {
    /// One with classes, a value or a vector.
    Network(Box<Predictor>),
    /// One that continues texts.
    Generator(Box<Generator>),
}

/// Answers to the rows of a batch.
pub(super) enum Answers {
    /// Of each row so many numbers: logits or a vector.
    Numbers(Vec<f32>, usize),
    /// A value of each row.
    Values(Vec<f64>),
    /// A text of each row.
    Texts(Vec<Written>),
}

/// What is particular about a row.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Remarks {
    /// It has no text or numbers.
    pub empty: bool,
    /// Its text is longer than what the model sees.
    pub truncated: bool,
}

impl Answerer {
    /// Of a checkpoint; a language model writes as `generation` says.
    ///
    /// # Errors
    /// When it is malformed, memory does not suffice, or `generation` asks a model that writes nothing.
    pub fn of(checkpoint: &Checkpoint, cpu: Cpu, generation: &Generation) -> Result<Self, Error> {
        match checkpoint.model_config().config.output() {
            OutputKind::Tokens => Ok(Answerer::Generator(Box::new(Generator::load(checkpoint, cpu, generation)?))),
            other if *generation != Generation::default() => {
                let (path, noun) = (checkpoint.path().display(), other.noun());
                Err(Error::usage(format!("{path} is {noun}, which writes nothing: leave out the flags of generations")))
            }
            _ => Ok(Answerer::Network(Box::new(Predictor::of(checkpoint, cpu)?))),
        }
    }

    /// What it answers with.
    pub fn output(&self) -> OutputKind {
        match self {
            Answerer::Network(predictor) => predictor.output(),
            Answerer::Generator(_) => OutputKind::Tokens,
        }
    }

    /// Names of its classes.
    pub fn labels(&self) -> &[String] {
        match self {
            Answerer::Network(predictor) => predictor.labels(),
            Answerer::Generator(_) => &[],
        }
    }

    /// Tokens that it sees of a text.
    pub fn longest(&self, checkpoint: &Checkpoint) -> usize {
        match self {
            Answerer::Network(_) => checkpoint.model_config().max_length,
            Answerer::Generator(generator) => generator.context(),
        }
    }

    /// Numbers that it reads of a row; none where it reads a text.
    pub(super) fn numbers(&self) -> Option<usize> {
        match self {
            Answerer::Network(predictor) => match predictor.encoder() {
                Encoder::Features(scaling) => Some(scaling.width()),
                Encoder::Text { .. } => None,
            },
            Answerer::Generator(_) => None,
        }
    }

    /// What the images of a source are scaled to: what the network reads.
    pub(super) fn image(&self, source: &Source) -> Result<ImageSize, Error> {
        let refused = |text: &str| Error::usage(format!("{}: holds images, and {text}", source.name().display()));
        let image = match self {
            Answerer::Network(predictor) => predictor.image(),
            Answerer::Generator(_) => None,
        };
        let [height, width, colours] = image.ok_or_else(|| refused("the model reads no images"))?;
        let size = ImageSize { height, width, colours };
        size.fault().map_or(Ok(size), |fault| Err(refused(&format!("of the model's {fault}"))))
    }

    /// Rows of a batch at most.
    pub(super) fn rows(&self) -> usize {
        match self {
            Answerer::Network(_) => ROWS,
            Answerer::Generator(generator) => generator.rows(),
        }
    }

    /// The answers to rows of these numbers in their table, and how many tokens of each a network saw.
    ///
    /// # Errors
    /// When a row cannot be answered.
    pub(super) fn answers(&mut self, inputs: &Inputs, rows: &[u64]) -> Result<(Answers, Vec<usize>), Error> {
        let predictor = match self {
            Answerer::Generator(generator) => {
                return Ok((Answers::Texts(generator.answers(inputs.texts(), rows)?), vec![0; rows.len()]));
            }
            Answerer::Network(predictor) => predictor,
        };
        let kind = predictor.output();
        let (outputs, seen) = match kind {
            OutputKind::Embedding { .. } => predictor.embeddings_and_tokens(inputs)?,
            _ => predictor.outputs_and_tokens(inputs, 0..rows.len())?,
        };
        let width = outputs.len() / rows.len();
        if let Some(bad) = outputs.iter().position(|v| !v.is_finite()) {
            return Err(Error::numeric(format!("row {}: the outputs are not finite", rows[bad / width])));
        }
        let answers = match kind {
            OutputKind::Value => Answers::Values(predictor.values(&outputs)),
            _ => Answers::Numbers(outputs, width),
        };
        Ok((answers, seen))
    }

    /// What is particular about a row, of which a network saw so many tokens.
    ///
    /// # Errors
    /// When its text cannot be encoded.
    pub(super) fn remarks(&self, inputs: &Inputs, at: usize, seen: usize) -> Result<Remarks, Error> {
        let empty = match inputs {
            Inputs::Texts(texts) | Inputs::Pairs { texts, .. } => texts[at].trim().is_empty(),
            features => features.features(at).iter().all(|v| v.is_nan()),
        };
        let truncated = match self {
            Answerer::Network(predictor) => match predictor.encoder() {
                Encoder::Text { max_length, .. } if seen < *max_length => false,
                encoder => encoder.truncates(inputs, at)?,
            },
            Answerer::Generator(_) => false,
        };
        Ok(Remarks { empty, truncated })
    }
}

impl Answers {
    /// Writes the answer to a row of these values, and counts it.
    pub(super) fn write(
        &self,
        at: usize,
        values: &[Value],
        remarks: Remarks,
        writer: &mut Writer,
        counts: &mut Summary,
    ) {
        let mut remarks = remarks;
        match self {
            Answers::Values(predicted) => writer.value(values, predicted[at], remarks),
            Answers::Texts(texts) => {
                let written = &texts[at];
                remarks.truncated = written.is_too_long;
                counts.tokens += written.tokens;
                counts.cut += u64::from(written.finish == "length");
                writer.text(values, written, remarks);
            }
            Answers::Numbers(numbers, width) => {
                let answer = &numbers[at * width..][..*width];
                match writer.is_vector() {
                    true => writer.vector(values, answer, remarks),
                    false => counts.classes[writer.row(values, answer, remarks)] += 1,
                }
            }
        }
        counts.rows += 1;
        counts.empty += u64::from(remarks.empty);
        counts.truncated += u64::from(remarks.truncated);
    }
}
