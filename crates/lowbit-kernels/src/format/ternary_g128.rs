//! Ternary weights at four per byte, `w = (code - 1) * scale`, with an f16 scale per 128 columns of a row.

use super::codec::TwoBits;
use super::integer::Integer;
use super::quantizer::ScaleRule;
use super::spec::{Scales, Spec, TRIT};

/// See the top of the file.
pub(super) static TERNARY_G128: Integer<TwoBits<true>, 4> = Integer {
    spec: Spec::integers("ternary_g128", TRIT, 3, Scales::Group(128)),
    codec: TwoBits,
    rule: ScaleRule::Absmean,
};
