//! What is served: a language model, its names, and how its engine is made.

use crate::worker::MakeEngine;
use lowbit_base::Error;
use lowbit_kernels::Cpu;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::chat::{self, ChatModel, PromptFormat};
use lowbit_model::engine::{Engine, Passes, Settings};
use lowbit_model::generate::Sampling;
use lowbit_model::{Checkpoint, Sequences, Tokenizer};
use std::collections::BTreeMap;
use std::sync::Arc;

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
    /// How tokens are drawn where a request says nothing else; its seed counts for nothing.
    pub sampling: Sampling,
}

impl Default for EngineOptions {
    /// 8 answers at a time, 64 tokens of prompts beside them, 16-bit keys and values, draws of [`Sampling::chat`].
    fn default() -> Self {
        EngineOptions { context: None, parallel: 8, cache: CacheKind::default(), chunk: 64, sampling: Sampling::chat() }
    }
}

/// A language model that is ready to be served.
pub struct Served {
    pub(crate) names: Vec<String>,
    pub(crate) chat: ChatModel,
    /// The same model for prompts without turns.
    pub(crate) text: ChatModel,
    pub(crate) context: usize,
    pub(crate) options: EngineOptions,
    /// Names of the control tokens.
    pub(crate) controls: BTreeMap<u32, String>,
    pub(crate) make: MakeEngine,
    notices: Vec<String>,
}

impl Served {
    /// Loads a model under a name.
    ///
    /// # Errors
    /// When it is malformed, no language model, its context is shorter than the one asked for, or memory does not suffice for as
    /// many answers at a time.
    pub fn load(checkpoint: &Checkpoint, cpu: Cpu, name: &str, options: &EngineOptions) -> Result<Self, Error> {
        let context = chat::context(checkpoint, options.context)?;
        let parallel = options.parallel.max(1);
        let need = checkpoint.need(
            "take fewer answers at a time, a smaller context, int8 keys and values, or a recipe with fewer bits",
        )?;
        checkpoint.parameters().with_sequences(need, options.cache, context.saturating_mul(parallel)).check()?;
        let chat = ChatModel::load(checkpoint, PromptFormat::Chat)?;
        let text = chat.taking(checkpoint, PromptFormat::Text)?;
        let (network, tokenizer) = (chat.network().clone(), chat.tokenizer().clone());
        let controls = tokenizer.controls().into_iter().map(|(name, id)| (id, name.to_owned())).collect();
        let notices = [checkpoint.notices(), tokenizer.notices()].concat();
        let (cache, chunk) = (options.cache, options.chunk);
        let make = move || {
            let sequences = Sequences::new(network.clone(), cpu.clone(), context, cache);
            let settings = Settings { sequences: parallel, keep: parallel, chunk, passes: Passes::Exact };
            Engine::new(sequences, tokenizer.clone(), settings)
        };
        Ok(Served {
            names: vec![name.into()],
            chat,
            text,
            context,
            options: EngineOptions { parallel, ..options.clone() },
            controls,
            make: Arc::new(make),
            notices,
        })
    }

    /// The same under more names, which requests may call it by.
    pub fn also_as(mut self, names: impl IntoIterator<Item = String>) -> Self {
        self.names.extend(names);
        self
    }

    /// Tokens of prompt and answer together.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Lines about what was ignored in the model's files.
    pub fn notices(&self) -> &[String] {
        &self.notices
    }

    /// Whether turns of a chat reach the model as such.
    pub fn has_template(&self) -> bool {
        self.chat.has_template()
    }

    pub(crate) fn tokenizer(&self) -> &Arc<Tokenizer> {
        self.chat.tokenizer()
    }

    /// Tokens of the vocabulary.
    pub(crate) fn vocabulary(&self) -> usize {
        self.tokenizer().vocab_size()
    }
}
