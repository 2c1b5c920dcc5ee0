//! What a language model writes for each row.

use crate::commands::model;
use crate::failure::Failure;
use lowbit_eval::predict::Generation;
use lowbit_kernels::ops::CacheKind;
use lowbit_model::generate::{Draft, Sampling};
use std::path::PathBuf;

/// How tokens are drawn when nothing else is asked for.
const CHAT: Sampling = Sampling::chat();

/// Flags of generations.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Generations of language models")]
pub struct GenerationFlags {
    /// Tokens of an answer at most [default: until the model ends it or the context is full].
    #[arg(short = 'n', long, visible_alias = "n-predict", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// Randomness of the answers; 0 takes the most likely tokens.
    #[arg(long, visible_alias = "temp", default_value_t = 0.0)]
    temperature: f32,
    /// Draw from this many tokens; 0 from all.
    #[arg(long, default_value_t = CHAT.top_k)]
    top_k: usize,
    /// Draw from the fewest tokens that have this much probability together.
    #[arg(long, default_value_t = CHAT.top_p)]
    top_p: f32,
    /// Draw from tokens that have at least this share of the best one's probability.
    #[arg(long, default_value_t = CHAT.min_p)]
    min_p: f32,
    /// Divide the logits of tokens that occurred by this.
    #[arg(long, visible_alias = "repetition-penalty", default_value_t = CHAT.repetition_penalty)]
    repeat_penalty: f32,
    /// Seed of the draws; each row has this plus its number, so that neither shards nor an interruption change an answer.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// End an answer before this text; may be repeated.
    #[arg(long)]
    stop: Vec<String>,
    /// Instruct the model before each prompt.
    #[arg(long, visible_alias = "system-prompt")]
    system: Option<String>,
    /// Instruct the model with the content of a file.
    #[arg(long, visible_alias = "system-prompt-file", conflicts_with = "system", value_name = "FILE")]
    system_file: Option<PathBuf>,
    /// Continue the texts as they are, without the model's chat template.
    #[arg(long)]
    no_chat: bool,
    /// Answers at a time, which share each pass over the weights.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    parallel: u16,
    /// Tokens of prompt and answer together; 0 for all that the model was trained for [default: these, at most 4096].
    #[arg(short, long, visible_alias = "ctx-size")]
    context: Option<usize>,
    /// How keys and values are stored.
    #[arg(long, default_value = "f16", value_parser = CacheKind::ALL.map(|(name, _)| name))]
    #[arg(aliases = ["cache-type", "cache-type-k", "cache-type-v"], action = clap::ArgAction::Append)]
    kv: Vec<String>,
    /// Guess tokens ahead: `ngram` looks them up in what was said. Greedy answers stay the same.
    #[arg(long, value_parser = ["ngram"])]
    draft: Option<String>,
}

impl GenerationFlags {
    /// What they ask for.
    ///
    /// # Errors
    /// When a value is out of its range, or the file of the instructions cannot be read.
    pub fn get(&self) -> Result<Generation, Failure> {
        let system = match (&self.system, &self.system_file) {
            (Some(text), _) => Some(text.clone()),
            (None, Some(file)) => Some(crate::run::prompt::read(file)?),
            (None, None) => None,
        };
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repeat_penalty,
            seed: self.seed,
            ..CHAT
        };
        sampling.check().map_err(|error| Failure::usage(format!("--{}", error.message.replace('_', "-"))))?;
        Ok(Generation {
            max_tokens: self.max_tokens.map(|n| n as usize),
            sampling,
            system,
            stop: self.stop.clone(),
            chats: !self.no_chat,
            parallel: self.parallel.into(),
            context: self.context,
            cache: model::cache("--kv", &self.kv)?,
            draft: self.draft.as_ref().map(|_| Draft::Ngram),
        })
    }
}
