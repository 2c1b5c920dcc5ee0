//! Families of published networks: one file each, with what the Hub and llama.cpp call it. A family reads foreign keys into
//! the configuration of an architecture; [`FAMILIES`] lists them.

use super::decoder::gguf::{Arch, Fields};
use crate::arch::Head;
use crate::container::show;
use crate::exec::Pooling;
use crate::{Config, Error};
use lowbit_base::alternatives;

mod bert;
mod bitnet;
mod distilbert;
mod gpt2;
mod gpt_neo;
pub(crate) mod keys;
pub(crate) mod known;
mod llama;
mod mistral;
pub(crate) mod names;
mod qwen2;
mod qwen3;
mod roberta;
pub(crate) mod rope;

use keys::Keys;
use names::Names;

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
    /// What its tensors are called on the Hub, where that differs from the names here.
    pub(crate) names: Option<&'static Names>,
    /// Its architectures in llama.cpp and its forks.
    pub(crate) gguf: &'static [Arch],
}

/// Every family.
pub static FAMILIES: &[&Family] = &[
    &bert::FAMILY,
    &bitnet::FAMILY,
    &distilbert::FAMILY,
    &gpt2::FAMILY,
    &gpt_neo::FAMILY,
    &llama::FAMILY,
    &mistral::FAMILY,
    &qwen2::FAMILY,
    &qwen3::FAMILY,
    &roberta::FAMILY,
    &roberta::XLM,
];

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
    /// Names of the classes of a classifier.
    pub labels: Vec<String>,
}

/// Ends of the names of the table of tokens and of the output matrix.
pub(crate) const TABLE: &str = "embed_tokens.weight";
pub(crate) const HEAD: &str = "lm_head.weight";
/// The matrix of a classifier.
pub(crate) const CLASSIFIER: &str = "classifier.weight";
const CLASSIFIER_BIAS: &str = "classifier.bias";

impl Published<'_> {
    /// What a decoder ends in, and the names of its classes; `tied` is what a missing `tie_word_embeddings` means. A classifier takes
    /// the last token, as transformers' `ForSequenceClassification` does.
    ///
    /// # Errors
    /// When neither an output matrix is stored nor a key says that the table of tokens serves as such.
    pub fn decoder_head(&self, tied: bool) -> Result<(Head, Vec<String>), Error> {
        if !(self.stores)(CLASSIFIER) {
            return Ok((Head::Lm { tied: self.is_tied(tied)? }, Vec::new()));
        }
        self.keys.value("tie_word_embeddings");
        self.classifier(Pooling::Last)
    }

    /// What an encoder ends in: a classifier where one is stored, else vectors, the mean of all tokens.
    ///
    /// # Errors
    /// When the classes are described wrongly.
    pub fn encoder_head(&self, pooling: Pooling) -> Result<(Head, Vec<String>), Error> {
        match (self.stores)(CLASSIFIER) {
            true => self.classifier(pooling),
            false => Ok((Head::Embed { pooling: Pooling::Mean, normalize: true }, Vec::new())),
        }
    }

    /// A classifier of as many classes as `id2label` names, else as `num_labels` says, else of two, as in transformers.
    fn classifier(&self, pooling: Pooling) -> Result<(Head, Vec<String>), Error> {
        let (key, kind) = ("id2label", "problem_type");
        if self.keys.get::<String>(kind)?.as_deref() == Some("multi_label_classification") {
            return Err(Error::config(kind, "is multi_label_classification; one class per text is supported"));
        }
        let bias = (self.stores)(CLASSIFIER_BIAS);
        let count = self.keys.size("num_labels")?.unwrap_or(2);
        let Some(names) = self.keys.object(key)? else {
            let labels = if count == 1 { Vec::new() } else { (0..count).map(|i| format!("LABEL_{i}")).collect() };
            return Ok((Head::Classify { classes: count, pooling, bias }, labels));
        };
        let name = |i: usize| names.get(&i.to_string()).and_then(|name| name.as_str()).map(String::from);
        let labels: Option<Vec<String>> = (0..names.len()).map(name).collect();
        let text = format!("must name the classes 0 to {}", names.len() - 1);
        let mut labels = labels.ok_or_else(|| Error::config(key, text))?;
        let classes = labels.len();
        if classes == 1 {
            labels.clear();
        }
        Ok((Head::Classify { classes, pooling, bias }, labels))
    }

    /// Whether the table of tokens serves as output matrix: the key says so, and no other matrix is stored.
    ///
    /// # Errors
    /// When neither a matrix is stored nor the key is set; the message tells what may be missing.
    fn is_tied(&self, default: bool) -> Result<bool, Error> {
        let key = "tie_word_embeddings";
        let (said, stored) = (self.keys.get::<bool>(key)?, (self.stores)(HEAD));
        match (said.unwrap_or(default), stored) {
            (true, false) => Ok(true),
            (false, true) => Ok(false),
            (true, true) if !(self.stores)(TABLE) || (self.same_head)()? => Ok(true),
            (true, true) => {
                let text = format!("`{key}` is true, but another output matrix `{HEAD}` is stored: it is used");
                self.keys.notice(text);
                Ok(false)
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
