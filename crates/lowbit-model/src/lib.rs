//! Architectures written once, their interpreters for inference and listing, checkpoints and tokenizers.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod arch;
pub mod card;
pub mod chat;
pub mod checkpoint;
pub mod container;
pub mod cpu;
mod error;
pub mod exec;
pub mod generate;
pub mod language;
pub mod listing;
pub mod origin;
mod random;
pub mod recipe;
pub mod rope;
pub mod source;
pub mod synthetic;
pub mod text;
mod tokenizer;
pub mod work;

pub use arch::{Config, Model};
pub use card::Card;
pub use checkpoint::Checkpoint;
pub use cpu::{CpuExec, Param, Sequences, Session};
pub use error::{Error, Kind};
pub use recipe::Recipe;
pub use tokenizer::Tokenizer;

/// The known name closest to one that is not, if it is close.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let scored = known.iter().map(|k| (strsim::jaro_winkler(name, k), *k));
    scored.filter(|(score, _)| *score > 0.7).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, k)| k)
}
