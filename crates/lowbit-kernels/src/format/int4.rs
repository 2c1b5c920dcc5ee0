//! Integers of 4 and of 2 bits, `w = code * scale + offset`, with scale and offset per 64 columns of a row.

use super::codec::{Nibbles, TwoBits};
use super::integer::Integer;
use super::quantizer::ScaleRule;
use super::spec::{Scales, Spec};
use crate::activations::GROUP;

/// Codes 0 to 15.
pub(super) static INT4: Integer<Nibbles, 2> = Integer {
    spec: Spec::integers("int4", 4.0, 16, Scales::Group(GROUP)),
    codec: Nibbles,
    rule: ScaleRule::Search { max: 15 },
};

/// Codes 0 to 3.
pub(super) static INT2: Integer<TwoBits<false>, 4> = Integer {
    spec: Spec::integers("int2", 2.0, 4, Scales::Group(GROUP)),
    codec: TwoBits,
    rule: ScaleRule::Search { max: 3 },
};
