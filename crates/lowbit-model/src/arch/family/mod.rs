//! Families of published networks: one file each, with what the Hub and llama.cpp call it. A family reads foreign keys into
//! the configuration of an architecture; [`FAMILIES`] lists them.

use super::decoder::gguf::{Arch, Fields};
use crate::container::show;
use crate::{Config, Error};
use lowbit_base::alternatives;

mod bitnet;
pub(crate) mod keys;
pub(crate) mod known;
mod llama;
mod mistral;
mod qwen2;
mod qwen3;
pub(crate) mod rope;

use keys::Keys;

/// What others call a family of networks, and how its keys are read.
pub struct Family {
    /// `model_type` in the Hub's `config.json`.
    pub model_type: &'static str,
    /// Whether its networks are trained ternary where `config.json` does not tell.
    pub(crate) ternary: bool,
    /// Ids of the token that begins a text and of the one that ends it, where no file tells: the defaults of the family's
    /// configuration in transformers 5.24.
    pub(crate) ids: [Option<u32>; 2],
    /// Reads a `config.json`.
    pub(crate) hub: fn(&Published) -> Result<Network, Error>,
    /// Its architectures in llama.cpp and its forks.
    pub(crate) gguf: &'static [Arch],
}

/// Every family.
pub static FAMILIES: &[&Family] = &[&bitnet::FAMILY, &llama::FAMILY, &mistral::FAMILY, &qwen2::FAMILY, &qwen3::FAMILY];

/// What tells a network of the Hub.
pub(crate) struct Published<'a> {
    /// Keys of `config.json`.
    pub keys: Keys<'a>,
    /// Whether the name of some stored tensor ends so.
    pub stores: &'a dyn Fn(&str) -> bool,
    /// Whether the table of tokens and the output matrix are both stored, and hold the same values.
    pub same_head: &'a dyn Fn() -> Result<bool, Error>,
}

/// The configuration of a published network.
pub(crate) struct Network {
    /// The architecture and its dimensions.
    pub config: Config,
    /// Longest sequence, tokens.
    pub context: usize,
}

/// Ends of the names of the table of tokens and of the output matrix.
pub(crate) const TABLE: &str = "embed_tokens.weight";
pub(crate) const HEAD: &str = "lm_head.weight";

impl Published<'_> {
    /// Whether the table of tokens serves as output matrix: the key says so, and no other matrix is stored.
    ///
    /// # Errors
    /// When neither a matrix is stored nor the key is set; the message tells what may be missing.
    pub fn is_tied(&self) -> Result<bool, Error> {
        let key = "tie_word_embeddings";
        let (said, stored) = (self.keys.get::<bool>(key)?, (self.stores)(HEAD));
        match (said.unwrap_or(false), stored) {
            (true, false) => Ok(true),
            (false, true) => Ok(false),
            (true, true) if !(self.stores)(TABLE) || (self.same_head)()? => Ok(true),
            (true, true) => {
                let text = format!("`{key}` is true, but another output matrix `{HEAD}` is stored: it is used");
                self.keys.notice(text);
                Ok(false)
            }
            (false, false) if (self.stores)("score.weight") => {
                let text = "`score.weight` is stored in place of an output matrix: the network is a classifier of transformers";
                Err(Error::config("architectures", format!("{text}, of which only language models are read")))
            }
            (false, false) => {
                let what = if said.is_some() { "is false" } else { "is missing" };
                let text = format!(
                    "{what} and no output matrix `{HEAD}` is stored: set it to true if the table of tokens serves as"
                );
                Err(Error::config(key, format!("{text} such, else fetch the language model, not its body alone")))
            }
        }
    }
}

/// The metadata of a GGUF file, and the tensors that are no parameters.
pub(crate) struct GgufHeader {
    /// The architecture that computes the network.
    pub arch: &'static Arch,
    /// Its metadata.
    pub fields: Fields,
    /// Name and values of each tensor that is no parameter.
    pub tensors: Vec<(&'static str, Vec<f32>)>,
}

/// The family of a `config.json`.
///
/// # Errors
/// Names the value of `model_type` and the known ones.
pub(crate) fn of_hub(keys: &Keys) -> Result<&'static Family, Error> {
    let Some(name) = keys.get::<String>("model_type")? else {
        let known: Vec<_> = FAMILIES.iter().map(|family| family.model_type).collect();
        let text = format!("is missing, so nothing tells what network this is; supported: {}", known.join(", "));
        return Err(Error::config("model_type", text));
    };
    FAMILIES.iter().find(|family| family.model_type == name).copied().ok_or_else(|| {
        let known = alternatives(&name, FAMILIES.iter().map(|family| family.model_type));
        Error::config("model_type", format!("is `{}`, which is unknown{known}", show(&name)))
    })
}

/// Every architecture of llama.cpp and its forks.
pub(crate) fn gguf_archs() -> impl Iterator<Item = &'static Arch> {
    FAMILIES.iter().flat_map(|family| family.gguf)
}
