//! Ternary weights at four per byte, `w = (code - 1) * scale`, with a scale per matrix or per row (arXiv 2402.17764).

use super::codec::TwoBits;
use super::integer::Integer;
use super::quantizer::ScaleRule;
use super::spec::{Scales, Spec, TRIT};

/// A scale per matrix.
pub(super) static TERNARY: Integer<TwoBits<true>, 4> =
    Integer { spec: Spec::integers("ternary", TRIT, 3, Scales::Tensor), codec: TwoBits, rule: ScaleRule::Absmean };

/// A scale per row.
pub(super) static TERNARY_CHANNEL: Integer<TwoBits<true>, 4> =
    Integer { spec: Spec::integers("ternary_channel", TRIT, 3, Scales::Row), codec: TwoBits, rule: ScaleRule::Absmean };
