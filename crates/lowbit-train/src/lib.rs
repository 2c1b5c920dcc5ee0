#![doc = include_str!("../README.md")]
//!
//! * [`Tape`] is the training interpreter: it runs an architecture, records it, and runs it backwards.
//! * [`Qat`] makes body weights ternary and their activations int8 by straight-through estimators.
//! * [`tune`] trains codes and scales of a network that was quantized.
//! * [`train`] is the loop: order, schedule, optimizer, checkpoints, metrics. The weights it yields depend on
//!   configuration, data and seed alone. [`train_together`] is the same on several processes, each of which is one of the [`Ranks`].
#![forbid(unsafe_code)]
#![deny(missing_docs)]

mod arena;
mod augment;
mod backward;
mod begin;
mod config;
mod data;
mod distill;
mod divergence;
mod feed;
mod gradients;
mod grid;
mod images;
mod labelled;
mod lora;
mod metrics;
mod muon;
mod need;
mod network;
mod optim;
mod params;
mod prune;
mod qat;
mod random;
mod ranks;
mod remaining;
mod replay;
mod state;
mod stored;
mod tape;
mod teacher;
mod together;
mod trainer;
mod tuning;
mod validation;
mod windows;

pub use augment::Augment;
pub use config::{Optimizer, Precision, Schedule, TrainConfig};
pub use data::{BatchTargets, Data};
pub use distill::{Distill, Relations};
pub use labelled::Labelled;
pub use lora::Lora;
pub use lowbit_base::{Error, Kind};
pub use metrics::StepMetrics;
pub use need::{ledger, need};
pub use network::Network;
pub use params::{Param, ParamId, Params, Weight};
pub use prune::{Pattern, Prune};
pub use qat::{Granularity, Qat, QatActivations, QatWeights, Scale};
#[cfg(feature = "mpi")]
pub use ranks::mpi::Mpi;
pub use ranks::{Alone, Ranks};
pub use remaining::Remaining;
pub use tape::{Pass, Tape, Tensor};
pub use trainer::{Control, Job, Observer, Outcome, Status, train, train_together};
pub use tuning::{Tuned, Tuning, tune};
pub use validation::Validation;
pub use windows::Windows;
