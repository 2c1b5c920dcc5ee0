//! What is served: a model, its names, and how it is put to work.

use crate::refusal::Refusal;
use crate::worker::MakeEngine;
use lowbit_base::Error;
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::arch::OutputKind;
use lowbit_model::chat::{self, ChatModel, PromptFormat};
use lowbit_model::engine::{Engine, Passes, Settings};
use lowbit_model::generate::{Draft, Sampling};
use lowbit_model::{Checkpoint, Encoder, Predictor, Sequences, Tokenizer};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// How requests share a model.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOptions {
    /// Tokens of prompt and answer together; 0 for all that the model was trained for; by default these, at most 4096.
    pub context: Option<usize>,
    /// Answers at a time; others wait.
    pub parallel: usize,
    /// How keys and values are stored.
    pub cache: CacheKind,
    /// Tokens of prompts that are processed in a step in which answers go on.
    pub chunk: usize,
    /// Bytes of keys and values that are kept of ended answers, for prompts that begin alike.
    pub prefix_bytes: usize,
    /// Whether tokens are guessed ahead, and how.
    pub draft: Option<Draft>,
    /// How tokens are drawn where a request says nothing else; its seed counts for nothing.
    pub sampling: Sampling,
}

impl Default for EngineOptions {
    /// 8 answers at a time, 64 tokens of prompts beside them, 16-bit keys and values of which 256 MiB are kept, no guesses, draws
    /// of [`Sampling::chat`].
    fn default() -> Self {
        EngineOptions {
            context: None,
            parallel: 8,
            cache: CacheKind::default(),
            chunk: 64,
            prefix_bytes: 256 << 20,
            draft: None,
            sampling: Sampling::chat(),
        }
    }
}

/// A model that is ready to be served.
pub struct Served {
    pub(crate) names: Vec<String>,
    pub(crate) network: Network,
    pub(crate) tokenizer: Arc<Tokenizer>,
    /// Tokens of prompt and answer together, or of a text.
    pub(crate) context: usize,
    /// Requests that are worked on at a time.
    pub(crate) parallel: usize,
    /// Names of the control tokens.
    pub(crate) controls: BTreeMap<u32, String>,
    notices: Vec<String>,
}

/// What kind of network it is.
pub(crate) enum Network {
    /// One that writes.
    Language(Box<Language>),
    /// One that answers each text with classes, a value or a vector.
    Rows(Box<Rows>),
}

/// A language model.
pub(crate) struct Language {
    pub chat: ChatModel,
    /// The same model for prompts without turns.
    pub text: ChatModel,
    /// How tokens are drawn where a request says nothing else.
    pub sampling: Sampling,
    /// How tokens are guessed ahead.
    pub draft: Option<Draft>,
    pub make: MakeEngine,
}

/// A network that answers each text.
pub(crate) struct Rows {
    pub output: OutputKind,
    pub labels: Vec<String>,
    /// The predictor's way from scaled values to those of the data: factor and summand.
    pub scale: [f64; 2],
    /// The predictor, until a thread takes it.
    pub predictor: Mutex<Option<Predictor>>,
}

impl Rows {
    /// The value that a scaled one stands for, in units of the data.
    pub fn restored(&self, value: f32) -> f64 {
        f64::from(value) * self.scale[0] + self.scale[1]
    }
}

impl Served {
    /// Loads a model under a name.
    ///
    /// # Errors
    /// When it is malformed or reads no text, its context is shorter than the one asked for, or memory does not suffice for as
    /// many answers at a time.
    pub fn load(checkpoint: &Checkpoint, cpu: Cpu, name: &str, options: &EngineOptions) -> Result<Self, Error> {
        match checkpoint.model_config().config.output() {
            OutputKind::Tokens => Self::language(checkpoint, cpu, name, options),
            _ => Self::rows(checkpoint, cpu, name),
        }
    }

    fn language(checkpoint: &Checkpoint, cpu: Cpu, name: &str, options: &EngineOptions) -> Result<Self, Error> {
        let context = chat::context(checkpoint, options.context)?;
        let parallel = options.parallel.max(1);
        let remedy =
            "take fewer answers at a time, a smaller context, int8 keys and values, or a recipe with fewer bits";
        let need = checkpoint.need(remedy)?;
        let need = checkpoint.parameters().with_sequences(need, options.cache, context.saturating_mul(parallel));
        need.and("keys and values of begun prompts", options.prefix_bytes as u64).check()?;
        let chat = ChatModel::load(checkpoint, PromptFormat::Chat)?;
        let text = chat.taking(checkpoint, PromptFormat::Text)?;
        let (network, tokenizer) = (chat.network().clone(), chat.tokenizer().clone());
        let (cache, chunk, keep_bytes, encoder) =
            (options.cache, options.chunk, options.prefix_bytes, tokenizer.clone());
        let make = Arc::new(move || {
            let sequences = Sequences::new(network.clone(), cpu.clone(), context, cache);
            let (keep, passes) = (usize::MAX / 2, Passes::Exact);
            let settings = Settings { sequences: parallel, keep, keep_bytes, chunk, passes };
            Engine::new(sequences, encoder.clone(), settings)
        });
        if options.draft.is_some() && !make().is_exact()? {
            let text = "guesses would change the answers of this model: its formats round products of several tokens differently";
            return Err(Error::usage(format!("{text}; use an integer recipe, or no draft")));
        }
        let language = Language { chat, text, sampling: options.sampling.clone(), draft: options.draft, make };
        Ok(Self::of(checkpoint, name, Network::Language(Box::new(language)), tokenizer, (context, parallel)))
    }

    fn rows(checkpoint: &Checkpoint, cpu: Cpu, name: &str) -> Result<Self, Error> {
        Predictor::with_pass(checkpoint.need("take a recipe with fewer bits")?, checkpoint).check()?;
        let predictor = Predictor::of(checkpoint, cpu)?;
        let Encoder::Text { tokenizer, max_length } = predictor.encoder() else {
            let text = "reads rows of numbers; a server takes texts: use `lowbit predict`";
            return Err(Error::input(checkpoint.path(), text));
        };
        let (tokenizer, max_length) = (Arc::new(tokenizer.clone()), *max_length);
        let (output, labels) = (predictor.output(), predictor.labels().to_vec());
        let [zero, one] = [0.0, 1.0].map(|value| predictor.values(&[value])[0]);
        let rows = Rows { output, labels, scale: [one - zero, zero], predictor: Mutex::new(Some(predictor)) };
        Ok(Self::of(checkpoint, name, Network::Rows(Box::new(rows)), tokenizer, (max_length, 1)))
    }

    fn of(
        checkpoint: &Checkpoint,
        name: &str,
        network: Network,
        tokenizer: Arc<Tokenizer>,
        (context, parallel): (usize, usize),
    ) -> Self {
        let controls = tokenizer.controls().into_iter().map(|(name, id)| (id, name.to_owned())).collect();
        let notices = [checkpoint.notices(), tokenizer.notices()].concat();
        Served { names: vec![name.into()], network, tokenizer, context, parallel, controls, notices }
    }

    /// The same under more names, which requests may call it by.
    pub fn also_as(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.names.extend(names);
        self
    }

    /// Tokens of prompt and answer together, or of a text.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Lines about what was ignored in the model's files.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Whether it writes; else it answers texts with classes, values or vectors.
    pub fn is_language_model(&self) -> bool {
        matches!(self.network, Network::Language(_))
    }

    /// Whether turns of a chat reach the model as such.
    pub fn has_template(&self) -> bool {
        matches!(&self.network, Network::Language(language) if language.chat.has_template())
    }

    /// The language model.
    ///
    /// # Errors
    /// When it is another one.
    pub(crate) fn writer(&self) -> Result<&Language, Refusal> {
        match &self.network {
            Network::Language(language) => Ok(language),
            Network::Rows(rows) => Err(unfit(rows.output, "writes nothing")),
        }
    }

    /// Tokens of the vocabulary.
    pub(crate) fn vocabulary(&self) -> usize {
        self.tokenizer.vocab_size()
    }
}

/// The refusal of a request that a model cannot answer.
pub(crate) fn unfit(output: OutputKind, what: &str) -> Refusal {
    Refusal::field("model", format!("the model is {}; it {what}", output.noun()))
}
