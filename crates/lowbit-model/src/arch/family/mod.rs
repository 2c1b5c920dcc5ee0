//! Families of published networks: one file each, with what the Hub and llama.cpp call it. A family reads foreign keys into
//! the configuration of an architecture; [`FAMILIES`] lists them.

use super::decoder::gguf::{Arch, Fields};
use crate::container::show;
use crate::{Config, Error};

mod bitnet;
pub(crate) mod keys;
mod llama;
mod mistral;

use keys::Keys;

/// What others call a family of networks, and how its keys are read.
pub struct Family {
    /// `model_type` in the Hub's `config.json`.
    pub model_type: &'static str,
    /// Whether its networks are trained ternary where `config.json` does not tell.
    pub(crate) ternary: bool,
    /// Reads a `config.json`.
    pub(crate) hub: fn(&Published) -> Result<Config, Error>,
    /// Its architectures in llama.cpp and its forks.
    pub(crate) gguf: &'static [Arch],
}

/// Every family.
pub static FAMILIES: &[&Family] = &[&bitnet::FAMILY, &llama::FAMILY, &mistral::FAMILY];

/// What tells a network of the Hub.
pub(crate) struct Published<'a> {
    /// Keys of `config.json`.
    pub keys: Keys<'a>,
    /// Whether the name of some stored tensor ends so.
    pub stores: &'a dyn Fn(&str) -> bool,
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
    let name: String = keys.get("model_type")?.unwrap_or_default();
    FAMILIES.iter().find(|family| family.model_type == name).copied().ok_or_else(|| {
        let known: Vec<_> = FAMILIES.iter().map(|family| family.model_type).collect();
        let hint = lowbit_base::did_you_mean(&name, known.iter().copied());
        let text = format!("is `{}`, which is unknown{hint} supported: {}", show(&name), known.join(", "));
        Error::config("model_type", text)
    })
}

/// Every architecture of llama.cpp and its forks.
pub(crate) fn gguf_archs() -> impl Iterator<Item = &'static Arch> {
    FAMILIES.iter().flat_map(|family| family.gguf)
}
