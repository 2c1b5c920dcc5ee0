//! Low-rank updates of matrices that stay as they are (LoRA, arXiv 2106.09685; over a low-bit base: QLoRA, arXiv 2305.14314).
//!
//! A matrix `W`, `[out, in]`, becomes `W + scale * B A`, with `A` `[rank, in]` and `B` `[out, rank]`. The sum is what quantization-aware
//! training quantizes, so that the merged matrix is the one that was trained. `B` begins as 0.

use crate::Error;
use crate::config::out_of_range;
use crate::params::{Param, ParamId, Params};
use crate::random::{hash, normal};
use lowbit_base::SplitMix64;
use lowbit_kernels::{Cpu, Format, Mat, format, gemm};
use lowbit_model::source::{Init, ParamSpec, Role};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Ends of the names of the two factors.
const A: &str = "lora_a";
const B: &str = "lora_b";
/// Highest rank.
const MAX_RANK: usize = 4096;

/// Low-rank updates in place of changes to body matrices.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Lora {
    /// Rank of the updates.
    pub rank: usize,
    /// Factor of the updates, times the rank.
    pub alpha: f32,
    /// Format that the matrices below are kept in; f32 if absent.
    pub base: Option<String>,
}

impl Default for Lora {
    fn default() -> Self {
        Lora { rank: 16, alpha: 32.0, base: None }
    }
}

impl Lora {
    /// Sees that rank and factor are in range, and that the base has a known format.
    pub(crate) fn validate(&self, quantized: bool) -> Result<(), Error> {
        if !(1..=MAX_RANK).contains(&self.rank) {
            return Err(out_of_range("lora.rank", self.rank, &format!("at least 1, at most {MAX_RANK}")));
        }
        if !(self.alpha > 0.0 && self.alpha <= 1e6) {
            return Err(out_of_range("lora.alpha", self.alpha, "above 0, at most 1e6"));
        }
        match self.base()? {
            Some(format) if quantized => Err(out_of_range(
                "lora.base",
                format.name(),
                "absent where `qat` is given: the sum of both is quantized",
            )),
            _ => Ok(()),
        }
    }

    /// The format of the matrices below the updates; f32 if none.
    pub(crate) fn base(&self) -> Result<Option<&'static dyn Format>, Error> {
        let unknown = |e: lowbit_kernels::Error| Error::usage(format!("train: `lora.base`: {e}"));
        self.base.as_deref().map(|name| format::find(name).map_err(unknown)).transpose()
    }
}

/// The factors of a matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Adapter {
    pub a: ParamId,
    pub b: ParamId,
    pub scale: f32,
    pub rank: usize,
}

impl Params {
    /// Gives a matrix a low-rank update, drawn from a seed; the matrix itself is not changed by training.
    ///
    /// # Panics
    /// When there is no such parameter.
    pub fn adapt(&mut self, name: &str, lora: &Lora, seed: u64) {
        let at = self.iter().position(|p| p.spec.name == name).expect("a parameter of the network");
        let spec = self.get(ParamId(at)).spec.clone();
        let (rank, std) = (lora.rank, (1.0 / spec.cols as f32).sqrt());
        let key: Vec<u64> = name.bytes().map(u64::from).collect();
        let mut random = SplitMix64::new(hash(&[seed, hash(&key)]));
        let a: Vec<f32> = (0..rank * spec.cols).map(|_| normal(&mut random) * std).collect();
        let part = |end: &str, rows, cols, init| ParamSpec {
            name: format!("{name}.{end}"),
            rows,
            cols,
            role: Role::Body,
            init,
            positions: 1,
        };
        let a = self.push(part(A, rank, spec.cols, Init::Normal(std)), a);
        let b = self.push(part(B, spec.rows, rank, Init::Constant(0.0)), vec![0.0; spec.rows * rank]);
        for id in [a, b] {
            self.get_mut(id).is_factor = true;
        }
        let param = self.get_mut(ParamId(at));
        param.adapter = Some(Adapter { a, b, scale: lora.alpha / rank as f32, rank });
        param.trained = false;
    }

    /// The values of a parameter with its low-rank update where it has one, `[rows, cols]`.
    pub(crate) fn merged<'a>(&self, cpu: &Cpu, param: &'a Param) -> Cow<'a, [f32]> {
        let Some(Adapter { a, b, scale, rank }) = param.adapter else { return param.values() };
        let mut values = param.values().into_owned();
        let (rows, cols) = (param.spec.rows, param.spec.cols);
        let (a, b) = (self.get(a).values(), self.scaled(b, scale));
        gemm(cpu, rows, cols, rank, Mat::new(&b, rank), Mat::new(&a, cols), true, &mut values);
        Cow::Owned(values)
    }

    /// The values of a factor times a number.
    pub(crate) fn scaled(&self, id: ParamId, scale: f32) -> Vec<f32> {
        self.get(id).values().iter().map(|v| v * scale).collect()
    }

    /// The parameters of the network itself, without factors of low-rank updates.
    pub fn network(&self) -> impl Iterator<Item = &Param> {
        self.iter().filter(|param| !param.is_factor)
    }
}
