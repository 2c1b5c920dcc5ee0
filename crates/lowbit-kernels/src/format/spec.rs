//! Properties of a format: code outside of a format's own file asks for properties, and never for a name.

use crate::simd::LANES;

/// Which activations the products of a format multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivationType {
    /// f32, or bf16 where that is fast.
    Float,
    /// 8-bit integers, exactly; with f32 the dequantized weights.
    Int8,
    /// f32, which the product itself quantizes to 8 bits but for outliers.
    Mixed,
}

/// Granularity of quantization scales: per tensor, per channel or per group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scales {
    /// Nothing: weights are floats.
    None,
    /// The whole matrix.
    Tensor,
    /// Each row (output channel).
    Row,
    /// Groups of so many columns of a row.
    Group(usize),
}

/// The properties of a format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spec {
    /// The name in recipes, records and on disk.
    pub name: &'static str,
    /// Bits of a weight at least, without scales and padding; of ternary weights their entropy where they are stored in 2.
    pub bits: f64,
    /// Distinct values that weights of one scale have at most; `None` where there is no limit.
    pub levels: Option<u64>,
    /// Activations that its products multiply.
    pub activations: ActivationType,
    /// Granularity of its scales.
    pub scales: Scales,
    /// Whether 8-bit activations had better have a scale per [`BLOCK`](crate::BLOCK) of their columns than one per token: weights of
    /// models that were trained in floats.
    pub in_blocks: bool,
    /// Whether every finite f32 matrix comes back as it was.
    pub lossless: bool,
    /// Whether [`QuantizeOptions::outlier_columns`](super::QuantizeOptions::outlier_columns) are kept in more bits, so that
    /// activations must be seen before quantizing.
    pub outliers: bool,
    /// Whether parts tell the same weights twice, so that no part may be replaced alone.
    pub redundant: bool,
    /// Rows that are stored together: ranges of rows that are packed apart begin at a multiple of it.
    pub block: usize,
    /// Version of the layout of its bytes; 1 where a file states none.
    pub layout: u32,
}

/// The entropy of three equally likely values, bits.
pub(super) const TRIT: f64 = 1.584_962_500_721_156;

impl Spec {
    /// Floats of so many bits without scales, in panels of 16 rows: what other formats differ from.
    pub(super) const fn floats(name: &'static str, bits: f64) -> Self {
        Spec {
            name,
            bits,
            levels: None,
            activations: ActivationType::Float,
            scales: Scales::None,
            in_blocks: false,
            lossless: false,
            outliers: false,
            redundant: false,
            block: LANES,
            layout: 1,
        }
    }

    /// Integers of so many bits and values.
    pub(super) const fn integers(name: &'static str, bits: f64, levels: u64, scales: Scales) -> Self {
        Spec { levels: Some(levels), activations: ActivationType::Int8, scales, ..Spec::floats(name, bits) }
    }

    /// Whether weights are -1, 0 or 1 times their scale.
    pub fn is_ternary(&self) -> bool {
        self.levels == Some(3)
    }

    /// Whether a weight takes fewer than 16 bits.
    pub fn is_low_bit(&self) -> bool {
        self.bits < 16.0
    }

    /// Whether all rows share a scale, so that [`QuantizeOptions::whole`](super::QuantizeOptions::whole) is needed to
    /// quantize some of them.
    pub fn shares_scale(&self) -> bool {
        self.scales == Scales::Tensor
    }
}

/// Content of a stored part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Codes of weights, in blocks of rows.
    Codes,
    /// Scales of weights.
    Scales,
    /// Something else.
    Other,
}

/// One stored part of a packed matrix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredPart {
    /// `codes`, `scales`, ...; the name of the tensor on disk is `<parameter>.<part>`.
    pub name: &'static str,
    /// Size in bytes; `usize::MAX`, which no part has, where a shape is too large.
    pub bytes: usize,
    /// Its content.
    pub holds: Holds,
}

impl StoredPart {
    /// Codes under their usual name.
    pub(super) fn codes(bytes: usize) -> Self {
        StoredPart { name: "codes", bytes, holds: Holds::Codes }
    }

    /// Scales under their usual name.
    pub(super) fn scales(bytes: usize) -> Self {
        StoredPart { name: "scales", bytes, holds: Holds::Scales }
    }

    /// Another part.
    pub(super) fn other(name: &'static str, bytes: usize) -> Self {
        StoredPart { name, bytes, holds: Holds::Other }
    }
}
