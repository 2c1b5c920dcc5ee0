#![doc = include_str!("../README.md")]
//!
//! `task` + `read` + `quickstart` give labelled rows; `metrics` and `stats` turn answers into measures; `meter` takes
//! times, memory and energy; `faithfulness` compares answers with those of a reference; `sensitivity` chooses a format for each layer by it; `question` lists what may be asked, `classify`, `language`, `choose` and `generate` score models on it, `speed` times them, `study` measures layers and networks of known shapes, `published` quotes figures of others, `predict` answers rows without labels, `compress` proves a language model's bits by the file it writes;
//! `record` is what all of them fill; `report` renders records and nothing else; `audit` reads the reports of others; `checks` lists what both look for.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod audit;
pub mod baseline;
pub mod bench;
pub mod checks;
pub mod choose;
pub mod classify;
pub mod compress;
pub mod facts;
pub mod faithfulness;
pub mod generate;
pub mod generation;
pub mod infer;
pub mod inspect;
pub mod language;
mod laws;
pub mod meter;
pub mod metrics;
pub mod predict;
pub mod published;
pub mod quantity;
pub mod question;
pub mod quickstart;
pub mod read;
pub mod record;
pub mod report;
pub mod sensitivity;
pub mod speed;
pub mod stats;
pub mod study;
pub mod task;

pub use lowbit_base::{Error, error};
