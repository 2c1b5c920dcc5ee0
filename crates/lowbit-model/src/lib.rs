#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

pub mod arch;
pub mod calibrate;
pub mod chat;
pub mod checkpoint;
pub mod container;
pub mod cpu;
pub mod engine;
pub mod exec;
pub mod generate;
pub mod input;
pub mod language;
pub mod model_config;
pub mod parameter_list;
pub mod predict;
pub mod reader;
pub mod recipe;
pub mod rope;
mod rotation;
mod rounding;
pub mod source;
pub mod synthetic;
pub mod text;
mod tokenizer;
pub mod trace;
pub mod window;
pub mod work;

pub use arch::{Config, Model};
pub use checkpoint::Checkpoint;
pub use cpu::{CpuExec, Param, Sequences, Session};
pub use input::{Column, InputColumns, Inputs};
pub use lowbit_base::{Error, Kind};
pub use model_config::ModelConfig;
pub use predict::{Encoder, Predictor};
pub use reader::hub_cache;
pub use recipe::Recipe;
pub use rounding::Rounding;
pub use tokenizer::{PairTokens, Tokenizer};
